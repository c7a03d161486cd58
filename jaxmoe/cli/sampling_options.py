"""Options: how many answers, from which seed, how long."""

import argparse
from typing import Any

import jax


def seed(text: str) -> int:
    """A seed that gives a key of its own."""
    value = int(text)
    if not 0 <= value < 2**32:
        raise ValueError
    return value


def add_sampling_options(parser: argparse.ArgumentParser) -> None:
    """Adds what `jaxmoe.stream` takes besides prompt, policy and sampler."""
    stop = (
        "a text that ends an answer and is left out, besides the model's own stop "
        "tokens; may be repeated (in bash, $'\\n' is a newline)"
    )
    most = "the most tokens of an answer (default: 256)"
    slots = "answers computed side by side (default: enough for all, at most 64)"
    noisy = "draw the experts of the prompt's tokens too, anew for each answer; slower"
    add = parser.add_argument
    add("--n", type=int, default=8, help="answers (default: 8)")
    add("--seed", type=seed, default=0, help="0..2**32 - 1 (default: 0)")
    add("--max-new-tokens", type=int, metavar="N", default=256, help=most)
    add("--stop", metavar="TEXT", action="append", default=[], help=stop)
    ignore = "the model's own stop tokens end no answer"
    add("--ignore-eos", action="store_true", help=ignore)
    include = "answers are shown with the stop that ended them"
    add("--include-stop", action="store_true", help=include)
    add("--slots", type=int, metavar="S", help=slots)
    add("--noisy-prefill", action="store_true", help=noisy)


def sampling_of(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `jaxmoe.stream` that were asked for."""
    names = ("n", "max_new_tokens", "stop", "slots", "noisy_prefill")
    names += ("ignore_eos", "include_stop")
    key = jax.random.key(args.seed, impl="threefry2x32")
    return {"key": key} | {name: getattr(args, name) for name in names}
