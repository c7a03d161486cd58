"""What is claimed of the method, as differences that answers can decide.

Two families, each corrected for its size: PRIMARY, which the study was made for, and
SECONDARY, about the parts of the method. jaxmoe/demo/study/design.md says why these.
"""

from collections.abc import Mapping, Sequence

from jaxmoe.demo.configuration_names import (
    ALONE,
    BASE,
    COLD,
    ES,
    ES_ALONE,
    ES_HOT,
    GREEDY,
    GUMBEL,
    HALF,
    HOT,
    KEEP_2,
    KEEP_7,
    UNIFORM,
    WARM,
)
from jaxmoe.demo.game_runs import Outcome
from jaxmoe.evals.claims import ALPHA, Claim, Evidence, Finding, findings
from jaxmoe.evals.metrics import Interval, paired_difference

SOLVED = "problems that greedy solves"

RESAMPLES = 100_000


def _of_sampler(sampler: str, es: str, base: str) -> tuple[Claim, ...]:
    solves = (
        Claim(f"{n} answers solve more ({sampler})", es, base, f"pass@{n}", "higher")
        for n in (8, 32, 64)
    )
    single = f"a single answer is no worse ({sampler})"
    solved = f"what greedy solves is solved as often ({sampler})"
    return (
        *solves,
        Claim(single, es, base, "accuracy", "no worse"),
        Claim(solved, es, base, "accuracy", "no worse", only=SOLVED),
    )


PRIMARY = (*_of_sampler("normal", ES, BASE), *_of_sampler("high", ES_HOT, HOT))

SECONDARY = (
    Claim("a head of 2, below k / 2, costs accuracy", ES, KEEP_2, "accuracy", "higher"),
    Claim("a head of 7 finds less", ES, KEEP_7, "pass@32", "higher"),
    Claim("a tau of 0.3 finds less", ES, COLD, "pass@32", "higher"),
    Claim("a tau of 2 costs accuracy", ES, WARM, "accuracy", "higher"),
    Claim("a uniform tail costs accuracy", ES, UNIFORM, "accuracy", "higher"),
    Claim("noise on all experts costs accuracy", ES, GUMBEL, "accuracy", "higher"),
    Claim("half the experts are no worse", HALF, BASE, "accuracy", "no worse"),
    Claim("half the experts find less", BASE, HALF, "pass@32", "higher"),
    Claim("without top-p and top-k too", ES_ALONE, ALONE, "pass@32", "higher"),
    Claim("more than a high temperature finds", ES, HOT, "pass@32", "higher"),
    Claim("a high temperature costs accuracy", BASE, HOT, "accuracy", "higher"),
)


def pair_of(
    claim: Claim, outcomes: Mapping[str, Outcome]
) -> tuple[Outcome, Outcome] | None:
    """The outcomes that a claim is about, of equal problems and numbers of answers.

    The first ones of both, which were drawn with equal keys. None where no problem is
    left, or a configuration was not drawn.
    """
    if claim.a not in outcomes or claim.b not in outcomes:
        return None
    a, b = outcomes[claim.a], outcomes[claim.b]
    problems, n = min(len(a.problems), len(b.problems)), min(a.n, b.n)
    a, b = a.first_of(problems, n), b.first_of(problems, n)
    if claim.only == SOLVED:
        solved = outcomes[GREEDY].first_of(problems, 1).right > 0
        if not solved.any():
            return None
        a, b = a.of(solved), b.of(solved)
    return a, b


def compare(
    a: Outcome, b: Outcome, measure: str, *, level: float = 1 - ALPHA
) -> Interval:
    """The paired difference of a's measure and b's, over sets of numbers."""
    values = a.values(measure), b.values(measure)
    return paired_difference(*values, groups=a.groups, level=level)


def judge(family: Sequence[Claim], outcomes: Mapping[str, Outcome]) -> list[Finding]:
    """What is found of the claims of a family, but for those `pair_of` leaves out."""
    pairs = [(c, pair) for c in family if (pair := pair_of(c, outcomes)) is not None]
    evidence = [
        Evidence(c, a.values(c.measure), b.values(c.measure), a.groups)
        for c, (a, b) in pairs
    ]
    return findings(evidence, size=len(family), resamples=RESAMPLES)
