"""Charts: what is drawn stands where its number says."""

import math
import re
import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import pytest

from jaxmoe.evals.comparison import Comparison, Curve, Difference, RunSummary
from jaxmoe.evals.metrics import Interval
from jaxmoe.reports.svg_chart import (
    DASHES,
    MARKS,
    Axis,
    Line,
    curve_chart,
    look,
    powers_of_two,
    ticks,
)
from jaxmoe.reports.svg_panels import (
    forest_axis,
    forest_row,
    histogram,
    router_floor,
    router_panel,
    scatter,
    sides,
)

NAN = Interval(math.nan, math.nan, math.nan)


def _curve(*means, ks=None):
    ks = ks or tuple(2**i for i in range(len(means)))
    return Curve(ks, tuple(Interval(m, m - 0.05, m + 0.05) for m in means))


def _run(name, right, n):
    return RunSummary(name, {}, n, {}, {}, {}, tuple(right))


def _parsed(svg):
    return ElementTree.fromstring(svg)


def _of(svg, tag, kind):
    return [node for node in svg.iter(tag) if kind in (node.get("class") or "").split()]


def _numbers(path):
    """The points of a path of straight lines."""
    return [
        tuple(map(float, pair.split()))
        for pair in re.split("[ML]", path.rstrip("Z"))[1:]
    ]


def _hints(svg):
    """Hint of each point -> where it is."""
    return {
        node.find("title").text: tuple(
            map(float, re.findall(r"-?[\d.]+", node.get("transform")))
        )
        for node in svg.iter("g")
        if node.find("title") is not None
    }


def _texts(svg):
    return [node.text for node in svg.iter("text")]


# -- scales --------------------------------------------------------------------------


@pytest.mark.parametrize("low", [0, 0.3, 41.2, 99.9, -3.7, -0.0004])
@pytest.mark.parametrize("span", [0, 0.0007, 0.3, 1, 4.9, 55, 100])
def test_ticks_are_round_few_and_around_all(low, span):
    """Points would lie outside the axis, or its numbers be written over each other."""
    found = ticks(low, low + span)
    assert 2 <= len(found) <= 6
    assert found[0] <= low + 1e-9
    assert found[-1] >= low + span - 1e-9
    step = found[1] - found[0]
    for a, b in pairwise(found):
        assert b - a == pytest.approx(step)
    digits = f"{step:.1e}"[:3]
    assert digits in ("1.0", "2.0", "5.0")


def test_ticks_use_their_room():
    """An axis would reach far beyond what is drawn on it."""
    assert ticks(0, 100) == [0, 20, 40, 60, 80, 100]
    assert ticks(41, 58) == [40, 45, 50, 55, 60]
    assert ticks(0.1, 0.3) == [0.1, 0.15, 0.2, 0.25, 0.3]


@pytest.mark.parametrize(
    "low, high, expected",
    [(1, 32, [1, 2, 4, 8, 16, 32]), (3, 10, [4, 8]), (1, 1, [1]), (5, 7, [5, 7])],
)
def test_powers_of_two(low, high, expected):
    """The axis of n would have numbers outside of it, or none."""
    assert powers_of_two(low, high) == expected


def test_axis_places_values():
    """Values would stand at others' places; a single value nowhere."""
    assert Axis(0, 10, 100, 200)(5) == 150
    assert Axis(0, 10, 200, 100)(10) == 100
    assert Axis(1, 16, 0, 100, log=True)(4) == 50
    assert Axis(3, 3, 0, 100)(3) == 50


def test_looks_differ():
    """Two runs would look alike, in colours or in grey."""
    looks = [look(index) for index in range(36)]
    assert len(set(looks)) == 36
    # Of six runs, colour, dashes and mark each tell them apart on their own.
    for part in zip(*looks[:6], strict=True):
        assert len(set(part)) == 6
    assert len(DASHES) == len(MARKS) == 6


# -- curves --------------------------------------------------------------------------


