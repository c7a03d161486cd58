"""The method measured on the demo model: what is drawn, and what is made of it.

Every configuration answers the same problems (`jaxmoe.demo.held_out`) with the same
keys. Differences are paired by problem, and intervals resample whole sets of numbers,
whose problems are alike. jaxmoe/demo/study/design.md was written before any answer.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxmoe.decode.sampler import TokenSampler
from jaxmoe.demo import configuration_names as names
from jaxmoe.demo.claims import PRIMARY, SECONDARY, Finding, judge
from jaxmoe.demo.game_runs import MAX_NEW_TOKENS, Outcome
from jaxmoe.demo.held_out import STUDY_SEED
from jaxmoe.evals.draw import Draw
from jaxmoe.evals.metrics import Interval
from jaxmoe.router.policies import ExpertSample, GumbelTopK, Policy, TopK

NORMAL = TokenSampler(0.7, top_p=0.8, top_k=20)
HIGH = TokenSampler(1.3, top_p=0.98)
"""The paper's token samplers."""
ALONE = TokenSampler(0.7)
"""A temperature without top-p and top-k."""
NO_ORDER = 1e6
"""A tau so large that noise alone chooses among the tail."""
FEWER = 512
"""Problems of secondary rows: the first of the study."""


@dataclass(frozen=True)
class Configuration:
    """One row of the study: n answers to each problem, or to the first `problems`."""

    policy: Policy
    sampler: TokenSampler = NORMAL
    n: int = 32
    problems: int | None = FEWER

    def draw(self, slots: int | None = None) -> Draw:
        """As `jaxmoe.demo.game_runs.play` wants it."""
        draw = (self.policy, self.sampler, self.n, MAX_NEW_TOKENS)
        return Draw(*draw, seed=STUDY_SEED, slots=slots)


def configurations() -> dict[str, Configuration]:
    """Name -> configuration, in the order in which they are drawn."""
    main: dict[str, tuple[Policy, TokenSampler]] = {
        names.BASE: (TopK(), NORMAL),
        names.ES: (ExpertSample(), NORMAL),
        names.HOT: (TopK(), HIGH),
        names.ES_HOT: (ExpertSample(), HIGH),
    }
    return {
        names.GREEDY: Configuration(TopK(), TokenSampler(0.0), 1, None),
        **{name: Configuration(p, s, 64, None) for name, (p, s) in main.items()},
        names.GUMBEL: Configuration(GumbelTopK()),
        names.KEEP_2: Configuration(ExpertSample(k_keep=2)),
        names.KEEP_7: Configuration(ExpertSample(k_keep=7)),
        names.COLD: Configuration(ExpertSample(tau=0.3)),
        names.WARM: Configuration(ExpertSample(tau=2.0)),
        names.UNIFORM: Configuration(ExpertSample(tau=NO_ORDER)),
        names.HALF: Configuration(TopK(4)),
        names.ALONE: Configuration(TopK(), ALONE),
        names.ES_ALONE: Configuration(ExpertSample(), ALONE),
    }


MAIN = tuple(n for n, row in configurations().items() if row.problems is None)
"""Names of the rows that answer all problems."""


def unfinished(drawn: Collection[str]) -> list[str]:
    """Names of main rows without which there is no report."""
    return [name for name in MAIN if name not in drawn]


def report(outcomes: Mapping[str, Outcome], slots: int | None = None) -> dict[str, Any]:
    """All that the study says of its answers, drawn with so many slots, as JSON."""
    rows = configurations()
    base = outcomes[names.BASE]
    primary, secondary = judge(PRIMARY, outcomes), judge(SECONDARY, outcomes)
    judged = [finding.claim for finding in (*primary, *secondary)]
    return {
        "problems": len(base.problems),
        "number_sets": len(set(base.groups)),
        "greedy_solves": int((outcomes[names.GREEDY].right > 0).sum()),
        "configurations": {
            name: row_as_json(rows[name].draw(slots), outcome)
            for name, outcome in outcomes.items()
        },
        "primary": [found_as_json(finding) for finding in primary],
        "secondary": [found_as_json(finding) for finding in secondary],
        "left_out": {
            "configurations": [name for name in rows if name not in outcomes],
            "claims": [c.text for c in (*PRIMARY, *SECONDARY) if c not in judged],
        },
    }


def row_as_json(draw: Draw, outcome: Outcome) -> dict[str, Any]:
    """How a row's answers were drawn, and what they came to."""
    return {
        **draw.describe(),
        "problems": len(outcome.problems),
        **{n: as_json(i) for n, i in outcome.measures().items()},
        "right": outcome.right.tolist(),
    }


def found_as_json(finding: Finding) -> dict[str, Any]:
    """A claim, and what was found of it."""
    claim = finding.claim
    return {
        "claim": claim.text,
        "difference": str(claim),
        "expected": claim.expects,
        "value": as_json(finding.difference),
        "together": as_json(finding.together),
        "p": round(finding.p_value, 5),
        "p after Holm": round(finding.adjusted, 5),
        "verdict": finding.verdict,
    }


def as_json(interval: Interval) -> list[float]:
    """[mean, low, high] with five decimals; no negative zero."""
    values = (interval.mean, interval.low, interval.high)
    return [round(float(value), 5) + 0.0 for value in np.array(values)]
