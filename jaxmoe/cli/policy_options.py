"""Options: which experts compute a token."""

import argparse
from pathlib import Path
from typing import get_args

import numpy as np

from jaxmoe.cli.fields import (
    add_field,
    fields_of,
    given,
    help_of,
    numbers,
    option_of,
)
from jaxmoe.router.ensemble import RouteEnsemble
from jaxmoe.router.modifiers import Biased, Gated, Uncertainty
from jaxmoe.router.policies import POLICIES, Policy

MODIFIED_BY = {
    "biased": "--expert-bias",
    "gated": "--gate-by --gate-threshold",
    "route-ensemble": "--ensemble",
}
"""Options of each of `MODIFIERS`, which change the policy of --policy."""


def _owners() -> dict[str, list[str]]:
    """Field -> the policies that have it."""
    owners: dict[str, list[str]] = {}
    for policy, cls in POLICIES.items():
        for name in fields_of(cls):
            owners.setdefault(name, []).append(policy)
    return owners


def add_policy_options(parser: argparse.ArgumentParser) -> None:
    """Adds --policy, and an option for each number that a policy has."""
    group = parser.add_argument_group(
        "experts", "A number, or one for each layer parted by commas."
    )
    default = next(iter(POLICIES))
    about = f"`jaxmoe list policies` says what each does (default: {default})"
    group.add_argument("--policy", choices=POLICIES, default=default, help=about)
    for name, policies in _owners().items():
        cls = POLICIES[policies[0]]
        said, value = help_of(cls)[name], fields_of(cls)[name].default
        said += "" if value is None else f"; default: {value:g}"
        said += "" if len(policies) == len(POLICIES) else f" ({', '.join(policies)})"
        add_field(group, cls, name, help=said)
    gate = group.add_argument
    gate(
        "--gate-by",
        choices=get_args(Uncertainty),
        help="noise only where the router is uncertain: its entropy is above, or its "
        "margin below, --gate-threshold",
    )
    gate("--gate-threshold", type=numbers, metavar="T", help="in nats, >= 0")
    gate(
        "--expert-bias",
        metavar="FILE",
        help="a .npy of [E] or [L, E] numbers that are added to what experts are "
        "ranked by; -inf bans an expert",
    )
    gate(
        "--ensemble",
        type=int,
        metavar="J",
        help="J routes a token, whose next-token probabilities are averaged (RoE); "
        "costs J + 1 passes a token",
    )


def policy_given(args: argparse.Namespace) -> list[str]:
    """The options that say another policy than where none is given."""
    named = [] if args.policy == next(iter(POLICIES)) else ["policy"]
    modifiers = ["gate_by", "gate_threshold", "expert_bias", "ensemble"]
    found = given(args, [*_owners(), *modifiers])
    return [option_of(name) for name in (*named, *found)]


def policy_of(args: argparse.Namespace) -> Policy:
    """The policy asked for; a ValueError for numbers that it does not have."""
    cls = POLICIES[args.policy]
    found, known = given(args, [*_owners()]), fields_of(cls)
    if unknown := [option_of(name) for name in found if name not in known]:
        raise ValueError(
            f"--policy {args.policy} has {', '.join(map(option_of, known))}, found "
            f"{', '.join(unknown)}; leave out what it does not have, or choose another "
            "policy"
        )
    return _modified(cls(**found), args)


def _modified(policy: Policy, args: argparse.Namespace) -> Policy:
    """The policy, biased, gated and several times as is asked for."""
    if (args.gate_by is None) != (args.gate_threshold is None):
        raise ValueError("--gate-by and --gate-threshold go together, found one")
    if args.expert_bias is not None:
        policy = Biased(policy, _array_in(args.expert_bias))
    if args.gate_by is not None:
        policy = Gated(policy, by=args.gate_by, threshold=args.gate_threshold)
    if args.ensemble is not None:
        policy = RouteEnsemble(policy, args.ensemble)
    return policy


def _array_in(path: str) -> np.ndarray:
    try:
        found = np.load(Path(path).expanduser(), allow_pickle=False)
        return np.asarray(found, np.float32)
    except (OSError, ValueError, TypeError, EOFError) as error:
        raise ValueError(
            f"--expert-bias must be a .npy file of numbers, as numpy.save writes it, "
            f"found {path}: {error}"
        ) from None