def test_points_stand_where_their_numbers_say():
    """The drawing would show other numbers than the tables."""
    lines = [Line(0, "a", _curve(0.2, 0.4, 0.8)), Line(1, "b", _curve(0.3, 0.4, 0.5))]
    svg = _parsed(curve_chart("c", "pass@k", lines))
    hints = _hints(svg)
    assert len(hints) == 6
    x1, y20 = hints["a, 1 answers: 20.0 % [15.0, 25.0]"]
    x2, y40 = hints["a, 2 answers: 40.0 % [35.0, 45.0]"]
    x4, y80 = hints["a, 4 answers: 80.0 % [75.0, 85.0]"]
    assert x4 - x2 == pytest.approx(x2 - x1, abs=0.02)
    assert y40 - y80 == pytest.approx(2 * (y20 - y40), abs=0.03)
    for (x, y), (hint, place) in zip(
        _numbers(_of(svg, "path", "line")[0].get("d")), hints.items(), strict=False
    ):
        assert hint.startswith("a,")
        assert (x, y) == pytest.approx(place, abs=0.01)
    band = _numbers(_of(svg, "path", "band")[0].get("d"))
    unit = (y20 - y40) / 20
    heights = [y for _, y in band]
    assert heights[:3] == pytest.approx(
        [y - 5 * unit for y in (y20, y40, y80)], abs=0.02
    )
    assert heights[3:] == pytest.approx(
        [y + 5 * unit for y in (y80, y40, y20)], abs=0.02
    )


def test_curves_lie_within_the_axes():
    """A band would run over the words around the chart."""
    lines = [Line(i, f"run {i}", _curve(0.05, 0.5, 0.95)) for i in range(6)]
    svg = _parsed(curve_chart("c", "pass@k", lines))
    width, height = map(float, svg.get("viewBox").split()[2:])
    for path in _of(svg, "path", "band"):
        for x, y in _numbers(path.get("d")):
            assert 42 <= x <= width
            assert 28 - 0.01 <= y <= height - 44 + 0.01


def test_a_gap_stays_a_gap():
    """A line across what was not measured would be read as a measurement."""
    known = _curve(0.2, 0.3, 0.4, 0.5, 0.6)
    intervals = (*known.intervals[:2], NAN, *known.intervals[3:])
    svg = _parsed(curve_chart("c", "x", [Line(0, "a", Curve(known.ks, intervals))]))
    assert [len(_numbers(p.get("d"))) for p in _of(svg, "path", "line")] == [2, 2]
    assert [len(_numbers(p.get("d"))) for p in _of(svg, "path", "band")] == [4, 4]
    assert len(_hints(svg)) == 4


def test_a_single_point_has_a_bar():
    """With one answer each there would be no interval to see."""
    svg = _parsed(curve_chart("c", "pass@k", [Line(0, "a", _curve(0.5))]))
    (bar,) = _of(svg, "line", "bar")
    top, bottom = float(bar.get("y1")), float(bar.get("y2"))
    ((_, y),) = _hints(svg).values()
    assert top < y < bottom
    assert "a" not in _texts(svg)


def test_labels_stand_beside_their_lines_unless_they_collide():
    """A label would name another line, or be written over another label."""
    apart = [Line(0, "low", _curve(0.1, 0.2)), Line(1, "high", _curve(0.5, 0.9))]
    svg = _parsed(curve_chart("c", "x", apart))
    heights = {node.text: float(node.get("y")) for node in svg.iter("text")}
    ends = _hints(svg)
    for name, hint in (
        ("low", "low, 2 answers: 20.0 % [15.0, 25.0]"),
        ("high", "high, 2 answers: 90.0 % [85.0, 95.0]"),
    ):
        assert heights[name] - 4 == pytest.approx(ends[hint][1], abs=0.1)
    near = [Line(i, f"run {i}", _curve(0.1, 0.5 + i / 500)) for i in range(6)]
    assert not set(_texts(_parsed(curve_chart("c", "x", near)))) & {"run 0", "run 5"}
    long = [Line(0, "a name that is too long", _curve(0.1, 0.5))]
    assert long[0].name not in _texts(_parsed(curve_chart("c", "x", long)))


def test_moved_labels_do_not_overlap():
    """Two labels that were moved apart would still be on each other."""
    lines = [Line(i, f"r{i}", _curve(0.1, 0.5 + i / 50)) for i in range(3)]
    svg = _parsed(curve_chart("c", "x", lines))
    heights = sorted(
        float(n.get("y")) for n in svg.iter("text") if n.text in ("r0", "r1", "r2")
    )
    assert len(heights) == 3
    assert all(b - a >= 12 for a, b in pairwise(heights))


