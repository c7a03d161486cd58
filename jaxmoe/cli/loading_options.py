"""Options: how a checkpoint is loaded, the same for every command that loads one."""

import argparse
import os
from typing import Any

import jaxmoe
from convert.__main__ import add_changes, read_override
from jaxmoe.checkpoints.source import Source, open_source


def add_loading_options(parser: argparse.ArgumentParser) -> None:
    """Adds --override, --ignore, --no-verify and --weights."""
    group = parser.add_argument_group("loading")
    add_changes(group)
    verify = "take a converted checkpoint as it is, without comparing checksums"
    group.add_argument("--no-verify", action="store_true", help=verify)
    weights = (
        "quantise experts, projections and head while loading (default: as stored)"
    )
    group.add_argument("--weights", choices=("int8",), help=weights)


def loading_of(args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `jaxmoe.load` that the options stand for."""
    return {**_opening_of(args), "weights": args.weights}


def _opening_of(args: argparse.Namespace) -> dict[str, Any]:
    return {
        "overrides": dict(map(read_override, args.override)),
        "ignore": tuple(args.ignore),
        "verify": not args.no_verify,
    }


def load(args: argparse.Namespace, path: str | os.PathLike) -> jaxmoe.Model:
    """The checkpoint at `path`, on one device."""
    return jaxmoe.load(path, **loading_of(args))


def opened(args: argparse.Namespace, path: str | os.PathLike) -> Source:
    """The checkpoint at `path`, its config read and checked."""
    return open_source(path, **_opening_of(args))


def digest_of(args: argparse.Namespace, path: str | os.PathLike) -> str:
    """The digest of the weights at `path`."""
    return opened(args, path).digest()
