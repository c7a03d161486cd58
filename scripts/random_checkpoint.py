"""Writes a Hugging Face Qwen3-MoE checkpoint with random weights, for trying jaxmoe."""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from _babble import BYTES, write_tokenizer
from _random_config import PRESETS, copy_tokenizer, preset, write_configs
from _random_weights import write_random

from jaxmoe.cli.endings import ends_quietly, input_errors
from jaxmoe.text.tokenizer import Tokenizer


def _attribute(text: str) -> tuple[str, Any]:
    name, _, value = text.partition("=")
    return name, json.loads(value)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
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
    return parser


def _write(directory: Path, args: argparse.Namespace) -> int:
    layers = [] if args.layers is None else [("num_hidden_layers", args.layers)]
    config = preset(args.preset, dict(args.set + layers))
    source = args.tokenizer
    if source is None:
        write_tokenizer(directory, config["vocab_size"])
    else:
        copy_tokenizer(source, directory)
    tokenizer = Tokenizer.load(directory)
    if tokenizer is None:
        raise FileNotFoundError(f"expected tokenizer.json in {source}, found none")
    config = write_configs(directory, config, tokenizer)
    head_scale = np.ones(tokenizer.vocab_size, np.float32)
    if source is None:
        head_scale[:BYTES] = 0  # few single bytes are text
    if tokenizer.eos_id is not None:
        head_scale[tokenizer.eos_id] = 2  # answers of tens of tokens, not thousands
    return write_random(directory, config, args.seed, head_scale)


def main(argv: list[str] | None = None) -> int:
    """Writes under a temporary name and renames when complete."""
    args = _parser().parse_args(argv)
    with ends_quietly(), input_errors():
        if args.out.exists() or args.out.is_symlink():
            raise FileExistsError(f"{args.out} exists; remove it or choose another")
        parent = args.out.resolve().parent
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=parent, prefix=".random-") as scratch:
            made = Path(scratch) / "made"
            made.mkdir()
            nbytes = _write(made, args)
            made.rename(args.out)
    print(f"{args.out}: {nbytes / 1e6:.1f} MB of random weights")
    return 0


if __name__ == "__main__":
    sys.exit(main())
