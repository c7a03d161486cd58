"""A claim about a difference, and what answers say of it.

Verdicts are by 95 % intervals, not corrected for there being many of them.
"""

from dataclasses import dataclass
from typing import Literal

from jaxmoe.evals.metrics import Interval

PAPER = "paper"
"""Claimed in arXiv 2602.02443, of models of 15 to 80 billion parameters."""
OURS = "ours"
"""Asked here, to make sense of the others."""

Verdict = Literal["holds", "does not hold", "cannot tell"]


@dataclass(frozen=True)
class Claim:
    """A claim, and the paired difference that decides it here.

    a, b: configurations; the difference is a's `measure` minus b's, or minus b's
    `measure_b`. expects: that the difference is above or below 0, or that it is no
    lower than -margin. only: the problems it is about, where not all. stated: the
    difference that the claim's source gives, in its words; None where none is known.
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
    stated: str | None = None

    def __str__(self) -> str:
        b = f"{self.b} ({self.measure_b})" if self.measure_b else self.b
        where = f", {self.only}" if self.only else ""
        return f"{self.measure}: {self.a} minus {b}{where}"

    def judge(self, difference: Interval) -> Verdict:
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
