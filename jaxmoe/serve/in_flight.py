"""A request under way: its answers, and what has come of them."""

import asyncio
import time
from collections.abc import AsyncIterator

import numpy as np

from jaxmoe.decode.request import Delta
from jaxmoe.serve.answer import Answer, AnswerText, Piece, joined
from jaxmoe.serve.driver import Driver, Handle
from jaxmoe.serve.errors import RequestError, server_error
from jaxmoe.serve.metrics import Metrics
from jaxmoe.serve.request_reader import Asked
from jaxmoe.text.tokenizer import Tokenizer

Batch = list[tuple[Answer, Piece]]


class Work:
    """Puts the deltas of a request's answers together, for who reads at leisure.

    The engine never waits for a reader: what has come is kept until it is read, at most
    the answers themselves.

    Attributes:
      asked: what. began: when the request came. status: that logs and metrics have of
        its stream, which an error may end after a 200.
    """

    def __init__(
        self,
        asked: Asked,
        tokenizer: Tokenizer | None,
        metrics: Metrics,
        began: float,
    ):
        """Begin with empty answers; began: when the request came."""
        self.asked, self.began = asked, began
        self.status = 200
        self._metrics = metrics
        self.first_token, self.tokens = 0.0, 0
        self._first_times: dict[int, float] = {}
        self._handles: list[Handle] = []
        self._driver: Driver | None = None
        self._come: list[tuple[Answer, Delta]] = []
        self._error: BaseException | None = None
        self._news = asyncio.Event()
        self.answers = [
            Answer(
                index=j * asked.n + i,
                prompt=j,
                sample=asked.first + i,
                text=None
                if tokenizer is None
                else AnswerText(
                    tokenizer.decode,
                    stops=asked.stops,
                    stop_ids=asked.stop_ids,
                    include_stop=asked.include_stop,
                    skip=asked.min_tokens,
                ),
            )
            for j in range(len(asked.prompts))
            for i in range(asked.n)
        ]
        self._left = asked.answers

    def start(self, driver: Driver) -> None:
        """Hands the requests in."""
        self._driver = driver
        for j, request in enumerate(self.asked.requests):
            take = lambda what, j=j: self._take(j, what)  # noqa: E731
            self._handles.append(driver.submit(request, take))

    def cancel(self) -> None:
        """Frees what is still under way; harmless at the end."""
        if self._driver is not None and self._left:
            for handle in self._handles:
                self._driver.cancel(handle)

    def fail(self, error: RequestError) -> None:
        """Ends the reply with an error, after what has come."""
        self._error = error
        self._news.set()
        self.cancel()

    async def batches(self) -> AsyncIterator[Batch]:
        """What has come since the last look, one piece an answer.

        Raises:
          RequestError: the engine failed, or the server stops.
        """
        left = self.asked.answers
        if not self.asked.requests:
            yield [(answer, _nothing()) for answer in self.answers]
        while left:
            await self._news.wait()
            self._news.clear()
            come, self._come = self._come, []
            pieces: dict[int, list[Piece]] = {}
            for answer, delta in come:
                piece = answer.take(delta, routes=self.asked.routes)
                pieces.setdefault(answer.index, []).append(piece)
                left -= delta.finish is not None
            if pieces:
                yield [(self.answers[i], joined(some)) for i, some in pieces.items()]
            if left and self._error is not None:
                raise self._error

    def _take(self, prompt: int, what: list[Delta] | BaseException) -> None:
        """Called on the event loop, for each segment."""
        if isinstance(what, BaseException):
            self._error = self._error or server_error(
                "the engine failed, and this request with it; the server's log says "
                "why",
                code="engine_failed",
            )
        else:
            first = prompt * self.asked.n - self.asked.first
            come = [(self.answers[first + delta.sample], delta) for delta in what]
            self._come += come
            new = sum(len(delta.tokens) for delta in what)
            self.tokens += new
            self._metrics.tokens.inc(new)
            now = time.perf_counter()
            for answer, delta in come:
                self._measure(answer, delta, now)
        self._news.set()

    def _measure(self, answer: Answer, delta: Delta, now: float) -> None:
        if answer.index not in self._first_times:
            self._first_times[answer.index] = now
            self._metrics.first_token.observe(now - self.began)
            self.first_token = self.first_token or now - self.began
        if delta.finish is not None:
            self._left -= 1
            self._metrics.answers.labels(delta.finish).inc()
            if delta.length > 1:
                seconds = now - self._first_times.pop(answer.index)
                self._metrics.per_token.observe(seconds / (delta.length - 1))


def _nothing() -> Piece:
    """Of an answer of no tokens."""
    none = np.zeros(0, np.float32)
    return Piece("", [], none, None, None, "length")
