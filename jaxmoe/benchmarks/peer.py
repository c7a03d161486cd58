"""Another implementation to stand beside ours; who measures it provides one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from jaxmoe.benchmarks.timing import Side, Spread, seconds

RUNS = 2
MARGIN = 2.0
"""A way that is so many times slower in its best run will not be the fastest."""


@dataclass(frozen=True)
class Task:
    """side: to time. steps: of decoding that it runs. how: the implementation."""

    side: Side
    steps: int
    how: str


@runtime_checkable
class Peer(Protocol):
    """The same model with the same weights, elsewhere.

    weights: the type that it holds them in.
    """

    weights: str

    def decoding(self, prompt: np.ndarray, n: int) -> tuple[Task, ...]:
        """Steps of n samples of one prompt, by the fastest ways for this n."""
        ...

    def preparing(self, prompt: np.ndarray, n: int) -> tuple[Task, ...]:
        """A prompt read so that n samples can go on from it."""
        ...


def contenders(sides: Mapping[str, Side], steps: int) -> tuple[Task, ...]:
    """The sides worth timing in earnest: within `MARGIN` of the quickest run of all.

    Those that fail here are left out.
    """
    found: dict[str, float] = {}
    failures: list[str] = []
    for name, side in sides.items():
        try:
            found[name] = min(seconds(side) for _ in range(RUNS))
        except (RuntimeError, NotImplementedError) as error:
            failures.append(f"{name}: {error}")
    if not found:
        raise RuntimeError(f"the peer can run none of its ways here: {failures}")
    limit = MARGIN * min(found.values())
    names = [name for name, least in found.items() if least <= limit]
    return tuple(Task(sides[name], steps, name) for name in names)


def fastest(tasks: Sequence[Task], found: Mapping[str, Spread]) -> Task:
    """The task with the least median in `found`, which has them by their `how`."""
    return min(tasks, key=lambda task: found[task.how].median)
