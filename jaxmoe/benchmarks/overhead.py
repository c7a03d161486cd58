"""Overhead: what choosing experts with noise costs, and what other experts cost."""

from collections.abc import Iterator
from functools import partial

import numpy as np

from jaxmoe.benchmarks import begun, targets
from jaxmoe.benchmarks.report import Row
from jaxmoe.benchmarks.subject import Subject
from jaxmoe.benchmarks.timing import Side, Spread, take_turns
from jaxmoe.router.policies import ExpertSample, TopK

POLICIES = {"TopK": TopK(), "cold": ExpertSample(tau=0.0), "warm": ExpertSample()}


def measure(
    subject: Subject, *, ns: tuple[int, ...], prompt: int, steps: int, rounds: int
) -> Iterator[Row]:
    """Rows for each n: with the same experts (tau = 0), and with drawn ones.

    steps: few, so that the policies take turns quickly.
    """
    prefix = begun.load(subject, [subject.prompt(prompt)])
    for n in ns:
        samples = {
            name: begun.begin(subject, prefix, n=n, room=steps, policy=policy)
            for name, policy in POLICIES.items()
        }
        sides = {name: Side(partial(s.run, steps)) for name, s in samples.items()}
        found = take_turns(sides, rounds, warmup=2)
        routes = {name: s.routes(steps) for name, s in samples.items()}
        yield from _rows(subject, n, steps, found, routes)


def _rows(
    subject: Subject,
    n: int,
    steps: int,
    found: dict[str, Spread],
    routes: dict[str, np.ndarray],
) -> Iterator[Row]:
    layers = subject.config.moe_layers
    distinct = {k: begun.distinct_experts(r, layers) for k, r in routes.items()}
    slower = {name: _percent(found[name].over(found["TopK"])) for name in found}
    yield subject.place.row(
        "overhead",
        targets.same_experts(n),
        slower["cold"].median,
        "%",
        quartiles="{:+.2f}..{:+.2f}".format(*slower["cold"].quartiles),
        same_experts=bool((routes["cold"] == routes["TopK"]).all()),
        TopK_ms=found["TopK"].times(1e3 / steps),
        ms=found["cold"].times(1e3 / steps),
        percent=slower["cold"],
    )
    yield subject.place.row(
        "overhead",
        f"n = {n}: ExpertSample(tau=1) slower than TopK",
        slower["warm"].median,
        "%",
        quartiles="{:+.2f}..{:+.2f}".format(*slower["warm"].quartiles),
        distinct_experts=distinct["warm"],
        of_TopK=distinct["TopK"],
        ms=found["warm"].times(1e3 / steps),
        percent=slower["warm"],
    )


def _percent(ratio: Spread) -> Spread:
    return Spread(tuple(100 * (value - 1) for value in ratio.values))
