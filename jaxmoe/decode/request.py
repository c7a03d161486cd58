"""What is asked of the engine, and what comes of it."""

import itertools
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, replace
from typing import Any
from zlib import crc32

import numpy as np

from jaxmoe.decode.sampler import TokenSampler
from jaxmoe.decode.stop_rule import StopRule
from jaxmoe.decode.trace import TokenTrace
from jaxmoe.router.policies import Policy
from jaxmoe.text.grammar import Grammar


@dataclass(frozen=True)
class Request:
    """Samples of one prompt, checked and resolved.

    prompt: token ids, int32 [T]. key_data: uint32 [2], the prompt's key. samples: the n
    sample indices to draw. policies: of each of them, resolved. sampler: resolved.
    max_new_tokens: the most tokens of an answer. stop_ids: tokens that end one.
    end_ids: those, and the model's own; banned from the first `min_tokens`.
    stops: strings that end one. decode: token ids to text, where there are such.
    stop_when: a rule that ends one, and number: the prompt's, which the rule is told.
    grammar: that answers follow. noisy_prefill: whether the prompt is routed with each
    sample's key.
    routes: int16 [n, T, L, K] to take instead of choosing, or None.
    tops: whether the most likely tokens are needed, where the engine records them.
    """

    prompt: np.ndarray
    key_data: np.ndarray
    samples: tuple[int, ...]
    policies: tuple[Policy, ...]
    sampler: TokenSampler
    max_new_tokens: int
    stop_ids: tuple[int, ...]
    end_ids: tuple[int, ...] = ()
    stops: tuple[str, ...] = ()
    decode: Callable[[Sequence[int]], str] | None = None
    stop_when: StopRule | None = None
    number: int = 0
    grammar: Grammar | None = None
    noisy_prefill: bool = False
    routes: np.ndarray | None = None
    tops: bool = True

    @property
    def min_tokens(self) -> int:
        """The fewest tokens of an answer that ends of itself."""
        return getattr(self.sampler, "min_tokens", None) or 0

    @property
    def repeatable(self) -> np.ndarray | None:
        """The prompt where the sampler penalises what it has; else None."""
        penalty = getattr(self.sampler, "repetition_penalty", None)
        return None if penalty is None else self.prompt

    def without(self, samples: Set[int]) -> "Request":
        """The same but for some of its samples."""
        kept = [j for j, index in enumerate(self.samples) if index not in samples]
        return replace(
            self,
            samples=tuple(self.samples[j] for j in kept),
            policies=tuple(self.policies[j] for j in kept),
            routes=None if self.routes is None else self.routes[kept],
        )

    def describe(self) -> dict[str, Any]:
        """In plain values, for processes to compare that draw together."""
        routes = None if self.routes is None else crc32(self.routes.tobytes())
        return {
            "prompt": self.prompt.tolist(),
            "key": self.key_data.tolist(),
            "samples": list(map(int, self.samples)),
            "policies": [f"{n} x {policy!r}" for policy, n in _runs(self.policies)],
            "sampler": repr(self.sampler),
            "stops": (self.stops, self.stop_ids, self.end_ids),
            # A rule cannot be compared; that all have one can.
            "rule": self.stop_when is not None,
            "rest": (self.max_new_tokens, self.noisy_prefill, routes),
        }


def _runs(policies: tuple[Policy, ...]) -> list[tuple[Policy, int]]:
    """Each policy with how often it comes in a row."""
    rows = [list(row) for _, row in itertools.groupby(policies, key=id)]
    return [(row[0], len(row)) for row in rows]


@dataclass(frozen=True, eq=False)
class Ticket:
    """A request that an engine has taken; samples: its sample indices."""

    samples: tuple[int, ...]


@dataclass(frozen=True)
class Delta:
    """New tokens of one answer.

    ticket: the request. sample: the answer's sample index. trace: the new tokens and
    what was recorded of each, arrays [M, ...]; M may be 0 where a stop string ended the
    answer within what was given before. length: tokens of the answer so far, of those
    given before only so many count. finish: None while it goes on, then "stop",
    "length", or "stop_when" where a rule of one's own ended it.
    """

    ticket: Ticket
    sample: int
    trace: TokenTrace
    length: int
    finish: str | None = None

    @property
    def tokens(self) -> np.ndarray:
        """int32 [M]."""
        return self.trace.token

    @property
    def logprobs(self) -> np.ndarray:
        """float32 [M], under the model's own distribution."""
        return self.trace.logprob


@dataclass(frozen=True)
class Answer:
    """A finished answer: of which of several prompts, and all its tokens."""

    prompt: int
    sample: int
    trace: TokenTrace
    finish: str

    @property
    def tokens(self) -> np.ndarray:
        """int32 [T], the stop included."""
        return self.trace.token


@dataclass(frozen=True)
class Progress:
    """How far a call has come.

    tokens: drawn so far. seconds: since the call began. steps: passes over all slots.
    """

    finished: int
    total: int
    tokens: int
    seconds: float
    steps: int = 0

    @property
    def tokens_per_second(self) -> float:
        """Mean rate since the call began, compilation included."""
        return self.tokens / self.seconds if self.seconds else 0.0