def test_refuses_a_chart_of_nothing():
    """An empty chart would be taken for a result."""
    with pytest.raises(ValueError, match="found none that is a number"):
        curve_chart("c", "pass@k", [Line(0, "a", Curve((1,), (NAN,)))])


# -- smaller drawings ----------------------------------------------------------------


def test_scatter_counts_problems_at_their_places():
    """A problem would be at other counts, or be missing."""
    a, b = _run("a", [0, 0, 4, 2], 4), _run("b", [0, 0, 8, 8], 8)
    comparison = Comparison("t", ("p", "q", "r", "s"), 4, (a, b), (), ())
    svg = _parsed(scatter("s", comparison, 0, 1))
    hints = _hints(svg)
    x0, y0 = hints["0 right across, 0 up: 2 problems (p, q)"]
    x4, y8 = hints["4 right across, 8 up: 1 problem (r)"]
    x2, again = hints["2 right across, 8 up: 1 problem (s)"]
    assert again == y8 < y0
    assert x2 == pytest.approx((x0 + x4) / 2, abs=0.02)
    radii = sorted(float(n.get("r")) for n in _of(svg, "circle", "problems"))
    assert radii[2] ** 2 == pytest.approx(2 * radii[0] ** 2, rel=0.01)


def test_sides_compare_shares():
    """A run with more answers would look better for having them."""
    a, b = _run("a", [0, 2, 4, 3], 4), _run("b", [0, 4, 7, 8], 8)
    assert sides(a, b) == (1, 2, 1)


def test_histogram_counts_problems():
    """A bar would have another height than its number of problems."""
    svg = _parsed(histogram("h", _run("a", [0, 0, 0, 0, 2, 2, 3], 3)))
    bars = _of(svg, "rect", "column")
    found = {bar.find("title").text: float(bar.get("height")) for bar in bars}
    unit = found["1 problem with 3 right"]
    assert found["2 problems with 2 right"] == pytest.approx(2 * unit, abs=0.03)
    assert found["4 problems with 0 right"] == pytest.approx(4 * unit, abs=0.03)
    assert len(found) == 3


@pytest.mark.parametrize(
    "interval, p, hollow",
    [
        (Interval(0.02, 0.01, 0.03), 0.01, False),
        (Interval(0.02, -0.01, 0.05), 0.01, True),
        (Interval(0.02, 0.01, 0.03), 0.2, True),
    ],
)
def test_forest_fills_only_what_was_shown(interval, p, hollow):
    """A difference that may be 0 would look like one that is not."""
    difference = Difference("a", "b", "accuracy", interval, p, True)
    axis = forest_axis([difference])
    assert axis.low <= min(0, 100 * interval.low)
    assert axis.high >= 100 * interval.high
    svg = _parsed(forest_row(axis, difference))
    (point,) = svg.iter("circle")
    assert ("hollow" in point.get("class")) == hollow
    assert float(point.get("cx")) == pytest.approx(axis(2), abs=0.01)


def test_forest_without_numbers_shows_zero_alone():
    """One measure without a number would stop the whole table."""
    difference = Difference("a", "b", "accuracy", NAN, math.nan, True)
    svg = _parsed(forest_row(forest_axis([difference]), difference))
    assert not list(svg.iter("circle"))


def test_router_panels_share_their_axis():
    """Layers would each have a scale of their own, and look alike."""
    curve = {
        "mean": [0.5, 0.05, 0.004],
        "low": [0.4, 0.0, 0.0],
        "high": [0.6, 0.1, 0.1],
    }
    low = router_floor({"a": curve, "b": curve})
    assert low == pytest.approx(1e-3)
    svg = _parsed(router_panel("r", "a", curve, low))
    places = _numbers(_of(svg, "path", "line")[0].get("d"))
    decade = (places[1][1] - places[0][1]) / 1
    assert decade > 0  # 0.5 to 0.05 is one decade down
    expected = decade * math.log10(0.05 / 0.004)
    assert places[2][1] - places[1][1] == pytest.approx(expected, abs=0.2)
    heights = [y for _, y in _numbers(_of(svg, "path", "band")[0].get("d"))]
    assert all(math.isfinite(y) for y in heights)
    assert {"1", "3", "0.001"} <= set(_texts(svg))
