"""The method measured on the demo model: what is drawn, and what it says.

Every configuration draws n answers to the same problems with the same keys, so that
differences are paired: answer i to problem j of two configurations that route alike is
drawn with the same random numbers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from jaxmoe.decode.tokens import TokenSampler
from jaxmoe.demo.game_runs import Outcome
from jaxmoe.evals.metrics import Interval, bootstrap, paired_difference, verdict
from jaxmoe.evals.runs import Draw
from jaxmoe.router.policies import (
    AdaptiveHead,
    ExpertSample,
    GumbelTopK,
    Policy,
    TopK,
)

UNIFORM = 1e6
"""A tau so large that noise alone chooses among the tail."""

ES_GREEDY, ES, ES_HOT = (f"expert-sample, {t}" for t in ("greedy", "0.7", "1.3"))
GREEDY, BASE, HOT = (f"top-k, {t}" for t in ("greedy", "0.7", "1.3"))
GUMBEL = "gumbel-topk, 0.7"


@dataclass(frozen=True)
class Configuration:
    """One row of the study."""

    policy: Policy
    temperature: float
    n: int

    def draw(self, slots: int | None = None) -> Draw:
        """As `jaxmoe.demo.game_runs.play` wants it; a greedy answer comes once."""
        return Draw(self.policy, TokenSampler(self.temperature), self.n, 1, 0, slots)


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


def measures(outcome: Outcome) -> dict[str, Interval]:
    """Accuracy and pass@n with intervals."""
    names = ["accuracy", *(f"pass@{k}" for k in outcome.budgets())]
    return {name: bootstrap(values(outcome, name)) for name in names}


def values(outcome: Outcome, measure: str) -> np.ndarray:
    """ "accuracy" or "pass@n" of each problem, float64 [P]."""
    if measure == "accuracy":
        return outcome.accuracy()
    return outcome.pass_at(int(measure.removeprefix("pass@")))


def compare(a: Outcome, b: Outcome) -> dict[str, Interval]:
    """Paired differences a - b of accuracy and of pass@n where both have n answers."""
    names = ["accuracy", *(f"pass@{k}" for k in a.budgets() if k <= b.n)]
    return {name: paired_difference(values(a, name), values(b, name)) for name in names}


def stability(outcomes: Mapping[str, Outcome]) -> dict[str, Interval]:
    """Accuracy on the problems that top-k solves greedily, by configuration."""
    solved = outcomes[GREEDY].right > 0
    return {
        name: bootstrap(outcomes[name].of(solved).accuracy())
        for name in (BASE, HOT, ES_GREEDY, ES, ES_HOT, GUMBEL)
    }


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, and the paired difference that decides it here.

    a, b: configurations; the difference is a's `measure` minus b's, or minus b's
    `measure_b`. expects: what the paper says of it: "higher", "lower", or "same" (at
    most `margin` either way).
    """

    text: str
    a: str
    b: str
    measure: str
    expects: Literal["higher", "lower", "same"]
    measure_b: str | None = None
    margin: float = 0.02

    def __str__(self):
        b = f"{self.b}, {self.measure_b}" if self.measure_b else self.b
        return f"{self.measure}: {self.a} minus {b}"

    def judge(self, outcomes: Mapping[str, Outcome]) -> tuple[Interval, str]:
        """The difference, and "holds", "does not hold" or "cannot tell"."""
        difference = paired_difference(
            values(outcomes[self.a], self.measure),
            values(outcomes[self.b], self.measure_b or self.measure),
        )
        low, high = difference.low, difference.high
        if self.expects == "same":
            holds = -self.margin <= low and high <= self.margin
            refuted = low > self.margin or high < -self.margin
        else:
            found = verdict(difference)
            holds = found == self.expects
            refuted = not holds and found != "cannot tell"
        judged = "holds" if holds else "does not hold" if refuted else "cannot tell"
        return difference, judged


CLAIMS = (
    Claim("more problems are solved within 32 answers", ES, BASE, "pass@32", "higher"),
    Claim("more problems are solved within 64 answers", ES, BASE, "pass@64", "higher"),
    Claim("also at temperature 1.3", ES_HOT, HOT, "pass@32", "higher"),
    Claim("a single answer stays as good", ES, BASE, "accuracy", "same"),
    Claim("so it does with greedy tokens", ES_GREEDY, GREEDY, "accuracy", "same"),
    Claim(
        "routes alone, with greedy tokens, solve more problems",
        ES_GREEDY,
        GREEDY,
        "pass@32",
        "higher",
        measure_b="pass@1",
    ),
    Claim(
        "sampled experts cost less than temperature 1.3", ES, HOT, "accuracy", "higher"
    ),
    Claim("noise on the head too costs accuracy", ES, GUMBEL, "accuracy", "higher"),
    Claim("a head below k / 2 costs accuracy", ES, "k_keep 2", "accuracy", "higher"),
    Claim("a range below 2 k solves fewer", ES, "r 10", "pass@32", "higher"),
    Claim("a range beyond 4 k adds nothing", "r 64", ES, "pass@32", "same"),
    Claim("a tau below 0.7 solves fewer", ES, "tau 0.3", "pass@32", "higher"),
    Claim("half the experts answer as well", "k 4, greedy", GREEDY, "accuracy", "same"),
    Claim("half the experts solve fewer", "k 4, 0.7", BASE, "pass@32", "lower"),
)


def report(outcomes: Mapping[str, Outcome]) -> dict[str, Any]:
    """All that the study says of its answers, as JSON."""
    base = outcomes[BASE]
    rows = {}
    for name, outcome in outcomes.items():
        rows[name] = {
            "n": outcome.n,
            **{m: as_json(i) for m, i in measures(outcome).items()},
            "distinct_right": as_json(bootstrap(outcome.distinct)),
            f"minus {BASE}": {m: as_json(i) for m, i in compare(outcome, base).items()},
            "right": outcome.right.tolist(),
        }
    claims = []
    for claim in CLAIMS:
        difference, judged = claim.judge(outcomes)
        claims.append(
            {
                "claim": claim.text,
                "difference": str(claim),
                "value": as_json(difference),
                "expected": claim.expects,
                "verdict": judged,
            }
        )
    return {
        "problems": len(base.problems),
        "greedy_solves": int((outcomes[GREEDY].right > 0).sum()),
        "configurations": rows,
        "stability": {n: as_json(i) for n, i in stability(outcomes).items()},
        "claims": claims,
    }


def as_json(interval: Interval) -> list[float]:
    """[mean, low, high] with five decimals."""
    return [round(float(v), 5) for v in (interval.mean, interval.low, interval.high)]
