"""Numbers of a comparison as words: percent, points, p-values, and what they show."""

import math
from collections.abc import Iterable, Sequence

from jaxmoe.evals.comparison import Comparison, Difference
from jaxmoe.evals.metrics import Interval

MISSING = "n/a"
MINUS = "\N{MINUS SIGN}"
FIGURE_SPACE = "\N{FIGURE SPACE}"
SIGNIFICANT = 0.05
"""Where a p-value is above, a difference is not called one."""


def is_finite(interval: Interval) -> bool:
    """Whether the mean and both bounds are numbers."""
    return all(map(math.isfinite, (interval.mean, interval.low, interval.high)))


def percent(interval: Interval) -> tuple[str, str]:
    """The mean and its bounds in percent: "41.2" and "[38.9, 43.6]".

    ("n/a", "") where one of the three is no number.
    """
    if not is_finite(interval):
        return MISSING, ""
    mean, low, high = _scaled(interval, decimals=1)
    return mean, f"[{low}, {high}]"


def points(interval: Interval) -> tuple[str, str]:
    """As `percent`, of a difference: "+1.2" and "[0.3, 2.1]" percentage points.

    A bound that is not 0 is not shown as 0.0: it gets as many decimals as it needs, up
    to 4, so that the words about the interval and its numbers agree.
    """
    if not is_finite(interval):
        return MISSING, ""
    bounds = [abs(100 * bound) for bound in (interval.low, interval.high) if bound]
    decimals = next((d for d in (1, 2, 3) if all(b >= 0.5 / 10**d for b in bounds)), 4)
    mean, low, high = _scaled(interval, decimals=decimals)
    sign = "+" if mean.strip("0.") and not mean.startswith(MINUS) else ""
    return f"{sign}{mean}", f"[{low}, {high}]"


def p_value(value: float) -> str:
    """A p-value to 3 decimals: "= 0.013", "< 0.001", or "n/a"."""
    if not math.isfinite(value):
        return MISSING
    if value < 0.001:
        return "< 0.001"
    return f"= {value:.3f}"


def numbers(values: Sequence[float]) -> list[str]:
    """A row of plain numbers with as many decimals as the largest of them asks for."""
    finite = [value for value in values if math.isfinite(value)]
    largest = max(map(abs, finite), default=0)
    whole = all(value == int(value) for value in finite)
    small = 1 if largest >= 100 else 2 if largest >= 1 else 3
    decimals = 0 if whole or largest >= 10_000 else small
    return [
        f"{value:z,.{decimals}f}".replace("-", MINUS)
        if math.isfinite(value)
        else MISSING
        for value in values
    ]


def aligned(cells: Iterable[str]) -> list[str]:
    """The cells with figure spaces before them, all of one length."""
    cells = list(cells)
    width = max(map(len, cells), default=0)
    return [cell.rjust(width, FIGURE_SPACE) for cell in cells]


def verdict(difference: Difference, p: float | None = None) -> str:
    """What a difference shows: "higher", "lower", "no difference shown" or "unclear".

    No difference is shown where the interval holds 0. Where it does not, but the
    p-value is above 0.05, the two disagree, and the matter is unclear.

    Args:
      difference: of run b less run a.
      p: instead of the difference's own p-value, say after Holm's correction.
    """
    p = difference.p_value if p is None else p
    interval = difference.interval
    if not is_finite(interval):
        return MISSING
    if interval.low <= 0 <= interval.high:
        return "no difference shown"
    if not p <= SIGNIFICANT:
        return "unclear"
    return "higher" if interval.mean > 0 else "lower"


def finding(difference: Difference, p: float | None = None) -> str:
    """A difference in words: "accuracy +1.2 points [0.3, 2.1], p = 0.010".

    Args:
      difference, p: as in `verdict`.
    """
    shown = verdict(difference, p)
    mean, bounds = points(difference.interval)
    kind = "p" if p is None else "Holm p"
    value = p_value(difference.p_value if p is None else p)
    known = f"{mean} points {bounds}" if bounds else mean
    numbers = f"{known}, {kind} {value}"
    if shown == "no difference shown":
        return f"no difference shown in {difference.measure} ({numbers})"
    if shown == "unclear":
        return (
            f"unclear in {difference.measure} ({numbers}: interval and test disagree)"
        )
    return f"{difference.measure} {numbers}"


def headlines(comparison: Comparison) -> list[int]:
    """Indices of the differences to begin with: the first measure of each pair.

    Pairs with the baseline where there are any, else all.
    """
    first: dict[tuple[str, str], int] = {}
    for index, difference in enumerate(comparison.differences):
        first.setdefault((difference.a, difference.b), index)
    baseline = comparison.runs[0].name
    with_baseline = [index for pair, index in first.items() if pair[0] == baseline]
    return with_baseline or list(first.values())


def counted(count: int, noun: str) -> str:
    """ "1 problem", "64 problems"."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def shortened(name: str, length: int = 30) -> str:
    """A name of at most `length` characters, its middle left out where it is longer."""
    if len(name) <= length:
        return name
    end = (length - 1) // 2
    return f"{name[: length - 1 - end]}\N{HORIZONTAL ELLIPSIS}{name[len(name) - end :]}"


def _scaled(interval: Interval, *, decimals: int) -> list[str]:
    """Mean, lower and upper bound times 100; z shows what rounds to 0 as 0."""
    values = (interval.mean, interval.low, interval.high)
    return [f"{100 * value:z.{decimals}f}".replace("-", MINUS) for value in values]
