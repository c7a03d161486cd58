"""Timing: sides that take turns, and what their seconds come to.

A machine slows down and speeds up while it measures. Sides that take turns are slowed
down together, so the ratio is taken round by round, and the median of those counts.
"""

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Side:
    """work: timed until all of what it returns is computed. prepare: goes before."""

    work: Callable[[], Any]
    prepare: Callable[[], Any] = _nothing


@dataclass(frozen=True)
class Spread:
    """One number a round: seconds, or a ratio."""

    values: tuple[float, ...]

    @property
    def median(self) -> float:
        """The number that counts."""
        return statistics.median(self.values)

    @property
    def least(self) -> float:
        """The smallest of all rounds."""
        return min(self.values)

    @property
    def most(self) -> float:
        """The largest of all rounds."""
        return max(self.values)

    @property
    def quartiles(self) -> tuple[float, float]:
        """Where the middle half of the rounds begins and ends."""
        if len(self.values) == 1:
            return self.values[0], self.values[0]
        cuts = statistics.quantiles(self.values, n=4, method="inclusive")
        return cuts[0], cuts[2]

    @property
    def width(self) -> float | None:
        """The middle half of the rounds over their median; None of a single round."""
        if len(self.values) == 1 or self.median == 0:
            return None
        first, last = self.quartiles
        return (last - first) / abs(self.median)

    def times(self, factor: float) -> "Spread":
        """Every round's number times `factor`."""
        return Spread(tuple(value * factor for value in self.values))

    def into(self, amount: float) -> "Spread":
        """`amount` over every round's number: a rate, from seconds."""
        return Spread(tuple(amount / value for value in self.values))

    def over(self, other: "Spread") -> "Spread":
        """Ratios round by round, of sides that took turns."""
        pairs = zip(self.values, other.values, strict=True)
        return Spread(tuple(a / b for a, b in pairs))


def seconds(side: Side) -> float:
    """One run of one side."""
    jax.block_until_ready(side.prepare())
    begin = time.perf_counter()
    jax.block_until_ready(side.work())
    return time.perf_counter() - begin


def take_turns(
    sides: Mapping[str, Side], rounds: int, *, warmup: int = 1, pause: float = 0.0
) -> dict[str, Spread]:
    """Seconds of each side, `rounds` times in turn after `warmup` that do not count.

    pause: seconds before each run, for the threads of the other side to fall asleep.
    """
    found: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(warmup + rounds):
        for name, side in sides.items():
            time.sleep(pause)
            measured = seconds(side)
            if turn >= warmup:
                found[name].append(measured)
    return {name: Spread(tuple(values)) for name, values in found.items()}
