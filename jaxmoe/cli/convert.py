"""Makes a jaxmoe checkpoint of a Hugging Face one: `python -m convert`."""

import argparse

import jax

from convert import __main__ as conversion
from jaxmoe.cli.endings import command

PROG = "jaxmoe convert"


def parser() -> argparse.ArgumentParser:
    """All options, those of `python -m convert`."""
    return conversion.make_parser(PROG)


@command
def main(argv: list[str] | None = None) -> int:
    """Runs the command: 0 if done, 1 on an error, 2 on wrong usage."""
    # Nothing is computed here: leave accelerators to others.
    jax.config.update("jax_platforms", "cpu")
    return conversion.main(argv, PROG)
