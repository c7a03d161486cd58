"""Trains the demo model from nothing; a killed run goes on where it was saved."""

import argparse
import dataclasses
import os
import sys
from pathlib import Path

from jaxmoe.cli.endings import ends_quietly, input_errors

EPILOG = """\
Writes OUT/log.jsonl as it goes, and at the end OUT/hf, a Hugging Face directory, and
OUT/problems.json. What ships in jaxmoe/demo is made by `python scripts/train_demo.py
OUT` and copied from there."""
SMOKE = {"steps": 60, "batch": 32, "warm_up": 10}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG)
    add = parser.add_argument
    out = "the directory to train in (default: demo-training, or demo-smoke)"
    add("out", metavar="OUT", type=Path, nargs="?", help=out)
    add("--steps", type=int, help="updates (default: the recipe's 4000)")
    add("--batch", type=int, help="answers in an update (default: 128)")
    add("--learning-rate", type=float, help="default: 3e-3")
    add("--balance", type=float, help="weight of the balancing loss (default: 0.01)")
    add("--seed", type=int, help="of weights and batches (default: 0)")
    smoke = "a run of a minute or two that fails unless the loss falls by half"
    add("--smoke", action="store_true", help=smoke)
    return parser


def _use_cores() -> None:
    """A device for each core: XLA's threads make little of products this small."""
    import jax

    flag = "--xla_cpu_multi_thread_eigen=false"
    os.environ["XLA_FLAGS"] = f"{flag} {os.environ.get('XLA_FLAGS', '')}"
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    jax.config.update("jax_num_cpu_devices", cores)


def main(argv: list[str] | None = None) -> int:
    """Runs the command: 0 if done, 1 if a smoke run learnt nothing."""
    args = _parser().parse_args(argv)
    with ends_quietly(), input_errors():
        _use_cores()
        from _demo_run import run

        from jaxmoe.demo.training import Recipe

        names = ("steps", "batch", "learning_rate", "balance", "seed")
        given = {n: v for n in names if (v := getattr(args, n)) is not None}
        recipe = dataclasses.replace(Recipe(), **(SMOKE if args.smoke else {}) | given)
        default = Path("demo-smoke" if args.smoke else "demo-training")
        records = run(args.out or default, recipe)
    if args.smoke and not records[-1].entropy < records[0].entropy / 2:
        print("the loss should have halved")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
