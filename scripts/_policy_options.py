"""Options that scripts share: which experts compute a token."""

import argparse
import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jaxmoe

POLICIES = {
    "expert-sample": "ExpertSample",
    "topk": "TopK",
    "gumbel-topk": "GumbelTopK",
    "adaptive-head": "AdaptiveHead",
}
POLICY_NUMBERS = {
    "k_keep": "best experts that are always taken (expert-sample; default: k // 2 + 1)",
    "r": "the rest is drawn from the r best (expert-sample, adaptive-head; default: "
    "4 k, or all experts if those are fewer)",
    "tau": "how noisy the choice is; 0 is topk (all but topk; default: 1)",
    "mass": "probability that the experts always taken reach (adaptive-head; "
    "default: 0.5)",
}


def _number(text: str) -> Any:
    """One number, or an array of several parted by commas."""
    values = [float(part) for part in text.split(",")]
    if len(values) == 1:
        return values[0]
    import numpy as np

    return np.array(values, np.float32)


def add_policy_options(parser: argparse.ArgumentParser) -> None:
    """Adds --policy and its numbers."""
    group = parser.add_argument_group(
        "experts", "A number, or one for each layer parted by commas."
    )
    policies = (
        "expert-sample keeps the best and draws the others; topk takes the best, as "
        "trained; gumbel-topk draws all; adaptive-head keeps more where the router is "
        "sure (default: expert-sample)"
    )
    add = group.add_argument
    add("--policy", choices=POLICIES, default="expert-sample", help=policies)
    add("--k", type=int, help="experts per token (default: the model's)")
    for name, text in POLICY_NUMBERS.items():
        option = "--" + name.replace("_", "-")
        add(option, type=_number, metavar=name[0].upper(), help=text)


def policy_of(args: argparse.Namespace) -> "jaxmoe.Policy":
    """The policy asked for; a ValueError for numbers that it does not have."""
    import jaxmoe

    kind = getattr(jaxmoe, POLICIES[args.policy])
    names = ("k", *POLICY_NUMBERS)
    given = {n: v for n in names if (v := getattr(args, n)) is not None}
    known = {field.name for field in dataclasses.fields(kind)}
    if unknown := [f"--{n.replace('_', '-')}" for n in given if n not in known]:
        have = ", ".join(f"--{n.replace('_', '-')}" for n in names if n in known)
        raise ValueError(
            f"--policy {args.policy} has {have}, found {', '.join(unknown)}; leave out "
            "what it does not have, or choose another policy"
        )
    return kind(**given)
