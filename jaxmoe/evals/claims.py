"""Claims about differences, and what answers say of them, corrected for their number.

Verdicts of a family of claims hold together: the chance that any of them is false is
`ALPHA` at most.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from jaxmoe.evals.metrics import Interval, paired_difference
from jaxmoe.evals.significance import holm, permutation_test
from jaxmoe.typing import Float

ALPHA = 0.05
"""The chance of any false verdict in a family."""
MARGIN = 0.01
"""The size of an effect that counts, where a claim does not say: one point."""

Verdict = Literal["yes", "no", "cannot be told"]


@dataclass(frozen=True)
class Claim:
    """A claim, and the paired difference that decides it here.

    a, b: configurations; the difference is a's `measure` minus b's. expects: that the
    difference is above 0, or that it is no lower than -margin. only: the problems it is
    about, where not all. margin: the size of an effect that counts. by: who claims it.
    stated: the difference that its source gives, in its words; None where none is
    known.
    """

    text: str
    a: str
    b: str
    measure: str
    expects: Literal["higher", "no worse"]
    only: str | None = None
    margin: float = MARGIN
    by: Literal["paper", "ours"] = "ours"
    stated: str | None = None

    def __str__(self) -> str:
        where = f", {self.only}" if self.only else ""
        return f"{self.measure}: {self.a} minus {self.b}{where}"

    def judge(self, difference: Interval, p_value: float) -> Verdict:
        """What answers say.

        "higher": yes where the difference is above 0 and significant; else no where an
        effect of the margin is ruled out. "no worse": yes where a loss of the margin is
        ruled out; else no where the difference is below 0 and significant.

        Args:
          difference: with bounds that hold for all of the family at once.
          p_value: of the difference, adjusted for the family.
        """
        significant = p_value <= ALPHA
        if self.expects == "higher":
            yes = significant and difference.mean > 0
            no = difference.high < self.margin
        else:
            yes = difference.low > -self.margin
            no = significant and difference.mean < 0
        return "yes" if yes else "no" if no else "cannot be told"


@dataclass(frozen=True)
class Finding:
    """What was found of a claim.

    difference: with its 95 % interval. together: with the interval of level
    1 - `ALPHA` / size of the family. p_value, adjusted: before and after Holm.
    """

    claim: Claim
    difference: Interval
    together: Interval
    p_value: float
    adjusted: float

    @property
    def verdict(self) -> Verdict:
        """See `Claim.judge`."""
        return self.claim.judge(self.together, self.adjusted)


class Evidence(NamedTuple):
    """A claim's measure of a and of b at each problem, and the problems' groups.

    ends: between which the measure can be.
    """

    claim: Claim
    a: Float[np.ndarray, "P"]
    b: Float[np.ndarray, "P"]
    groups: Sequence[Hashable]
    ends: tuple[float, float] = (0.0, 1.0)

    def difference(self, level: float = 1 - ALPHA) -> Interval:
        """a less b, paired by problem."""
        return paired_difference(
            self.a, self.b, groups=self.groups, ends=self.ends, level=level
        )


def findings(
    family: Sequence[Evidence], *, size: int | None = None, resamples: int = 10_000
) -> list[Finding]:
    """What is found of the claims of a family.

    Args:
      size: claims of the family, where some are left out; they still count.
      resamples: as in `jaxmoe.evals.significance.permutation_test`.
    """
    p_values = [
        permutation_test(one.a, one.b, one.groups, resamples=resamples).p_value
        for one in family
    ]
    size = max(size or 1, len(family))
    level = 1 - ALPHA / size
    # Claims left out count as the least significant ones of the family.
    adjusted = holm([*p_values, *[1.0] * (size - len(family))])[: len(family)]
    return [
        Finding(
            one.claim,
            one.difference(),
            one.difference(level),
            p_value,
            corrected,
        )
        for one, p_value, corrected in zip(
            family, p_values, adjusted.tolist(), strict=True
        )
    ]
