"""Another implementation to stand beside ours; who measures it provides one."""

from collections.abc import Iterable, Mapping
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
    found = _best_runs(sides)
    limit = MARGIN * min(found.values())
    names = [name for name, least in found.items() if least <= limit]
    return tuple(Task(sides[name], steps, name) for name in names)


def quickest(sides: Mapping[str, Side]) -> str:
    """The side with the quickest run."""
    found = _best_runs(sides)
    return min(found, key=lambda name: found[name])


def _best_runs(sides: Mapping[str, Side]) -> dict[str, float]:
    """Seconds of each side's best run, but of those that fail."""
    found: dict[str, float] = {}
    failures: list[str] = []
    for name, side in sides.items():
        try:
            found[name] = min(seconds(side) for _ in range(RUNS))
        except (RuntimeError, NotImplementedError) as error:
            failures.append(f"{name}: {error}")
    if not found:
        raise RuntimeError(f"the peer can run none of its ways here: {failures}")
    return found


def sides_of(peer: str, tasks: Iterable[Task]) -> dict[str, Side]:
    """The tasks of a peer, to take turns with others'."""
    return {_side_name(peer, task): task.side for task in tasks}


def fastest(
    peer: str, tasks: Iterable[Task], found: Mapping[str, Spread]
) -> tuple[Task, Spread]:
    """The task of a peer with the least median in `found`, and its seconds."""
    best = min(tasks, key=lambda task: found[_side_name(peer, task)].median)
    return best, found[_side_name(peer, best)]


def _side_name(peer: str, task: Task) -> str:
    return f"{peer}: {task.how}"
