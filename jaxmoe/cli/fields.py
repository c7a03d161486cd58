"""Options from the dataclasses that Python functions take.

A field becomes an option of its name, and its help is what the docstring of the class
says of it: `name: text`, up to the next field's name.
"""

import argparse
import dataclasses
import re
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Union, get_args, get_origin

import numpy as np


def option_of(name: str) -> str:
    """The option of a field: "k_keep" -> "--k-keep"."""
    return "--" + name.replace("_", "-")


def fields_of(cls: type) -> dict[str, dataclasses.Field]:
    """The fields that a user sets, by name, in order.

    Those whose metadata has `derived` are computed from the others.
    """
    found = dataclasses.fields(cls)
    return {f.name: f for f in found if f.init and not f.metadata.get("derived")}


def help_of(cls: type) -> dict[str, str]:
    """What the docstring of `cls` says of each field."""
    text = " ".join((cls.__doc__ or "").split())
    names = "|".join(f.name for f in dataclasses.fields(cls))
    # "name: " begins a field's text; "name, other: " is that of both.
    parts = re.split(rf"(?<!\S)((?:{names})(?:, (?:{names}))*): ", text)
    found: dict[str, str] = {}
    for those, said in zip(parts[1::2], parts[2::2], strict=True):
        for name in those.split(", "):
            found[name] = _as_option(said.strip().removesuffix("."))
    return found


def numbers(text: str) -> Any:
    """One number, or a float32 array of several parted by commas."""
    values = [float(part) for part in text.split(",")]
    return values[0] if len(values) == 1 else np.array(values, np.float32)


def kind_of(field: dataclasses.Field) -> Callable[[str], Any]:
    """What reads an option's text: its annotation, or `numbers` for arrays."""
    args = get_args(field.type) if _is_union(field.type) else (field.type,)
    kinds = [arg for arg in args if arg is not type(None)]
    plain = (int, float, str)
    return kinds[0] if len(kinds) == 1 and kinds[0] in plain else numbers


def add_field(
    target: Any, cls: type, name: str, *, help: str | None = None, **options: Any
) -> None:
    """Adds the option of one field to a parser or a group.

    An option that is not given is None, so that `given` leaves it out.

    Args:
      help: None for what the docstring says.
      options: of `add_argument`, before what the field says.
    """
    field = fields_of(cls)[name]
    said = help_of(cls)[name] if help is None else help
    default = {"type": kind_of(field), "metavar": name[0].upper(), "help": said}
    target.add_argument(option_of(name), **default | options)


def given(args: argparse.Namespace, names: Mapping[str, Any] | list[str]) -> dict:
    """Name -> value of the options that were given."""
    return {n: v for n in names if (v := getattr(args, n)) is not None}


def is_changed(
    parser: argparse.ArgumentParser, args: argparse.Namespace, name: str
) -> bool:
    """Whether an option has another value than where it is left out; as `args` has it.

    One that was given with that value cannot be told from one left out.
    """
    return getattr(args, name) != parser.get_default(name)


def refuse_unread(
    parser: argparse.ArgumentParser,
    args: argparse.Namespace,
    names: Sequence[str],
    why: str,
) -> None:
    """Raises a ValueError for the first option that was given and that nothing reads.

    why: what follows its name in the error.
    """
    for name in names:
        if is_changed(parser, args, name):
            raise ValueError(f"--{name.replace('_', '-')} {why}")


def _as_option(said: str) -> str:
    """What is said of a value that may be None, for whom there is no None."""
    said = re.sub(r"\bNone or (\S+) for", r"\1 for", said)
    said = re.sub(r"\bNone for", "default:", said)
    return said.replace("%", "%%")


def _is_union(kind: Any) -> bool:
    return get_origin(kind) in (Union, types.UnionType)
