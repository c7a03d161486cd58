"""Smaller drawings as SVG: right answers by problem, differences, router curves."""

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxmoe.evals.comparison import Comparison, Difference, RunSummary
from jaxmoe.reports.html_parts import element, text
from jaxmoe.reports.report_words import (
    MINUS,
    counted,
    is_finite,
    shortened,
    verdict,
)
from jaxmoe.reports.svg_chart import Axis, drawing, label, look, ticks

SQUARE = 330
NAMED = 8
"""Problems of one point that its hint names."""
FOREST_WIDTH, FOREST_HEIGHT = 190, 30
PANEL_WIDTH, PANEL_HEIGHT = 190, 140


def scatter(identifier: str, comparison: Comparison, across: int, up: int) -> str:
    """Right answers to each problem, of one run against those of another.

    Problems with the same two counts are one circle, whose area is their number.

    Args:
      identifier: of the drawing, unique on the page.
      comparison: of at least two runs.
      across, up: places of the two runs in it.
    """
    a, b = comparison.runs[across], comparison.runs[up]
    x = Axis(0, a.n, 62, SQUARE - 22)
    y = Axis(0, b.n, SQUARE - 60, 20)
    circles = _by_counts(comparison.problems, a, b)
    colour, _, _ = look(up)
    title = f"right answers of {b.name} against those of {a.name}"
    above, on, below = sides(a, b)
    description = (
        f"{counted(above, 'problem')} more often right in {b.name}, {below} in "
        f"{a.name}, {on} equally often"
    )
    return drawing(
        identifier,
        title,
        description,
        SQUARE,
        SQUARE,
        element(
            "rect", x=50, y=8, width=SQUARE - 60, height=SQUARE - 56, class_="frame"
        ),
        element("line", x1=x(0), y1=y(0), x2=x(a.n), y2=y(b.n), class_="diagonal"),
        *_scatter_axes(a, b, x, y),
        *(_circle(at, ids, x, y, colour) for at, ids in circles),
    )


def sides(a: RunSummary, b: RunSummary) -> tuple[int, int, int]:
    """Problems that b answers right more often than a, as often, and less often.

    By the share of each run's own n answers.
    """
    signs = [
        (right_b * a.n > right_a * b.n) - (right_b * a.n < right_a * b.n)
        for right_a, right_b in zip(a.right, b.right, strict=True)
    ]
    return signs.count(1), signs.count(0), signs.count(-1)


def histogram(identifier: str, run: RunSummary) -> str:
    """How many problems have 0, 1, ... n right answers, of one run.

    Args:
      identifier: of the drawing, unique on the page.
      run: whose counts are drawn.
    """
    width, height = 440, 230
    counts = [run.right.count(count) for count in range(run.n + 1)]
    levels = [level for level in ticks(0, max(counts)) if level == int(level)]
    x = Axis(-0.5, run.n + 0.5, 46, width - 10)
    y = Axis(0, levels[-1], height - 44, 26)
    bar = max(0.8, 0.8 * (x(1) - x(0)))
    bars = [
        element(
            "rect",
            element("title", text(f"{counted(c, 'problem')} with {right} right")),
            x=x(right) - bar / 2,
            y=y(c),
            width=bar,
            height=y(0) - y(c),
            class_="column",
        )
        for right, c in enumerate(counts)
        if c
    ]
    unsolved = counted(counts[0], "problem")
    return drawing(
        identifier,
        f"problems by the number of right answers, of {run.name}",
        f"{unsolved} without a right answer, {counts[-1]} with all {run.n} right",
        width,
        height,
        *(_level(level, 46, width - 10, y) for level in levels),
        *(label(x(right), y(0) + 16, str(right)) for right in _whole(run.n, 8)),
        label(12, 14, "problems", "start", "title"),
        label(
            (46 + width - 10) / 2, height - 8, f"right answers of {run.n}", kind="title"
        ),
        element("g", *bars, class_=look(0)[0]),
    )


def forest_axis(differences: Sequence[Difference]) -> Axis:
    """The axis that holds 0 and all the intervals, in percentage points."""
    known = [d.interval for d in differences if is_finite(d.interval)]
    low = 100 * min((interval.low for interval in known), default=0)
    high = 100 * max((interval.high for interval in known), default=0)
    levels = ticks(min(low, 0), max(high, 0), most=5)
    return Axis(levels[0], levels[-1], 20, FOREST_WIDTH - 20)


def forest_head(axis: Axis) -> str:
    """The axis' numbers, to stand above the intervals."""
    levels = ticks(axis.low, axis.high, most=5)
    return _plain(
        *(
            label(axis(v), 24, f"{v:+g}".replace("-", MINUS) if v else "0")
            for v in levels
        ),
    )


def forest_row(axis: Axis, difference: Difference, p: float | None = None) -> str:
    """One interval beside 0; hollow where it shows no difference."""
    middle = FOREST_HEIGHT / 2
    zero = element(
        "line", x1=axis(0), y1=0, x2=axis(0), y2=FOREST_HEIGHT, class_="axis"
    )
    interval = difference.interval
    if not is_finite(interval):
        return _plain(zero)
    shown = verdict(difference, p) in ("higher", "lower")
    low, mean, high = (
        axis(100 * v) for v in (interval.low, interval.mean, interval.high)
    )
    bar = element("line", x1=low, y1=middle, x2=high, y2=middle, class_="interval")
    kind = "estimate" if shown else "estimate hollow"
    return _plain(zero, bar, element("circle", cx=mean, cy=middle, r=4, class_=kind))


