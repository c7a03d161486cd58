"""How answers are drawn, and that in plain values, which tell runs apart."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import jax
import numpy as np

from jaxmoe.decode.sampler import TokenSampler
from jaxmoe.evals.deep_conf import DeepConf
from jaxmoe.execution import default_platform
from jaxmoe.router.policies import Policy
from jaxmoe.typing import Array, Key

KIND = "kind"
"""Entry of an object's fields: its class."""


@dataclass(frozen=True)
class Draw:
    """How answers are drawn: n of each prompt; see `jaxmoe.sample`.

    policy: of all answers; a tuple has one for each of the n.
    deep_conf: how sure the model is of each answer is recorded; of more answers than
    its warm-up, those of which it is not are ended early. None: neither.
    """

    policy: Policy | tuple[Policy, ...]
    sampler: TokenSampler
    n: int
    max_new_tokens: int
    seed: int = 0
    slots: int | None = None
    noisy_prefill: bool = False
    deep_conf: DeepConf | None = None

    @property
    def key(self) -> Key[Array, ""]:
        """The key of the whole run; prompt j uses `fold_in(key, j)`."""
        return jax.random.key(self.seed, impl="threefry2x32")

    @property
    def policies(self) -> tuple[Policy, ...]:
        """The policy, or those of the answers."""
        return self.policy if isinstance(self.policy, tuple) else (self.policy,)

    def describe(self) -> dict[str, Any]:
        """All that decides the answers, as JSON has it."""
        rule = self.deep_conf
        return {
            "deep_conf": None if rule is None else as_fields(rule),
            "policy": as_fields(self.policy),
            "sampler": as_fields(self.sampler),
            "n": self.n,
            "max_new_tokens": self.max_new_tokens,
            "seed": self.seed,
            "slots": self.slots,
            "noisy_prefill": self.noisy_prefill,
            "platform": default_platform(),
        }


def as_fields(value: Any) -> Any:
    """A policy or sampler as JSON has it: its class and its fields, no digit lost.

    Of a tuple a list.

    >>> as_fields(ExpertSample(k_keep=5))
    {"kind": "ExpertSample", "k_keep": 5, "r": None, "tau": 1.0, "k": None}
    """
    if isinstance(value, tuple):
        return [as_fields(one) for one in value]
    if not is_dataclass(value):
        return repr(value)
    given = [item for item in fields(value) if not item.metadata.get("derived")]
    own = {
        item.name: (_digest if item.metadata.get("digest") else _plain)(
            getattr(value, item.name)
        )
        for item in given
    }
    return {KIND: type(value).__name__, **own}


def in_words(described: Any) -> str:
    """What `as_fields` gave, as text; texts, of earlier versions' runs, as they are.

    >>> in_words({"kind": "ExpertSample", "k_keep": 5, "r": None, "tau": 1.0})
    "ExpertSample(k_keep=5, tau=1.0)"
    """
    if isinstance(described, list) and described and isinstance(described[0], Mapping):
        return ", ".join(map(in_words, described))
    if not isinstance(described, Mapping) or KIND not in described:
        return str(described)
    given = (
        f"{k}={in_words(v)}"
        for k, v in described.items()
        if k != KIND and v is not None
    )
    return f"{described[KIND]}({', '.join(given)})"


def _digest(value: Any) -> dict[str, Any]:
    """What tells an array from others: JSON has no room for it, and no -inf."""
    array = np.ascontiguousarray(value, "<f4")
    digest = hashlib.sha256(array.tobytes()).hexdigest()
    return {"shape": list(array.shape), "sha256": digest}


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if is_dataclass(value):
        return as_fields(value)
    try:
        return np.asarray(value).tolist()
    except (TypeError, ValueError):
        return repr(value)
