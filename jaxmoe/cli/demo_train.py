"""Trains the demo model from nothing; a killed run goes on where it was saved."""

import argparse
import dataclasses
import os
from pathlib import Path

import jax

from jaxmoe.cli.fields import add_field, fields_of, given, help_of
from jaxmoe.demo.recipe import Recipe
from jaxmoe.execution import cores

EPILOG = """\
Writes OUT/log.jsonl as it goes, and at the end OUT/hf, a Hugging Face directory, and
OUT/problems.json. What ships in jaxmoe/demo is made by `jaxmoe demo train OUT` and
copied from there."""
SMOKE = {"steps": 60, "batch": 32, "warm_up": 10}
OPTIONS = ("steps", "batch", "learning_rate", "balance", "seed")
"""Fields of `Recipe` that can be changed."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """All options."""
    out = "the directory to train in (default: demo-training, or demo-smoke)"
    parser.add_argument("out", metavar="OUT", type=Path, nargs="?", help=out)
    for name in OPTIONS:
        said = f"{help_of(Recipe)[name]} (default: {fields_of(Recipe)[name].default})"
        add_field(parser, Recipe, name, help=said)
    smoke = "a run of a minute or two that fails unless the loss falls by half"
    parser.add_argument("--smoke", action="store_true", help=smoke)


def run(args: argparse.Namespace) -> int:
    """Trains: 0 if done, 1 if a smoke run learnt nothing."""
    use_cores()
    # Imported late: it needs the extra `train`.
    from jaxmoe.demo import logged_run

    smoke = SMOKE if args.smoke else {}
    recipe = dataclasses.replace(Recipe(), **smoke | given(args, [*OPTIONS]))
    default = Path("demo-smoke" if args.smoke else "demo-training")
    records = logged_run.run(args.out or default, recipe)
    if args.smoke and not records[-1].entropy < records[0].entropy / 2:
        print("the loss should have halved")
        return 1
    return 0


def use_cores() -> None:
    """A device for each core: XLA's threads make little of products this small."""
    flag = "--xla_cpu_multi_thread_eigen=false"
    os.environ["XLA_FLAGS"] = f"{flag} {os.environ.get('XLA_FLAGS', '')}"
    jax.config.update("jax_num_cpu_devices", cores())
