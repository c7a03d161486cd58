"""One answer while it grows: its text, cut where it ends, and its tokens."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxmoe.decode.request import Delta
from jaxmoe.text.stop import partial_stop, stop_span, text_length
from jaxmoe.text.stream import TextStream


class AnswerText:
    """Text of an answer, piece by piece; what may be the start of a stop waits.

    The pieces joined are the text that `jaxmoe.sample` gives of the same tokens.
    """

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        *,
        stops: tuple[str, ...] = (),
        stop_ids: tuple[int, ...] = (),
        include_stop: bool = False,
        skip: int = 0,
    ):
        """Begin with nothing.

        Args:
          stops, stop_ids: strings and tokens that end the answer.
          include_stop: whether what ended it is part of its text.
          skip: strings that end within the text of so many first tokens are none.
        """
        self._decode, self._stream = decode, TextStream(decode)
        self._stops, self._stop_ids = stops, stop_ids
        self._include, self._skip = include_stop, skip
        self._first: list[int] = []
        self._held, self._given = "", 0

    def push(self, ids: list[int], finish: str | None) -> str:
        """Take new tokens, and how the answer ended if it did; the text they let go.

        finish: as of `Delta`.
        """
        self._first += ids[: self._skip - len(self._first)]
        if finish is None:
            self._held += self._stream.push(ids)
            waits = partial_stop(self._held, self._stops) if self._stops else 0
            return self._let_go(len(self._held) - waits)
        # A stop token has no part in the text, where no string ended it before.
        last = finish == "stop" and ids and ids[-1] in self._stop_ids
        by_token = last and not self._include
        if not self._stops:
            seen = ids[:-1] if by_token else ids
            return self._held + self._stream.push(seen) + self._stream.close()
        self._held += self._stream.push(ids[:-1])
        without = self._held + self._stream.copy().close()
        self._held += self._stream.push(ids[-1:]) + self._stream.close()
        span = self._stop()
        if span is not None:
            return self._let_go(span[self._include])
        return without if by_token else self._held

    def _stop(self) -> tuple[int, int] | None:
        """Where the stop begins and ends in what is held."""
        after = text_length(self._decode, self._first) - self._given
        return stop_span(self._held, self._stops, max(after, 0))

    def _let_go(self, count: int) -> str:
        piece, self._held = self._held[:count], self._held[count:]
        self._given += len(piece)
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
