"""A rule of one's own that ends answers while they are drawn."""

from collections.abc import Callable
from dataclasses import dataclass, field

import jax
import numpy as np

from jaxmoe.decode.trace import TokenTrace


@dataclass(frozen=True)
class SoFar:
    """An answer under way, after one of its tokens.

    prompt: which of several prompts. sample: its sample index. length: T, its tokens so
    far. What was not asked for is None.
    """

    prompt: int
    sample: int
    length: int
    _trace: TokenTrace = field(repr=False)

    def _first(self, array: np.ndarray | None) -> np.ndarray | None:
        return None if array is None else array[: self.length]

    @property
    def tokens(self) -> np.ndarray:
        """int32 [T]."""
        return self._trace.token[: self.length]

    @property
    def logprobs(self) -> np.ndarray:
        """float32 [T], under the model's own distribution."""
        return self._trace.logprob[: self.length]

    @property
    def certainties(self) -> np.ndarray | None:
        """float32 [T], self-certainty."""
        return self._first(self._trace.certainty)

    @property
    def top_ids(self) -> np.ndarray | None:
        """int32 [T, Q], the most likely tokens."""
        return self._first(self._trace.top_ids)

    @property
    def top_logprobs(self) -> np.ndarray | None:
        """float32 [T, Q], their log-probabilities."""
        return self._first(self._trace.top_logprobs)

    @property
    def routes(self) -> np.ndarray | None:
        """int16 [T, L, K], the experts."""
        return self._first(self._trace.routes)


StopRule = Callable[[SoFar], bool]
"""Says whether an answer ends with its last token so far."""


class Watcher:
    """Asks a rule about each token of one answer, in order, however they come.

    So where an answer ends depends on the answer alone, as long as the rule does, and
    not on how many tokens the device draws between two looks.
    """

    def __init__(self, rule: StopRule, prompt: int, sample: int):
        """See `SoFar`."""
        self._rule, self._prompt, self._sample = rule, prompt, sample
        self._trace: TokenTrace | None = None  # with room for more tokens
        self._length = 0

    def push(self, part: TokenTrace) -> int | None:
        """Takes new tokens; says after how many of all the answer ends, or None."""
        before, self._length = self._length, self._length + len(part.token)
        trace = self._trace = _written(self._trace, part, before)
        for length in range(before + 1, self._length + 1):
            if self._rule(SoFar(self._prompt, self._sample, length, trace)):
                return length
        return None


def _written(into: TokenTrace | None, part: TokenTrace, start: int) -> TokenTrace:
    """`into` with tokens written at `start`; twice as long each time it is full.

    So an answer of T tokens costs O(T), and not O(T^2), to look at.
    """
    end = start + len(part.token)
    if into is None or len(into.token) < end:
        more = lambda new: np.empty((2 * end, *new.shape[1:]), new.dtype)  # noqa: E731
        room: TokenTrace = jax.tree.map(more, part)
        into = room if into is None else _written(room, _first(into, start), 0)

    def write(row: np.ndarray, new: np.ndarray) -> None:
        row[start:end] = new

    jax.tree.map(write, into, part)
    return into


def _first(trace: TokenTrace, length: int) -> TokenTrace:
    return jax.tree.map(lambda array: array[:length], trace)