def router_panel(
    identifier: str, layer: str, curve: Mapping[str, Any], low: float
) -> str:
    """Router probability by rank of the expert, on a log scale, with its band.

    Args:
      identifier: of the drawing, unique on the page.
      layer: its name.
      curve: "mean", "low" and "high", a probability for each rank, the best first.
      low: where the axis begins; less than that is drawn there.
    """
    columns = {
        name: [float(v) for v in curve[name]] for name in ("mean", "low", "high")
    }
    experts = len(columns["mean"])
    x = Axis(1, experts, 40, PANEL_WIDTH - 10)
    y = Axis(low, 1, PANEL_HEIGHT - 30, 12, log=True)
    places = {
        name: [
            f"{x(rank + 1):.1f} {y(min(1, max(low, value))):.1f}"
            for rank, value in enumerate(values)
        ]
        for name, values in columns.items()
    }
    band = "L".join(places["high"] + places["low"][::-1])
    best, last = columns["mean"][0], columns["mean"][-1]
    return drawing(
        identifier,
        f"router probability by rank in {layer}",
        f"mean {best:.3g} at rank 1, {last:.3g} at rank {experts}",
        PANEL_WIDTH,
        PANEL_HEIGHT,
        *_decades(low, y),
        label(x(1), y.start + 15, "1", "start"),
        label(x.stop, y.start + 15, str(experts), "end") if experts > 1 else "",
        element("path", d=f"M{band}Z", class_="band"),
        element("path", d="M" + "L".join(places["mean"]), class_="line"),
    )


def router_floor(router: Mapping[str, Mapping[str, Any]]) -> float:
    """The power of ten at which all panels begin: below the least mean above 0.

    Bands may reach further down; a few tokens without a chance for an expert would
    else press all curves together.
    """
    means = (float(v) for curve in router.values() for v in curve["mean"])
    least = min((v for v in means if v > 0), default=0.1)
    return 10.0 ** min(-1, math.floor(math.log10(least)))


def _by_counts(problems: Sequence[str], a: RunSummary, b: RunSummary):
    """(counts of a and b, ids of the problems that have them), most problems first."""
    found: dict[tuple[int, int], list[str]] = defaultdict(list)
    for problem, at in zip(problems, zip(a.right, b.right, strict=True), strict=True):
        found[at].append(problem)
    # Small circles last, so that a large one does not hide them.
    return sorted(found.items(), key=lambda item: -len(item[1]))


def _circle(at: tuple[int, int], ids: list[str], x: Axis, y: Axis, colour: str) -> str:
    radius = min(2.6 * math.sqrt(len(ids)), 15)
    left = len(ids) - NAMED
    named = ", ".join(map(shortened, ids[:NAMED])) + (
        f" and {left} more" if left > 0 else ""
    )
    hint = f"{at[0]} right across, {at[1]} up: {counted(len(ids), 'problem')} ({named})"
    parts = [
        element("title", text(hint)),
        element("circle", r=radius, class_="problems"),
        label(0, 3.6, str(len(ids)), kind="count") if radius >= 7 else "",
    ]
    place = f"translate({x(at[0]):.2f} {y(at[1]):.2f})"
    return element("g", *parts, transform=place, class_=colour)


def _scatter_axes(a: RunSummary, b: RunSummary, x: Axis, y: Axis) -> Iterator[str]:
    for count in _whole(a.n, 6):
        yield label(x(count), SQUARE - 32, str(count))
    for count in _whole(b.n, 6):
        yield label(44, y(count) + 4, str(count), "end")
    middle = (x.start + x.stop) / 2
    yield label(middle, SQUARE - 10, shortened(a.name), kind="title")
    turned = label(0, 0, shortened(b.name), kind="title")
    yield element(
        "g", turned, transform=f"translate(14 {(y.start + y.stop) / 2}) rotate(-90)"
    )


def _whole(last: int, most: int) -> list[int]:
    """Round whole numbers from 0 on, with `last` at the end."""
    inner = [int(v) for v in ticks(0, last, most) if v == int(v) and v < last]
    # One too near to the last would be written into it.
    return [v for v in inner if last - v > 0.12 * last] + [last]


def _level(level: float, start: float, stop: float, y: Axis) -> str:
    at = y(level)
    grid = element("line", x1=start, y1=at, x2=stop, y2=at, class_="grid")
    return grid + label(start - 6, at + 4, f"{level:g}", "end")


def _decades(low: float, y: Axis) -> Iterator[str]:
    exponents = range(round(math.log10(low)), 1)
    step = math.ceil(len(exponents) / 5)
    for exponent in reversed(exponents[::-1][::step]):
        # Beyond 3 decimals a power is shorter.
        content = f"{10.0**exponent:g}" if exponent > -4 else f"1e{MINUS}{-exponent}"
        at = y(10.0**exponent)
        yield element("line", x1=40, y1=at, x2=PANEL_WIDTH - 10, y2=at, class_="grid")
        yield label(35, at + 4, content, "end")


def _plain(*inner: str) -> str:
    """A drawing whose numbers stand beside it already."""
    box = f"0 0 {FOREST_WIDTH} {FOREST_HEIGHT}"
    return element("svg", *inner, viewBox=box, class_="forest", aria_hidden="true")
