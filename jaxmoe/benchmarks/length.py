"""Length: a step must feel what is filled, and not what is allocated."""

from collections.abc import Iterator
from functools import partial

from jaxmoe.benchmarks import begun, targets
from jaxmoe.benchmarks.report import Row
from jaxmoe.benchmarks.subject import Subject
from jaxmoe.benchmarks.timing import Side, take_turns
from jaxmoe.decode import cache
from jaxmoe.router.policies import TopK

ROOMS = (128, 1024, 8192)
FILLED = (64, 512, 2048, 8000)


def measure(
    subject: Subject, *, n: int, prompt: int, steps: int, rounds: int
) -> Iterator[Row]:
    """Rows for each allocation, little filled, and for each filling of the largest."""
    for room, filled in ((ROOMS[0], FILLED[0]), (ROOMS[-1], FILLED[-1])):
        if filled + steps > room:
            raise ValueError(
                f"steps must fit beside {filled} filled positions in {room}: at most "
                f"{room - filled}, found {steps}"
            )
    prefix = begun.load(subject, [subject.prompt(prompt)])
    samples = {
        room: begun.scribbled(
            begun.begin(subject, prefix, n=n, room=room, policy=TopK())
        )
        for room in ROOMS
    }
    yield from _allocated(samples, steps, rounds)
    yield from _filled(samples[ROOMS[-1]], steps, rounds)


def _run(samples: begun.Begun, steps: int, filled: int) -> Side:
    return Side(partial(samples.run, steps, slots=samples.at(filled)))


def _allocated(
    samples: dict[int, begun.Begun], steps: int, rounds: int
) -> Iterator[Row]:
    filled, base = FILLED[0], ROOMS[0]
    row = partial(samples[base].subject.place.row, "length")
    sides = {str(room): _run(samples[room], steps, filled) for room in ROOMS}
    found = take_turns(sides, rounds)
    for room in ROOMS:
        ms = found[str(room)].times(1e3 / steps)
        yield row(f"filled {filled}, room for {room}", ms.median, "ms a step", ms=ms)
    for room in ROOMS[1:]:
        ratio = found[str(room)].over(found[str(base)])
        named = targets.allocation(filled, room, base)
        yield row(named, ratio.median, "x", ratio=ratio)


def _filled(samples: begun.Begun, steps: int, rounds: int) -> Iterator[Row]:
    row = partial(samples.subject.place.row, "length")
    found = take_turns({str(f): _run(samples, steps, f) for f in FILLED}, rounds)
    moved = {f: _bytes(samples, steps, f) for f in FILLED}
    for filled in FILLED:
        ms = found[str(filled)].times(1e3 / steps)
        ratio = found[str(filled)].over(found[str(FILLED[0])])
        what = f"room for {cache.room(samples.suffix)}, filled {filled}"
        megabytes = moved[filled] / 1e6
        detail = {"ms": ms, "ratio_to_shortest": ratio, "MB": megabytes}
        yield row(what, ms.median, "ms a step", **detail)
    first, last = FILLED[0], FILLED[-1]
    longer = found[str(last)].over(found[str(first)])
    ratio = longer.times(moved[first] / moved[last])
    what = targets.time_over_bytes(last, first)
    yield row(what, ratio.median, "x", ratio=ratio)


def _bytes(samples: begun.Begun, steps: int, filled: int) -> float:
    """The bytes that an average step has to move."""
    routes = samples.routes(steps, samples.at(filled))
    return begun.least_work(samples, routes, filled + (steps - 1) / 2).bytes
