"""A policy from a request."""

import dataclasses
from typing import Any

import numpy as np

from jaxmoe.router.policies import POLICIES, Policy
from jaxmoe.serve.errors import RequestError
from jaxmoe.serve.request_body import PolicyBody


def read_policy_body(body: str | PolicyBody) -> Policy:
    """The policy of the registry with the numbers given; a list is one a layer.

    Raises:
      RequestError: a name or a number that there is not.
    """
    if isinstance(body, str):
        body = PolicyBody(type=body)
    name, numbers = body.type, body.model_extra or {}
    cls = POLICIES.get(name)
    if cls is None:
        raise RequestError(
            f"policy: type must be one of {', '.join(POLICIES)}, found {name[:80]!r}",
            param="policy",
            code="invalid_value",
        )
    found = dataclasses.fields(cls)
    known = [f.name for f in found if f.init and not f.metadata.get("derived")]
    unknown = [number for number in numbers if number not in known]
    if unknown:
        raise RequestError(
            f"policy: {name} has {', '.join(known)}, found {unknown[0][:80]!r}",
            param="policy",
            code="invalid_value",
        )
    given = {k: _array(v) for k, v in numbers.items() if v is not None}
    return cls(**given)


def _array(value: Any) -> Any:
    return np.array(value, np.float32) if isinstance(value, list) else value
