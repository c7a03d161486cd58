"""How hard the study's problems are to be: top-k alone, on problems of another seed."""

from collections.abc import Mapping, Sequence

import numpy as np

from jaxmoe.demo.game_runs import MAX_NEW_TOKENS, Outcome
from jaxmoe.demo.held_out import KINDS, PILOT_SEED, HeldOut, Kind
from jaxmoe.demo.study import NORMAL
from jaxmoe.evals.draw import Draw
from jaxmoe.evals.metrics import Interval
from jaxmoe.router.policies import TopK

WANTED = 0.8
"""pass@64 of top-k: far enough from 1 for a gain, and not mostly hopeless problems."""
BOUNDS = (0.6, 0.9)
"""Between which it must lie."""


def pilot_draw(slots: int | None = None) -> Draw:
    """As `jaxmoe.demo.game_runs.play` wants it."""
    return Draw(TopK(), NORMAL, 64, MAX_NEW_TOKENS, seed=PILOT_SEED, slots=slots)


def measured(
    outcome: Outcome, asked: Sequence[HeldOut]
) -> dict[tuple[Kind, int], Interval]:
    """pass@64 for each kind of sets and number of answers."""
    cells: list[tuple[Kind, int]] = [(one.kind, one.answers) for one in asked]
    return {
        cell: outcome.of(np.array([c == cell for c in cells])).interval("pass@64")
        for cell in sorted(set(cells))
    }


def chosen(found: Mapping[tuple[Kind, int], Interval]) -> dict[Kind, int]:
    """Answers of the study's problems: where pass@64 is nearest to `WANTED`.

    A kind whose problems are all out of `BOUNDS` is left out.
    """
    low, high = BOUNDS
    best: dict[Kind, int] = {}
    for kind in KINDS:
        means = {n: i.mean for (k, n), i in found.items() if k == kind}
        fits = {n: abs(m - WANTED) for n, m in means.items() if low <= m <= high}
        if fits:
            best[kind] = min(fits, key=fits.__getitem__)
    return best
