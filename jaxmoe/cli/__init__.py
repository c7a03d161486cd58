"""The command `jaxmoe`: a module a subcommand, imported when it is asked for.

What stands here needs no JAX, so that `jaxmoe --help` answers at once.
"""

import argparse
import difflib
import sys
from importlib import import_module, metadata
from types import ModuleType

from jaxmoe.cli.endings import ends_quietly

COMMANDS = {
    "sample": "draw n answers to one prompt",
    "serve": "answer requests over HTTP, in the shape of OpenAI's API",
    "evaluate": "put a task's questions to a model, and grade its answers",
    "compare": "compare runs on the same questions, as a table or a report",
    "grade": "grade a run's answers again, or answers drawn elsewhere",
    "sweep": "evaluate a grid of policies",
    "replicate": "draw a paper's tables anew, beside its figures",
    "verify": "ask a chat model how good a run's answers are",
    "routers": "measure how routers score and choose experts",
    "plan": "say which slice a model fits, and what a step takes, on paper",
    "scaling": "tables for more chips, counted from compiled steps",
    "bench": "measure jaxmoe on this machine",
    "demo": "measure the method on the demo models, or train them anew",
    "random-checkpoint": "write a checkpoint with random weights",
    "convert": "make a checkpoint of a Hugging Face directory",
    "export": "write a checkpoint as Hugging Face safetensors",
    "list": "list policies, tasks, families, recipes or presets",
    "completion": "print a script that completes commands in a shell",
}
"""Subcommand -> what it does; its module has the same name, with _ for -."""

EPILOG = "`jaxmoe COMMAND --help` says what a command takes."


def module_of(command: str) -> ModuleType:
    """The module of a subcommand; it has `parser()` and `main(argv)`."""
    return import_module(f"jaxmoe.cli.{command.replace('-', '_')}")


def parser() -> argparse.ArgumentParser:
    """What `jaxmoe` itself takes: a subcommand, whose own arguments are left alone."""
    made = argparse.ArgumentParser(
        prog="jaxmoe",
        description="Expert-Sample inference for fine-grained mixture-of-experts "
        "models.",
        epilog=f"commands:\n{_listing()}\n\n{EPILOG}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--version", action="store_true", help="print it and end")
    made.add_argument("command", metavar="COMMAND", nargs="?", help="one of these:")
    return made


def main(argv: list[str] | None = None) -> int:
    """Runs a subcommand.

    Returns:
      The exit code: 0 if done, 1 on a failure, 2 on input that does not fit, 130 on
      Ctrl-C.
    """
    given = sys.argv[1:] if argv is None else argv
    with ends_quietly():
        own = parser()
        # Options before the command are ours, all behind it are the command's.
        args = own.parse_args(given[: _place_of_command(given)])
        if args.version:
            print(f"jaxmoe {metadata.version('jaxmoe')}")
            return 0
        if args.command is None:
            own.error("a command is needed; see jaxmoe --help")
        if args.command not in COMMANDS:
            own.error(_unknown(args.command))
        command = module_of(args.command).main
    return command(given[_place_of_command(given) :])


def _place_of_command(argv: list[str]) -> int:
    """How many arguments there are up to and with the first that is no option."""
    for place, text in enumerate(argv):
        if not text.startswith("-"):
            return place + 1
    return len(argv)


def _unknown(command: str) -> str:
    near = difflib.get_close_matches(command, COMMANDS, n=1)
    remedy = f"did you mean {near[0]}?" if near else "see jaxmoe --help"
    known = ", ".join(COMMANDS)
    return f"the command must be one of {known}, found {command!r}; {remedy}"


def _listing() -> str:
    width = max(map(len, COMMANDS))
    return "\n".join(f"  {name:<{width}}  {text}" for name, text in COMMANDS.items())
