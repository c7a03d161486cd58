"""PNG of a comparison's curves: every run is there under its name."""

import dataclasses

import numpy as np
import pytest

from jaxmoe.evals.comparison import Comparison, Curve, RunSummary
from jaxmoe.evals.metrics import Interval
from jaxmoe.reports import plots
from jaxmoe.reports.comparison_figures import plot_pass_curves


def _comparison(*names):
    runs = []
    for index, name in enumerate(names):
        means = (0.3 + index / 50, 0.5, 0.7)
        curve = Curve((1, 2, 4), tuple(Interval(m, m - 0.1, m + 0.1) for m in means))
        runs.append(RunSummary(name, {}, 4, {}, {}, {"pass@k": curve}, (1,)))
    return Comparison("math", ("p",), 1, tuple(runs), (), ())


@pytest.fixture
def figures(matplotlib, monkeypatch):
    """Figures as they were when they would have been saved."""
    kept = []
    monkeypatch.setattr(plots, "_save", lambda figure, path: kept.append(figure))
    return kept


def _legend(figure):
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def test_writes_one_png(matplotlib, tmp_path):
    """There would be no picture, or one whose text is taken for a formula."""
    path = tmp_path / "figure.png"
    plot_pass_curves(_comparison("top-k", "$\\frac{1}{", "long " * 60), path)
    assert path.read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert list(tmp_path.iterdir()) == [path]


def test_lines_are_those_of_the_runs(figures, tmp_path):
    """A run would be drawn under the name of another."""
    comparison = _comparison("a", "b")
    plot_pass_curves(comparison, tmp_path / "figure.png", title="Title")
    (axes,) = figures[0].axes
    assert axes.get_title(loc="left") == "Title"
    assert _legend(figures[0]) == ["a", "b"]
    for line, run in zip(axes.get_lines(), comparison.runs, strict=True):
        means = [100 * i.mean for i in run.curves["pass@k"].intervals]
        np.testing.assert_allclose(line.get_ydata(), means)


@pytest.mark.parametrize(
    "name, shown",
    [
        ("_base", " _base"),
        ("$x$", "$x$"),
        ("a\x00b", "a\ufffdb"),
        ("", "(no name)"),
        ("x" * 100, "x" * 70 + "\n" + "x" * 30),
    ],
)
def test_every_name_is_in_the_legend(figures, tmp_path, name, shown):
    """The library leaves out names with an underscore; others change or are cut."""
    plot_pass_curves(_comparison("top-k", name), tmp_path / "figure.png")
    assert _legend(figures[0]) == ["top-k", shown]


def test_names_that_look_alike_are_both_drawn(figures, tmp_path):
    """One of two runs would take the place of the other."""
    plot_pass_curves(_comparison("a\x00", "a\x01"), tmp_path / "figure.png")
    assert len(figures[0].axes[0].get_lines()) == 2


def test_runs_without_the_curve_are_left_out(figures, tmp_path):
    """A run with one answer each would stop the figure of the others."""
    comparison = _comparison("a", "b")
    bare = dataclasses.replace(comparison.runs[1], curves={"other": Curve((), ())})
    mixed = dataclasses.replace(comparison, runs=(comparison.runs[0], bare))
    plot_pass_curves(mixed, tmp_path / "figure.png")
    assert _legend(figures[0]) == ["a"]
    none = dataclasses.replace(comparison, runs=(bare,))
    with pytest.raises(ValueError, match="with the curve pass@k, found other"):
        plot_pass_curves(none, tmp_path / "figure.png")
