"""Options: which experts compute a token."""

import argparse

from jaxmoe.cli.fields import add_field, fields_of, given, help_of, option_of
from jaxmoe.router.policies import POLICIES, Policy


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
    return cls(**found)
