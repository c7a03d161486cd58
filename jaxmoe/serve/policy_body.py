"""A policy from a request."""

import dataclasses
from typing import Any

import numpy as np

from jaxmoe.router.modifiers import MODIFIERS
from jaxmoe.router.policies import POLICIES, Policy
from jaxmoe.serve.errors import RequestError
from jaxmoe.serve.request_body import PolicyBody

KNOWN: dict[str, type[Policy]] = POLICIES | MODIFIERS
DEEPEST = 4
"""Policies within each other; one gate and one bias are all that a slot holds."""


def read_policy_body(body: str | PolicyBody, deepest: int = DEEPEST) -> Policy:
    """The policy of the registry with the numbers given; a list is one a layer.

    Args:
      deepest: so many policies may be within each other.

    Raises:
      RequestError: a name or a number that there is not.
    """
    if isinstance(body, str):
        body = PolicyBody(type=body)
    name, cls = body.type, KNOWN.get(body.type)
    if cls is None:
        raise _refused(f"type must be one of {', '.join(KNOWN)}, found {name[:80]!r}")
    if not deepest:
        raise _refused(f"there may be {DEEPEST} within each other, found more")
    given = _given(body)
    fields = [f for f in dataclasses.fields(cls) if f.init]
    known = {f.name: f for f in fields if not f.metadata.get("derived")}
    for number in given:
        if number not in known:
            raise _refused(f"{name} has {', '.join(known)}, found {number[:80]!r}")
    for number, field in known.items():
        if field.default is dataclasses.MISSING and number not in given:
            raise _refused(f"{name} needs {number}, found none")
    if body.policy is not None:
        given["policy"] = read_policy_body(body.policy, deepest - 1)
    return cls(**given)


def _given(body: PolicyBody) -> dict[str, Any]:
    """Name -> value of all that was given."""
    own = {"by": body.by, "policy": body.policy, "bias": _bias(body.bias)}
    numbers = {k: _array(v) for k, v in (body.model_extra or {}).items()}
    return {k: v for k, v in (own | numbers).items() if v is not None}


def _bias(rows: Any) -> Any:
    """One number an expert, or such a list for each layer; null bans."""
    if rows is None:
        return None
    try:
        given = np.array(rows, np.float64)
    except (TypeError, ValueError):
        raise _refused("bias must have as many numbers in each layer") from None
    # What float32 cannot hold is no ban, and `Biased` refuses it.
    return np.where(np.isnan(given), -np.inf, np.maximum(given, -1e30))


def _array(value: Any) -> Any:
    return np.array(value, np.float32) if isinstance(value, list) else value


def _refused(what: str) -> RequestError:
    return RequestError(f"policy: {what}", param="policy", code="invalid_value")
