"""What a call asks of the engine, and what it gets: requests, answers, progress."""

from collections import deque
from collections.abc import Callable, Sequence, Set
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import numpy as np

from jaxmoe.decode.sampler import TokenSampler
from jaxmoe.decode.trace import Record, TokenTrace, join
from jaxmoe.router.policies import Policy


@dataclass(frozen=True)
class Request:
    """What to draw: n samples of each prompt, in order.

    prompts: token ids of each prompt. prompt_keys: uint32 [P, 2], each prompt's key.
    samples: which sample indices of every prompt. stop_ids: tokens that end an answer.
    policy, sampler: resolved. max_new_tokens: most tokens of an answer.
    stop_length: token ids -> how many of them complete a stop string, or None.
    routes: int16 [P, n, T, L, K] to take instead of choosing, or None. skip: (prompt,
    sample index) of those that are not drawn; they change no shape, and so no bit of
    the others.
    """

    prompts: Sequence[np.ndarray]
    prompt_keys: np.ndarray
    samples: Sequence[int]
    policy: Policy
    sampler: TokenSampler
    max_new_tokens: int
    stop_ids: tuple[int, ...]
    stop_length: Callable[[Sequence[int]], int | None] | None = None
    record: Record = Record()
    noisy_prefill: bool = False
    routes: np.ndarray | None = None
    skip: Set[tuple[int, int]] = frozenset()

    def describe(self) -> dict[str, Any]:
        """In plain values, for processes to compare that draw together."""
        plain = {name: repr(getattr(self, name)) for name in ("policy", "sampler")}
        plain |= {"prompts": [list(map(int, prompt)) for prompt in self.prompts]}
        plain |= {"keys": self.prompt_keys.tolist(), "skip": sorted(self.skip)}
        routes = None if self.routes is None else crc32(self.routes.tobytes())
        rest = (self.max_new_tokens, self.stop_ids, repr(self.record))
        rest += (self.noisy_prefill,)
        return plain | {"rest": (list(map(int, self.samples)), routes, *rest)}

    def waiting(self) -> deque[tuple[int, int]]:
        """(prompt, place among `samples`) of every sample to draw, in order."""
        return deque(
            (prompt, place)
            for prompt in range(len(self.prompts))
            for place, sample in enumerate(self.samples)
            if (prompt, sample) not in self.skip
        )


@dataclass
class Answer:
    """One sample, as far as it has come; finished once `finish` is set.

    prompt: index of its prompt. sample: its sample index i. place: its row of the
    result. tokens: ids, the stop included. parts: what was recorded of them, as it came
    from the device. finish: "stop" or "length".
    """

    prompt: int
    sample: int
    place: int
    tokens: list[int] = field(default_factory=list)
    parts: list[TokenTrace] = field(default_factory=list)
    finish: str | None = None

    @property
    def trace(self) -> TokenTrace:
        """What was recorded of each token."""
        return join(self.parts, len(self.tokens))


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
