"""Charts as SVG within HTML: axes, and curves with bands. Colours come from the style.

Lengths are units of the drawing, which the page scales to the width it has.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from jaxmoe.evals.comparison import Curve
from jaxmoe.evals.metrics import Interval
from jaxmoe.reports.html_parts import element, text
from jaxmoe.reports.report_words import is_finite, percent

COLOURS = 6
"""How many of them report_style.css has; further runs repeat them in other styles."""
MARKS = (
    "M-3.4 0a3.4 3.4 0 1 0 6.8 0a3.4 3.4 0 1 0 -6.8 0Z",  # circle
    "M-3.1 -3.1H3.1V3.1H-3.1Z",  # square
    "M0 -4.2L4 3H-4Z",  # triangle
    "M0 -4.4L4.4 0L0 4.4L-4.4 0Z",  # diamond
    "M0 4.2L4 -3H-4Z",  # triangle on its tip
    "M-1.4 -4.2H1.4V-1.4H4.2V1.4H1.4V4.2H-1.4V1.4H-4.2V-1.4H-1.4Z",  # plus
)
DASHES = (None, "7 3", "2 2.5", "10 3 2 3", "14 4", "5 2 1.5 2 1.5 2")

WIDTH, HEIGHT = 440, 290
TOP, RIGHT, BOTTOM, LEFT = 28, 16, 44, 42
LABEL_LENGTH = 16
"""Longer names stand in the legend alone."""
LABEL_GAP = 13
LABEL_SHIFT = 10
"""How far a label may be from the end of its line."""
LETTER = 6.4
"""Width of a letter, at most, nearly always."""


@dataclass(frozen=True)
class Line:
    """A curve of the run at place `index`, which decides its colour and style."""

    index: int
    name: str
    curve: Curve


@dataclass(frozen=True)
class Axis:
    """Values low..high on start..stop of the drawing; all in the middle where equal."""

    low: float
    high: float
    start: float
    stop: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Where `value` is."""
        low, high = self.low, self.high
        if self.log:
            value, low, high = math.log2(value), math.log2(low), math.log2(high)
        share = (value - low) / (high - low) if high > low else 0.5
        return self.start + share * (self.stop - self.start)


def look(index: int) -> tuple[str, str | None, str]:
    """Class (colour), dashes and mark of a run; no two of the first 36 are alike."""
    turn, colour = divmod(index, COLOURS)
    style = (colour + turn) % len(MARKS)
    return f"run-{colour}", DASHES[style], MARKS[style]


def swatch(index: int) -> str:
    """A piece of a run's line, for legends and the heads of tables."""
    colour, dashes, mark = look(index)
    line = element(
        "line", x1=1, y1=6, x2=33, y2=6, class_="line", stroke_dasharray=dashes
    )
    point = element("path", d=mark, transform="translate(17 6)", class_="mark")
    return element(
        "svg",
        line,
        point,
        class_=f"swatch {colour}",
        viewBox="0 0 34 12",
        aria_hidden="true",
    )


def drawing(
    identifier: str,
    title: str,
    description: str,
    width: float,
    height: float,
    *inner: str,
) -> str:
    """An SVG that says what it shows to those who do not see it."""
    return element(
        "svg",
        element("title", text(title), id=f"{identifier}-title"),
        element("desc", text(description), id=f"{identifier}-desc"),
        *inner,
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        aria_labelledby=f"{identifier}-title {identifier}-desc",
        class_="chart",
    )


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """At most `most` round numbers, the first not above low, the last not below high.

    Their step is 1, 2 or 5 times a power of ten, the smallest that does it.
    """
    span = (high - low) or abs(high) or 1.0
    power = math.floor(math.log10(span)) - 1
    for step in (f * 10.0 ** (power + e) for e in range(4) for f in (1, 2, 5)):
        # A bound that is a tick but for rounding is one.
        first = math.floor(low / step + 1e-9)
        last = max(math.ceil(high / step - 1e-9), first + 1)
        if last - first < most:
            return [float(f"{i * step:.12g}") for i in range(first, last + 1)]
    raise AssertionError("the last step is larger than the span")


def powers_of_two(low: int, high: int) -> list[int]:
    """Those within low..high; both bounds where there are none."""
    exponents = range(math.ceil(math.log2(low)), math.floor(math.log2(high)) + 1)
    return [2**exponent for exponent in exponents] or sorted({low, high})


def label(x: float, y: float, content: str, anchor: str = "middle", kind: str = "tick"):
    """A text at x, y; `content` is plain."""
    return element("text", text(content), x=x, y=y, text_anchor=anchor, class_=kind)


def curve_chart(identifier: str, title: str, lines: Sequence[Line]) -> str:
    """Curves in percent over the number of answers on a log2 axis, with their bands.

    Where an interval is no number, the line has a gap.

    Args:
      identifier: of the drawing, unique on the page.
      title: what is drawn.
      lines: one for each run that has the curve.

    Raises:
      ValueError: no interval that is a number.
    """
    points = [p for line in lines for p in _points(line.curve) if is_finite(p[1])]
    if not points:
        raise ValueError(
            f"{title} needs at least one interval to draw, found none that is a "
            "number; leave the curve out"
        )
    counts = [k for k, _ in points]
    named = max(len(line.name) for line in lines) <= LABEL_LENGTH
    room = 10 + LETTER * max(len(line.name) for line in lines) if named else RIGHT
    low = 100 * min(interval.low for _, interval in points)
    high = 100 * max(interval.high for _, interval in points)
    levels = ticks(low, high)
    x = Axis(min(counts), max(counts), LEFT + 10, WIDTH - room - 4, log=True)
    y = Axis(levels[0], levels[-1], HEIGHT - BOTTOM, TOP)
    alone = min(counts) == max(counts)  # in the middle, far from any label
    # All bands together hide no more of the paper than a quarter.
    opacity = min(0.16, 1 - 0.75 ** (1 / len(lines)))
    places = _label_places(lines, y) if named and not alone else {}
    if not places:
        x = Axis(x.low, x.high, x.start, WIDTH - RIGHT - 4, log=True)
    parts = [
        *_grid(levels, y, x.stop + 4),
        *_counts_axis(x, y.start, powers_of_two(min(counts), max(counts))),
        label(LEFT - 30, 14, "percent", "start", "title"),
        *(_band(line, x, y, opacity) for line in lines),
        *(_stroke(line, x, y) for line in lines),
        *(
            label(x.stop + 10, places[l.index] + 4, l.name, "start")
            for l in lines
            if places
        ),
    ]
    heading = f"{title} over the number of answers per problem"
    description = "; ".join(map(_in_words, lines))
    return drawing(identifier, heading, description, WIDTH, HEIGHT, *parts)


