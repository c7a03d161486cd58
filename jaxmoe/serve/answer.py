"""One answer while it grows: its text, cut where it ends, and its tokens."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxmoe.decode.request import Delta
from jaxmoe.text.stop import find_stop, partial_stop
from jaxmoe.text.stream import TextStream


class AnswerText:
    """Text of an answer, piece by piece; what may be the start of a stop waits.

    The pieces joined are the text that `jaxmoe.sample` gives of the same tokens.
    """

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        *,
        stops: tuple[str, ...],
        stop_ids: tuple[int, ...],
        keep_stop: bool = False,
    ):
        """Begin with nothing; keep_stop: whether the stop is part of the text."""
        self._stream = TextStream(decode)
        self._stops, self._stop_ids, self._keep = stops, stop_ids, keep_stop
        self._held = ""

    def push(self, ids: list[int], finish: str | None) -> str:
        """Take new tokens, and how the answer ended if it did; the text they let go.

        finish: as of `Delta`.
        """
        last = ids
        # Where a stop string ended the answer, the cut below says where text ends.
        ended_by_id = finish == "stop" and ids and ids[-1] in self._stop_ids
        if ended_by_id and not self._keep:
            last = ids[:-1]
        self._held += self._stream.push(last)
        if finish is None:
            return self._let_go(len(self._held) - partial_stop(self._held, self._stops))
        self._held += self._stream.close()
        return self._let_go(self._end())

    def _end(self) -> int:
        """Characters of what is held that belong to the text."""
        cut = find_stop(self._held, self._stops) if self._stops else None
        if cut is None:
            return len(self._held)
        if not self._keep:
            return cut
        rest = self._held[cut:]
        return cut + min(len(stop) for stop in self._stops if rest.startswith(stop))

    def _let_go(self, count: int) -> str:
        piece, self._held = self._held[:count], self._held[count:]
        return piece


@dataclass(frozen=True)
class Piece:
    """What one delta adds to an answer.

    text: new text. tokens, logprobs, top_ids, top_logprobs: of the new tokens. finish:
    None, "stop" or "length".
    """

    text: str
    tokens: list[int]
    logprobs: np.ndarray
    top_ids: np.ndarray | None
    top_logprobs: np.ndarray | None
    finish: str | None


class Answer:
    """One choice of a reply.

    index: among the choices. prompt: which one. sample: its sample index. pieces: what
    has come; kept where the reply is sent in one.
    """

    def __init__(self, index: int, prompt: int, sample: int, text: AnswerText | None):
        """Begin with nothing; text: None where there is no tokenizer."""
        self.index, self.prompt, self.sample = index, prompt, sample
        self.length = 0
        self.finish: str | None = None
        self._text = text
        self._routes: list[np.ndarray] = []

    def take(self, delta: Delta, *, routes: bool) -> Piece:
        """Adds a delta; routes: whether to keep its experts."""
        trace, ids = delta.trace, delta.tokens.tolist()
        self.length, self.finish = delta.length, delta.finish
        if routes:
            self._routes.append(trace.routes)
        text = "" if self._text is None else self._text.push(ids, delta.finish)
        return Piece(
            text,
            ids,
            trace.logprob,
            trace.top_ids,
            trace.top_logprobs,
            delta.finish,
        )

    @property
    def routes(self) -> Any:
        """Experts of all its tokens, int16 [T, L, K]."""
        return np.concatenate(self._routes)[: self.length]


def joined(pieces: list[Piece]) -> Piece:
    """Several pieces of one answer as one."""
    if len(pieces) == 1:
        return pieces[0]
    whole = lambda arrays: None if arrays[0] is None else np.concatenate(arrays)  # noqa: E731
    return Piece(
        "".join(piece.text for piece in pieces),
        [token for piece in pieces for token in piece.tokens],
        np.concatenate([piece.logprobs for piece in pieces]),
        whole([piece.top_ids for piece in pieces]),
        whole([piece.top_logprobs for piece in pieces]),
        pieces[-1].finish,
    )
