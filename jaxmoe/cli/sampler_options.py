"""Options: how the next token is drawn."""

import argparse
import dataclasses
from pathlib import Path
from typing import Any

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
        add_field(target, TokenSampler, name, **_READ.get(name, {"type": float}))


def biases(text: str) -> dict[int, float]:
    """Biases by token id: "198:-100,13:2.5"."""
    pairs = [part.split(":") for part in text.split(",")]
    return {int(token): float(bias) for token, bias in pairs}


def _text_of(path: str) -> str:
    try:
        return Path(path).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise argparse.ArgumentTypeError(f"{path} cannot be read: {error}") from None


_READ: dict[str, dict[str, Any]] = {
    "top_k": {"type": int},
    "min_tokens": {"type": int},
    "logit_bias": {"type": biases, "metavar": "ID:BIAS,..."},
    "json_schema": {
        "type": _text_of,
        "metavar": "FILE",
        "help": "a JSON schema that answers follow",
    },
    "regex": {"type": str, "metavar": "TEXT"},
    "bad_words": {
        "action": "append",
        "type": str,
        "metavar": "TEXT",
        "help": "a text that no answer has; may be repeated",
    },
}
"""How the text of an option is read that is not one number."""


def sampler_of(args: argparse.Namespace, model: Model) -> TokenSampler:
    """The checkpoint's sampler with what was asked for changed."""
    changes = given(args, [*fields_of(TokenSampler)])
    if args.greedy:
        changes["temperature"] = 0.0
    sampler = TokenSampler.from_config(model.config.generation)
    return dataclasses.replace(sampler, **changes)