def _points(curve: Curve) -> Iterator[tuple[int, Interval]]:
    return zip(curve.ks, curve.intervals, strict=True)


def _runs_of_points(curve: Curve) -> list[list[tuple[int, Interval]]]:
    """The curve's points in stretches without a gap."""
    stretches: list[list[tuple[int, Interval]]] = [[]]
    for k, interval in _points(curve):
        if is_finite(interval):
            stretches[-1].append((k, interval))
        else:
            stretches.append([])
    return [stretch for stretch in stretches if stretch]


def _in_words(line: Line) -> str:
    stretches = _runs_of_points(line.curve)
    if not stretches:
        return f"{line.name}: no values"
    ends = dict([stretches[0][0], stretches[-1][-1]])
    shown = (f"{interval} at {k}" for k, interval in ends.items())
    return f"{line.name}: " + ", ".join(shown)


def _grid(levels: Sequence[float], y: Axis, stop: float) -> Iterator[str]:
    for level in levels:
        at = y(level)
        yield element("line", x1=LEFT, y1=at, x2=stop, y2=at, class_="grid")
        yield label(LEFT - 6, at + 4, f"{level:g}", "end")


def _counts_axis(x: Axis, at: float, counts: Sequence[int]) -> Iterator[str]:
    yield element("line", x1=LEFT, y1=at, x2=x.stop + 4, y2=at, class_="axis")
    for count in counts:
        place = x(count)
        yield element("line", x1=place, y1=at, x2=place, y2=at + 4, class_="axis")
        yield label(place, at + 17, str(count))
    yield label((x.start + x.stop) / 2, at + 36, "answers per problem", kind="title")


def _band(line: Line, x: Axis, y: Axis, opacity: float) -> str:
    """The band; a bar where a point stands alone."""
    colour, _, _ = look(line.index)
    parts = []
    for stretch in _runs_of_points(line.curve):
        upper = [(x(k), y(100 * interval.high)) for k, interval in stretch]
        lower = [(x(k), y(100 * interval.low)) for k, interval in stretch]
        if len(stretch) == 1:
            (at, top), (_, bottom) = upper[0], lower[0]
            parts.append(element("line", x1=at, y1=top, x2=at, y2=bottom, class_="bar"))
        else:
            edge = {"class_": "band", "fill_opacity": f"{opacity:.3f}"}
            parts.append(element("path", d=_path(upper + lower[::-1]) + "Z", **edge))
    return element("g", *parts, class_=colour)


def _stroke(line: Line, x: Axis, y: Axis) -> str:
    """The line and its points, each with a title to be seen by pointing at it."""
    colour, dashes, mark = look(line.index)
    parts = []
    for stretch in _runs_of_points(line.curve):
        places = [(x(k), y(100 * interval.mean)) for k, interval in stretch]
        if len(places) > 1:
            path = {"class_": "line", "stroke_dasharray": dashes}
            parts.append(element("path", d=_path(places), **path))
        for (k, interval), (across, up) in zip(stretch, places, strict=True):
            mean, bounds = percent(interval)
            hint = f"{line.name}, {k} answers: {mean} % {bounds}"
            parts.append(
                element(
                    "g",
                    element("title", text(hint)),
                    element("circle", r=9, class_="hit"),
                    element("path", d=mark, class_="mark"),
                    transform=f"translate({across:.2f} {up:.2f})",
                )
            )
    return element("g", *parts, class_=colour)


def _path(places: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{across:.2f} {up:.2f}" for across, up in places)


def _label_places(lines: Sequence[Line], y: Axis) -> dict[int, float]:
    """Run -> height of its label beside the end of its line; {} where they collide.

    Labels that are too near are moved apart; where one would then be far from its
    line, or a line ends before the others, none is drawn: the legend has them all.
    """
    last = max(line.curve.ks[-1] for line in lines)
    ends = {
        line.index: y(100 * line.curve.intervals[-1].mean)
        for line in lines
        if line.curve.ks[-1] == last and is_finite(line.curve.intervals[-1])
    }
    if len(ends) < len(lines):
        return {}
    order = sorted(ends, key=ends.__getitem__)
    places = dict(ends)
    for _ in order:  # each round settles at least one more pair
        for above, below in pairwise(order):
            overlap = LABEL_GAP - (places[below] - places[above])
            if overlap > 1e-6:
                places[above] -= overlap / 2
                places[below] += overlap / 2
    apart = all(places[b] - places[a] > LABEL_GAP - 1 for a, b in pairwise(order))
    near = all(abs(places[i] - ends[i]) <= LABEL_SHIFT for i in order)
    return places if apart and near else {}
