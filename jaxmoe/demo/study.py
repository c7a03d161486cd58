"""The method measured on the demo model: what is drawn, and what is made of it.

Every configuration answers the same problems with the same keys. Differences are
paired by problem, and intervals resample whole sets of numbers, whose problems are
alike (`jaxmoe.demo.chains`). Tokens are drawn with a temperature alone, without top-p
and top-k.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxmoe.decode.sampler import TokenSampler
from jaxmoe.demo.claims import CLAIMS, SOLVED
from jaxmoe.demo.configuration_names import (
    BASE,
    ES,
    ES_GREEDY,
    ES_HOT,
    GREEDY,
    GUMBEL,
    HOT,
    NOISY,
)
from jaxmoe.demo.game_runs import MAX_NEW_TOKENS, Outcome, of_band
from jaxmoe.demo.numbers_game import Problem
from jaxmoe.evals.claims import Claim
from jaxmoe.evals.draw import Draw
from jaxmoe.evals.metrics import Interval, bootstrap, paired_difference
from jaxmoe.router.policies import AdaptiveHead, ExpertSample, GumbelTopK, Policy, TopK

UNIFORM = 1e6
"""A tau so large that noise alone chooses among the tail."""


@dataclass(frozen=True)
class Configuration:
    """One row of the study."""

    policy: Policy
    temperature: float
    n: int
    noisy_prefill: bool = False

    def draw(self, slots: int | None = None) -> Draw:
        """As `jaxmoe.demo.game_runs.play` wants it."""
        return Draw(
            self.policy,
            TokenSampler(self.temperature),
            self.n,
            MAX_NEW_TOKENS,
            slots=slots,
            noisy_prefill=self.noisy_prefill,
        )


def configurations() -> dict[str, Configuration]:
    """Name -> configuration, in the order of the table."""
    rows = {
        GREEDY: Configuration(TopK(), 0.0, 1),
        BASE: Configuration(TopK(), 0.7, 64),
        HOT: Configuration(TopK(), 1.3, 64),
        ES_GREEDY: Configuration(ExpertSample(), 0.0, 64),
        ES: Configuration(ExpertSample(), 0.7, 64),
        ES_HOT: Configuration(ExpertSample(), 1.3, 64),
        GUMBEL: Configuration(GumbelTopK(), 0.7, 64),
        "uniform tail, 0.7": Configuration(ExpertSample(tau=UNIFORM), 0.7, 64),
        "adaptive-head, 0.7": Configuration(AdaptiveHead(), 0.7, 64),
        f"{ES_GREEDY}, {NOISY}": Configuration(ExpertSample(), 0.0, 32, True),
        f"{ES}, {NOISY}": Configuration(ExpertSample(), 0.7, 32, True),
    }
    for k_keep in (2, 3, 4, 6, 7):
        rows[f"k_keep {k_keep}"] = Configuration(ExpertSample(k_keep=k_keep), 0.7, 32)
    for r in (10, 16, 24, 64):
        rows[f"r {r}"] = Configuration(ExpertSample(r=r), 0.7, 32)
    for tau in (0.3, 0.7, 2.0):
        rows[f"tau {tau}"] = Configuration(ExpertSample(tau=tau), 0.7, 32)
    for k in (6, 5, 4, 2):
        rows[f"k {k}, greedy"] = Configuration(TopK(k), 0.0, 1)
        rows[f"k {k}, 0.7"] = Configuration(TopK(k), 0.7, 32)
    return rows


def compare(
    a: Outcome, b: Outcome, measure: str, measure_b: str | None = None
) -> Interval:
    """The paired difference of a's measure and b's (the same where None).

    Of the same measure, as many answers of both are looked at: the first ones, which
    are drawn with equal keys. A greedy answer, which comes once, stands for any number.
    """
    alone = 1 in (a.n, b.n)
    first = None if measure_b or alone else min(a.n, b.n)
    values_b = b.values(measure_b or measure, first)
    return paired_difference(a.values(measure, first), values_b, groups=a.groups)


def stability(outcomes: Mapping[str, Outcome]) -> dict[str, Interval]:
    """Accuracy on the problems that top-k solves greedily, by configuration.

    Chosen because greedy answers are right, these can only lose by it.
    """
    solved = outcomes[GREEDY].right > 0
    if not solved.any():
        return {}
    names = (BASE, HOT, ES_GREEDY, ES, ES_HOT, GUMBEL)
    return {name: outcomes[name].of(solved).interval("accuracy") for name in names}


def report(
    outcomes: Mapping[str, Outcome],
    bands: Mapping[Problem, str],
    slots: int | None = None,
) -> dict[str, Any]:
    """All that the study says of its answers, drawn with so many slots, as JSON."""
    rows = configurations()
    return {
        "problems": len(outcomes[BASE].problems),
        "number_sets": len(set(outcomes[BASE].groups)),
        "greedy_solves": int((outcomes[GREEDY].right > 0).sum()),
        "configurations": {
            name: {
                **rows[name].draw(slots).describe(),
                **_measured(outcome, bands),
                "pass@32 minus base": None
                if outcome.n < 32
                else as_json(compare(outcome, outcomes[BASE], "pass@32")),
                "accuracy minus base": as_json(
                    compare(outcome, outcomes[BASE], "accuracy")
                ),
                "right": outcome.right.tolist(),
            }
            for name, outcome in outcomes.items()
        },
        "stability": {n: as_json(i) for n, i in stability(outcomes).items()},
        "claims": [_claimed(claim, outcomes) for claim in CLAIMS],
    }


def _measured(outcome: Outcome, bands: Mapping[Problem, str]) -> dict[str, Any]:
    found = {name: as_json(i) for name, i in outcome.measures().items()}
    for band in ("easy", "hard"):
        if some := of_band(outcome, bands, band):
            found |= {f"{n}, {band}": as_json(i) for n, i in some.measures().items()}
    distinct = bootstrap(outcome.distinct, groups=outcome.groups, ends=None)
    return found | {"distinct_right": as_json(distinct)}


def _claimed(claim: Claim, outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
    a, b = outcomes[claim.a], outcomes[claim.b]
    if claim.only == SOLVED:
        solved = outcomes[GREEDY].right > 0
        a, b = a.of(solved), b.of(solved)
    known = len(a.problems) > 0
    difference = compare(a, b, claim.measure, claim.measure_b) if known else None
    return {
        "claim": claim.text,
        "by": claim.by,
        "difference": str(claim),
        "expected": f"{claim.expects}, margin {claim.margin:g}",
        "value": as_json(difference) if difference else None,
        "verdict": claim.judge(difference) if difference else "cannot tell",
    }


def as_json(interval: Interval) -> list[float]:
    """[mean, low, high] with five decimals; no negative zero."""
    values = (interval.mean, interval.low, interval.high)
    return [round(float(value), 5) + 0.0 for value in np.array(values)]
