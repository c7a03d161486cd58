"""Options that scripts share: how the next token is drawn."""

import argparse
import dataclasses
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import jaxmoe

SAMPLER_NUMBERS = {
    "temperature": (float, "logits are divided by it; 0 takes the most likely token"),
    "top_k": (int, "draw from the K most likely tokens; 0 from all"),
    "top_p": (float, "draw from the fewest tokens that reach this probability; 1: all"),
    "min_p": (
        float,
        "drop tokens less likely than this times the most likely; 0: none",
    ),
}


def add_sampler_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `TokenSampler`."""
    group = parser.add_argument_group(
        "tokens",
        "Defaults are those of the checkpoint's generation_config.json; without one, "
        "tokens are drawn from the model's own distribution.",
    )
    greedy = "always the most likely token: --temperature 0"
    either = group.add_mutually_exclusive_group()
    either.add_argument("--greedy", action="store_true", help=greedy)
    for name, (kind, text) in SAMPLER_NUMBERS.items():
        target = either if name == "temperature" else group
        option = "--" + name.replace("_", "-")
        target.add_argument(option, type=kind, metavar=name[0].upper(), help=text)


def sampler_of(
    args: argparse.Namespace, model: "jaxmoe.Model"
) -> "jaxmoe.TokenSampler":
    """The checkpoint's sampler with what was asked for changed."""
    import jaxmoe

    given = {n: v for n in SAMPLER_NUMBERS if (v := getattr(args, n)) is not None}
    if args.greedy:
        given["temperature"] = 0.0
    sampler = jaxmoe.TokenSampler.from_config(model.config.generation)
    return dataclasses.replace(sampler, **given)
