"""Writes a Hugging Face Qwen3-MoE checkpoint with random weights, for trying jaxmoe."""

import argparse
import json
from pathlib import Path
from typing import Any

from jaxmoe.benchmarks.random_checkpoint import PRESETS, write_checkpoint
from jaxmoe.cli.endings import command


def _attribute(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    return name, json.loads(value)


def parser() -> argparse.ArgumentParser:
    """All options."""
    made = argparse.ArgumentParser("jaxmoe random-checkpoint", description=__doc__)
    add = made.add_argument
    add("out", metavar="OUT", type=Path, help="the directory to make")
    sizes = "tiny 1 MB, small 31 MB, bench 1.4 GB (default: tiny)"
    attribute = "an attribute of config.json, as mlp_only_layers=[1]; may be repeated"
    tokenizer = "copy the tokenizer of DIR (default: bytes and syllables, and ChatML)"
    add("--preset", choices=PRESETS, default="tiny", help=sizes)
    add("--seed", type=int, default=0, help="of the weights (default: 0)")
    many = {"type": _attribute, "action": "append", "default": []}
    add("--set", metavar="NAME=JSON", help=attribute, **many)
    add("--layers", metavar="N", type=int, help="short for --set num_hidden_layers=N")
    add("--tokenizer", metavar="DIR", type=Path, help=tokenizer)
    return made


@command
def main(argv: list[str] | None = None) -> int:
    """Runs the command: 0 if done, 2 on input that does not fit."""
    args = parser().parse_args(argv)
    layers = [] if args.layers is None else [("num_hidden_layers", args.layers)]
    nbytes = write_checkpoint(
        args.out,
        preset=args.preset,
        seed=args.seed,
        changes=dict(args.set + layers),
        tokenizer=args.tokenizer,
    )
    print(f"{args.out}: {nbytes / 1e6:.1f} MB of random weights")
    return 0
