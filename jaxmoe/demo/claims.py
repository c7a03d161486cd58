"""What is claimed of the method, as differences that answers can decide.

Verdicts are by 95 % intervals, not corrected for there being many of them.
"""

from dataclasses import dataclass
from typing import Literal

from jaxmoe.demo.configuration_names import (
    BASE,
    ES,
    ES_GREEDY,
    GREEDY,
    GUMBEL,
    HOT,
    NOISY,
)
from jaxmoe.evals.metrics import Interval

SOLVED = "problems that greedy solves"

PAPER = "paper"
"""Claimed in arXiv 2602.02443, of models of 15 to 80 billion parameters."""
OURS = "ours"
"""Asked here, to make sense of the others."""


@dataclass(frozen=True)
class Claim:
    """A claim, and the paired difference that decides it here.

    a, b: configurations; the difference is a's `measure` minus b's, or minus b's
    `measure_b`. expects: that the difference is above or below 0, or that it is no
    lower than -margin. only: the problems it is about, where not all.
    """

    text: str
    by: Literal["paper", "ours"]
    a: str
    b: str
    measure: str
    expects: Literal["higher", "lower", "no worse", "no better"]
    measure_b: str | None = None
    only: str | None = None
    margin: float = 0.02

    def __str__(self) -> str:
        b = f"{self.b} ({self.measure_b})" if self.measure_b else self.b
        where = f", {self.only}" if self.only else ""
        return f"{self.measure}: {self.a} minus {b}{where}"

    def judge(
        self, difference: Interval
    ) -> Literal["holds", "does not hold", "cannot tell"]:
        """What the interval says.

        "higher" holds above 0, and does not hold where an effect of `margin` is ruled
        out; "no worse" holds above -margin, and does not hold below it. "lower" and "no
        better" are their mirrors.
        """
        low, high = difference.low, difference.high
        if self.expects in ("lower", "no better"):
            low, high = -high, -low
        if self.expects in ("higher", "lower"):
            holds, refuted = low > 0, high < self.margin
        else:
            holds, refuted = low >= -self.margin, high < -self.margin
        return "holds" if holds else "does not hold" if refuted else "cannot tell"


CLAIMS = (
    Claim("8 answers solve more problems", PAPER, ES, BASE, "pass@8", "higher"),
    Claim("32 answers solve more problems", PAPER, ES, BASE, "pass@32", "higher"),
    Claim("64 answers solve more problems", PAPER, ES, BASE, "pass@64", "higher"),
    Claim("a single answer is no worse", PAPER, ES, BASE, "accuracy", "no worse"),
    Claim(
        "a single greedy answer is no worse",
        PAPER,
        ES_GREEDY,
        GREEDY,
        "accuracy",
        "no worse",
    ),
    Claim(
        "what greedy solves is solved as often with sampled experts",
        PAPER,
        ES,
        BASE,
        "accuracy",
        "no worse",
        only=SOLVED,
    ),
    Claim(
        "a head of 2, below k / 2, costs accuracy",
        PAPER,
        ES,
        "k_keep 2",
        "accuracy",
        "higher",
    ),
    Claim(
        "a range of 10, below 2 k, solves fewer problems",
        PAPER,
        ES,
        "r 10",
        "pass@8",
        "higher",
    ),
    Claim(
        "a range beyond 4 k solves no more", PAPER, "r 64", ES, "pass@8", "no better"
    ),
    Claim(
        "a tau of 0.3, below 0.7, solves fewer problems",
        PAPER,
        ES,
        "tau 0.3",
        "pass@8",
        "higher",
    ),
    Claim(
        "half the experts are no worse for a greedy answer",
        PAPER,
        "k 4, greedy",
        GREEDY,
        "accuracy",
        "no worse",
    ),
    Claim(
        "half the experts solve fewer problems in 32 answers",
        PAPER,
        "k 4, 0.7",
        BASE,
        "pass@32",
        "lower",
    ),
    Claim(
        "routes alone find what one greedy answer does not",
        OURS,
        ES_GREEDY,
        GREEDY,
        "pass@32",
        "higher",
        measure_b="pass@1",
    ),
    Claim(
        "noise on the prompt too finds more",
        OURS,
        f"{ES_GREEDY}, {NOISY}",
        ES_GREEDY,
        "pass@32",
        "higher",
    ),
    Claim(
        "noise on the prompt too costs no accuracy",
        OURS,
        f"{ES}, {NOISY}",
        ES,
        "accuracy",
        "no worse",
    ),
    Claim(
        "keeping a head is better than noise on all experts",
        OURS,
        "r 64",
        GUMBEL,
        "accuracy",
        "higher",
    ),
    Claim(
        "a higher temperature costs accuracy (a control)",
        OURS,
        BASE,
        HOT,
        "accuracy",
        "higher",
    ),
)
