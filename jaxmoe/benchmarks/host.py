"""The host between segments: how long the device waits for it."""

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, NamedTuple
from unittest import mock

import jax

from jaxmoe.benchmarks import targets
from jaxmoe.benchmarks.report import Row
from jaxmoe.benchmarks.subject import SAMPLER, Subject
from jaxmoe.benchmarks.timing import Spread
from jaxmoe.decode import engine
from jaxmoe.decode.trace import SEGMENT
from jaxmoe.model import Model
from jaxmoe.router.policies import ExpertSample
from jaxmoe.sampling import stream

SEGMENTS = 4
"""Of each run; between them lie one fewer gaps."""


class _Segment(NamedTuple):
    """Seconds on one clock: when the host had dispatched it, and when it was done."""

    dispatched: float
    done: float


def measure(subject: Subject, *, slots: int, prompt: int, rounds: int) -> Iterator[Row]:
    """A row: from the end of a segment until the next was dispatched, over a step.

    All slots go on throughout, so that nothing else runs on the device meanwhile.
    """
    _run(subject, slots, prompt)
    gaps, steps = [], []
    for _ in range(rounds):
        with _watched() as segments:
            _run(subject, slots, prompt)
        found = [segment.result() for segment in segments]
        gaps += [max(0.0, b.dispatched - a.done) for a, b in pairwise(found)]
        # One that was dispatched early begins when the one before it ends.
        begins = [max(b.dispatched, a.done) for a, b in pairwise(found)]
        steps += [
            (segment.done - begin) / SEGMENT
            for segment, begin in zip(found[1:], begins, strict=True)
        ]
    shares = Spread(tuple(gaps)).over(Spread(tuple(steps))).times(100)
    yield subject.place.row(
        "slots",
        targets.host_share(slots),
        shares.median,
        "%",
        share=shares,
        gap_ms=Spread(tuple(gaps)).times(1e3),
        step_ms=Spread(tuple(steps)).times(1e3),
        segment=SEGMENT,
    )


def _run(subject: Subject, slots: int, prompt: int) -> None:
    answers = stream(
        Model(subject.config, subject.params),
        subject.prompt(prompt),
        key=jax.random.key(0),
        n=slots,
        slots=slots,
        policy=ExpertSample(),
        sampler=SAMPLER,
        stop_ids=(),
        max_new_tokens=1 + SEGMENTS * SEGMENT,
    )
    for _ in answers:
        pass


@contextmanager
def _watched() -> Iterator[list[Future[_Segment]]]:
    """The engine's segments while this lasts."""
    segments: list[Future[_Segment]] = []
    original = engine.decode_segment

    def watch(*args: Any, **options: Any) -> Any:
        running, drawn = original(*args, **options)
        dispatched = time.perf_counter()
        segments.append(pool.submit(_wait, dispatched, drawn.count))
        return running, drawn

    with (
        ThreadPoolExecutor(1) as pool,
        mock.patch.object(engine, "decode_segment", watch),
    ):
        yield segments


def _wait(dispatched: float, result: jax.Array) -> _Segment:
    jax.block_until_ready(result)
    return _Segment(dispatched, time.perf_counter())
