"""The files of a sweep: all numbers as JSON, a page, heat maps as PNG."""

import json
from collections.abc import Sequence
from pathlib import Path

from jaxmoe.evals.comparison import Comparison
from jaxmoe.evals.sweeps import Point, panels_of
from jaxmoe.files import write_text
from jaxmoe.reports.comparison_charts import Chart, chart_of
from jaxmoe.reports.comparison_json import comparison_object
from jaxmoe.reports.heat_maps import NOTE, plot_heat_maps
from jaxmoe.reports.plots import Picture, has_matplotlib, require_matplotlib
from jaxmoe.reports.sweep_page import render


def write_sweep(out: Path, points: Sequence[Point], found: Comparison) -> None:
    """Writes sweep.json, sweep.html, and a heat map of each measure of a grid.

    Raises:
      ImportError: without matplotlib; all but the heat maps has been written.
    """
    swept = {point.name: point.values for point in points}
    text = json.dumps(comparison_object(found) | {"points": swept}, indent=1)
    write_text(out / "sweep.json", text)
    measures = ("accuracy", f"pass@{found.runs[0].n}")
    possible = has_matplotlib()
    maps = _heat_maps(out, points, found, measures) if possible else []
    write_text(out / "sweep.html", render(points, found, measures, maps))
    require_matplotlib()


def _heat_maps(
    out: Path, points: Sequence[Point], found: Comparison, measures: Sequence[str]
) -> list[Chart]:
    charts = []
    for measure in measures:
        made = panels_of(points, found, measure)
        if made is None:
            continue
        name = measure.replace("@", "_at_")
        title = f"{measure} of Expert-Sample less that of topk, percentage points"
        picture = Picture(name, title, out / f"{name}.png")
        plot_heat_maps(
            made.panels,
            picture,
            x=("tau", made.taus),
            y=("k_keep", made.keeps),
            title=title,
            bounds=made.bounds,
        )
        charts.append(chart_of(picture, f"{title}, with 95 % intervals; {NOTE}."))
    return charts
