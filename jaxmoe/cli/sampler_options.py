"""Options: how the next token is drawn."""

import argparse
import dataclasses

from jaxmoe.cli.fields import add_field, fields_of, given
from jaxmoe.decode.sampler import TokenSampler
from jaxmoe.model import Model


def add_sampler_options(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `TokenSampler`, and --greedy."""
    group = parser.add_argument_group(
        "tokens",
        "Defaults are those of the checkpoint's generation_config.json; without one, "
        "tokens are drawn from the model's own distribution.",
    )
    greedy = "always the most likely token: --temperature 0"
    either = group.add_mutually_exclusive_group()
    either.add_argument("--greedy", action="store_true", help=greedy)
    for name in fields_of(TokenSampler):
        target = either if name == "temperature" else group
        add_field(target, TokenSampler, name, type=int if name == "top_k" else float)


def sampler_of(args: argparse.Namespace, model: Model) -> TokenSampler:
    """The checkpoint's sampler with what was asked for changed."""
    changes = given(args, [*fields_of(TokenSampler)])
    if args.greedy:
        changes["temperature"] = 0.0
    sampler = TokenSampler.from_config(model.config.generation)
    return dataclasses.replace(sampler, **changes)
