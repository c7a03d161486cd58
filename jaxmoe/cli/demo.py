"""Measures the method or every policy on the demo models, or trains them anew."""

import argparse

from jaxmoe.cli import (
    demo_policies,
    demo_problems,
    demo_study,
    demo_train,
    demo_trials,
)
from jaxmoe.cli.endings import command

PARTS = {
    "study": demo_study,
    "policies": demo_policies,
    "trials": demo_trials,
    "train": demo_train,
    "problems": demo_problems,
}
"""Subcommand -> its module, with `add_options`, `run` and a docstring."""


def parser() -> argparse.ArgumentParser:
    """A subcommand for each part."""
    made = argparse.ArgumentParser("jaxmoe demo", description=__doc__)
    commands = made.add_subparsers(dest="part", required=True)
    for name, module in PARTS.items():
        about = (module.__doc__ or "").strip()
        one = commands.add_parser(
            name,
            help=about.splitlines()[0],
            description=about,
            epilog=module.EPILOG,
        )
        module.add_options(one)
    return made


@command
def main(argv: list[str] | None = None) -> int:
    """Runs the command: 0 if done, 1 if a smoke run fails, 2 on wrong input."""
    args = parser().parse_args(argv)
    return PARTS[args.part].run(args)
