"""Charts of a comparison: what is drawn stands where its number says."""

import math

import numpy as np
import pytest

from jaxmoe.evals.comparison import Comparison, Curve, Difference, RunSummary
from jaxmoe.evals.metrics import Interval
from jaxmoe.reports import comparison_charts as charts
from jaxmoe.reports import plots
from jaxmoe.reports.plots import look_of

NAN = Interval(math.nan, math.nan, math.nan)


def _run(name, right=(), n=4, **curves):
    return RunSummary(name, {}, n, {}, {}, curves, tuple(right))


def _comparison(*runs, differences=()):
    ids = tuple(f"p{j}" for j in range(len(runs[0].right)))
    return Comparison("math", ids, len(ids), runs, tuple(differences), ())


@pytest.fixture
def figures(matplotlib, monkeypatch):
    """Figures as they were when they would have been put into a page."""
    kept = []
    monkeypatch.setattr(plots, "_save", lambda figure, path: kept.append(figure))
    return kept


def test_sides_are_counted_by_share():
    """A run with more answers to each would always look better."""
    a, b = _run("a", (1, 2, 3, 0), n=4), _run("b", (2, 3, 7, 0), n=8)
    assert charts.sides(a, b) == (1, 2, 1)
    said = charts.sides_in_words(a, b)
    assert "on 1 problem," in said and "on 2, " in said and "on 1." in said


def test_problems_with_equal_counts_are_one_circle(figures):
    """A problem would be drawn at the counts of another, or hide beneath one."""
    a, b = _run("a", (0, 4, 4, 4, 4, 4, 1)), _run("b", (2, 3, 3, 3, 3, 3, 1))
    charts.problems(_comparison(a, b))
    (axes,) = figures[0].axes
    filled, edges = axes.collections
    for circles in (filled, edges):
        places = [tuple(map(float, at)) for at in circles.get_offsets()]
        areas = dict(zip(places, circles.get_sizes() / 28, strict=True))
        assert areas == {(0, 2): 1, (4, 3): 5, (1, 1): 1}
    assert [text.get_text() for text in axes.texts] == ["5"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("a", "b")


@pytest.mark.parametrize("n", [0, 4])
def test_runs_without_problems_or_answers_are_drawn(matplotlib, recwarn, n):
    """A report of a run that has nothing yet would end in a traceback."""
    runs = [_run(name, () if n else (0, 0), n=n) for name in "ab"]
    for comparison in (_comparison(*runs), _comparison(runs[0])):
        assert charts.problems(comparison)
    assert not recwarn.list


def test_a_run_alone_has_its_counts(figures):
    """Problems without a right answer would be left out."""
    charts.problems(_comparison(_run("a", (0, 0, 4, 1))))
    bars = {
        round(bar.get_x() + 0.4): bar.get_height() for bar in figures[0].axes[0].patches
    }
    assert bars == {0: 2, 1: 1, 2: 0, 3: 0, 4: 1}


def test_curves_have_the_looks_of_their_runs(figures):
    """The third run would be drawn in the colour that the tables give to the second."""
    curve = Curve((1, 2, 4), (Interval(0.5, 0.4, 0.6), NAN, Interval(0.7, 0.6, 0.8)))
    runs = [_run("a", **{"pass@k": curve}), _run("b"), _run("c", **{"pass@k": curve})]
    made = charts.curve("curve-0", _comparison(*runs), "pass@k")
    lines = figures[0].axes[0].get_lines()
    assert [line.get_color() for line in lines] == [look_of(i)["color"] for i in (0, 2)]
    np.testing.assert_allclose(lines[0].get_ydata(), [50, np.nan, 70])
    (legend,) = figures[0].legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "c"]
    assert "pass@k" in made.caption


def test_differences_share_an_axis_by_measure(figures):
    """A small difference would look as large as one on another axis."""
    differences = [
        Difference("a", name, measure, interval, 0.5, True)
        for name, measure, interval in (
            ("b", "accuracy", Interval(0.01, -0.02, 0.04)),
            ("c", "accuracy", Interval(0.2, 0.1, 0.3)),
            ("b", "pass@2", Interval(0.0, 0.0, 0.0)),
            ("c", "pass@2", NAN),
        )
    ]
    made = charts.differences(_comparison(_run("a"), differences=differences))
    assert len(made) == len(figures) == 2
    names = [[t.get_text() for t in f.axes[0].get_yticklabels()] for f in figures]
    assert names == [["b", "c"], ["b"]]
    (low, high), other = (f.axes[0].get_xlim() for f in figures)
    assert (low, high) == other
    assert low < -2 and high > 30


def test_one_pair_has_one_chart(figures):
    """Each measure would have a chart of its own, with a single line in it."""
    differences = [
        Difference("a", "b", measure, Interval(0.1, 0.0, 0.2), 0.5, True)
        for measure in ("accuracy", "pass@2")
    ]
    charts.differences(_comparison(_run("a"), differences=differences))
    (axes,) = figures[0].axes
    assert [t.get_text() for t in axes.get_yticklabels()] == ["accuracy", "pass@2"]
    assert figures[0].get_suptitle() == "b less a"


@pytest.mark.parametrize("parts", [(0, 0, 0), (3, 3, 2)])
def test_router_curves_need_all_parts(figures, parts):
    """A band would be drawn against the ranks of another."""
    names = ("mean", "low", "high")
    curve = {name: [0.1] * size for name, size in zip(names, parts, strict=True)}
    with pytest.raises(ValueError, match=r"layer 0 must .* found \[\d, \d, \d\]"):
        charts.routers({"layer 0": curve})
