"""Options: how sure the model is of its answers, and what that ends."""

import argparse
from dataclasses import replace

from jaxmoe.cli.fields import fields_of, given, help_of, kind_of
from jaxmoe.evals.deep_conf import DeepConf

_PREFIX = "deep_conf_"


def add_deep_conf_options(parser: argparse.ArgumentParser) -> None:
    """Adds --deep-conf, and a number of `DeepConf` each."""
    group = parser.add_argument_group(
        "confidence",
        "DeepConf (arXiv 2508.15260): an answer is as sure as its least sure group of "
        "tokens; votes of the surest answers are among the measures.",
    )
    how = "offline: all answers are drawn whole; online: those after a warm-up end "
    how += "where they fall below a share of it, and have no vote then"
    group.add_argument("--deep-conf", choices=("offline", "online"), help=how)
    said = help_of(DeepConf)
    for name, field in fields_of(DeepConf).items():
        group.add_argument(
            "--" + (_PREFIX + name).replace("_", "-"),
            type=kind_of(field),
            metavar=name[0].upper(),
            help=f"{said[name]} (default: {field.default})",
        )


def deep_conf_of(args: argparse.Namespace) -> DeepConf | None:
    """What was asked for; None where nothing was.

    Raises:
      ValueError: numbers that mean nothing without it, or no answers after the warm-up.
    """
    found = given(args, [_PREFIX + name for name in fields_of(DeepConf)])
    numbers = {name.removeprefix(_PREFIX): value for name, value in found.items()}
    online = args.deep_conf == "online"
    unread = set(numbers) - ({"group", "top"} if args.deep_conf == "offline" else set())
    if not online and unread:
        first = (_PREFIX + min(unread)).replace("_", "-")
        found = f"--deep-conf {args.deep_conf}" if args.deep_conf else "no --deep-conf"
        raise ValueError(f"--{first} needs --deep-conf online, found {found}")
    if args.deep_conf is None:
        return None
    rule = DeepConf(**numbers)
    if not online:
        return replace(rule, warm_up=args.n)
    if args.n <= rule.warm_up:
        raise ValueError(
            f"--n must be more than the {rule.warm_up} answers of the warm-up, found "
            f"{args.n}; draw more, or pass --deep-conf-warm-up"
        )
    return rule
