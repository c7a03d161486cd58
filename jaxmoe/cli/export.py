"""Writes a jaxmoe checkpoint as Hugging Face safetensors."""

import argparse

from jaxmoe.cli import convert
from jaxmoe.cli.endings import command


def parser() -> argparse.ArgumentParser:
    """All options, those of `python -m convert --export`."""
    made = argparse.ArgumentParser("jaxmoe export", description=__doc__)
    add = made.add_argument
    add("source", metavar="CKPT", help="made by `jaxmoe convert`")
    add("out", metavar="OUT", help="the directory to make")
    jobs = "parameters in flight (default: 8)"
    add("--jobs", type=int, default=8, metavar="N", help=jobs)
    add("--force", action="store_true", help="replace OUT if it exists")
    return made


@command
def main(argv: list[str] | None = None) -> int:
    """Runs the command: 0 if done, 1 on an error, 2 on wrong usage."""
    args = parser().parse_args(argv)
    force = ["--force"] if args.force else []
    return convert.main(
        ["--export", args.source, args.out, "--jobs", str(args.jobs), *force]
    )
