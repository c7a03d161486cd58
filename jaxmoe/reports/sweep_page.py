"""A sweep as one HTML file: heat maps, and a row for every configuration."""

from collections.abc import Sequence
from typing import Any

from jaxmoe.evals.comparison import Comparison
from jaxmoe.evals.sweeps import Point
from jaxmoe.reports import report_words as words
from jaxmoe.reports.comparison_charts import Chart
from jaxmoe.reports.comparison_page import aligned, flattened, scope
from jaxmoe.reports.page import render_page
from jaxmoe.reports.plots import has_matplotlib

NOTES = (
    "Intervals: 95 %, Student's t with the spread over problems, or groups of those "
    "that are alike, and problems made up at both ends of the scale. Differences are "
    "from topk at the same temperature, paired by problem.",
    "p: permutation test, after Holm's correction over all comparisons of the sweep. "
    "Of many configurations the best one looks better than it is: try it on other "
    "problems.",
)


def render(
    points: Sequence[Point],
    found: Comparison,
    measures: Sequence[str],
    maps: Sequence[Chart],
) -> str:
    """The page; equal arguments give equal text.

    Args:
      points: of the sweep, in the order of the comparison's runs.
      found: what `jaxmoe.evals.sweeps.compare_points` returns.
      measures: that have columns, where the runs have them.
      maps: heat maps.
    """
    shown = [m for m in measures if any(m in run.measures for run in found.runs)]
    head = ["configuration"]
    for measure in shown:
        head += [f"{measure} (%)", "difference (points)", "p (Holm)"]
    return render_page(
        "sweep.html",
        title=f"A sweep on {found.task}",
        task=found.task,
        scope=scope(found),
        head=head,
        rows=_rows(points, found, shown),
        maps=maps,
        settings=_same_in_all(found),
        charts_possible=has_matplotlib(),
        notes=NOTES,
        date=None,
    )


def _rows(
    points: Sequence[Point], found: Comparison, measures: Sequence[str]
) -> list[dict[str, Any]]:
    """A row for each configuration: each measure, its difference, and p."""
    columns: list[list[Any]] = []
    for measure in measures:
        values = [run.measures.get(measure) for run in found.runs]
        known = {d.b: d for d in found.differences if d.measure == measure}
        each = [known.get(run.name) for run in found.runs]
        gaps = [d.interval if d else None for d in each]
        columns += [aligned(values), aligned(gaps, words.points)]
        columns.append([_p_value(d.adjusted) if d else None for d in each])
    return [
        {"name": point.name, "cells": cells}
        for point, cells in zip(points, zip(*columns, strict=True), strict=True)
    ]


def _p_value(p: float) -> tuple[str, str]:
    return words.p_value(p).removeprefix("= "), ""


def _same_in_all(found: Comparison) -> list[tuple[str, str]]:
    """What was the same in all runs; the rest is in the names of configurations."""
    first, *others = [flattened(run.about) for run in found.runs]
    return [
        (name, value)
        for name, value in first.items()
        if value != "null" and all(other.get(name) == value for other in others)
    ]
