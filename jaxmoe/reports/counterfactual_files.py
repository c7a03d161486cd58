"""The files of counterfactual routes: JSON, CSV, a page, figures."""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from jaxmoe.analysis.counterfactual import Counterfactuals, Importance
from jaxmoe.evals.metrics import Interval
from jaxmoe.files import write_text
from jaxmoe.reports.comparison_charts import Chart, chart_of
from jaxmoe.reports.comparison_csv import csv_text
from jaxmoe.reports.counterfactual_figures import plot_counterfactuals, plot_importance
from jaxmoe.reports.counterfactual_table import (
    MEASURES,
    NOTE,
    importance_rows,
    rows,
    with_bounds,
)
from jaxmoe.reports.page import render_page
from jaxmoe.reports.plots import Picture, has_matplotlib, require_matplotlib

HEAD = ("layers", "tokens", "count", *MEASURES, "router")
CAPTIONS = {
    "counterfactual": (
        "Utility of other routes",
        "By layers that were changed, all tokens; and by the next token's entropy "
        "under the own route. Bars: 95 % intervals over prompts.",
    ),
    "importance": (
        "Importance of experts",
        "Log-probability lost where the expert of a rank is left out.",
    ),
}
"""Figure -> its heading and caption on the page."""


def write_counterfactual(
    out: Path,
    found: Counterfactuals | None,
    importance: Importance | None,
    *,
    digest: str,
    settings: Mapping[str, Any],
) -> None:
    """Writes counterfactual.json, .csv and .html, importance.csv, and figures.

    Args:
      out: a folder that is there.
      found, importance: what was measured; None: it was not.
      digest: of the checkpoint's weights.
      settings: how it was measured, for the page.

    Raises:
      ImportError: without matplotlib; all but the figures has been written.
    """
    results: dict[str, Any] = {"checkpoint": digest, "settings": dict(settings)}
    if found is not None:
        every = list(rows(found))
        results["rows"] = [_json(row) for row in every]
        cells = ([_cell(row[name]) for name in HEAD] for row in every)
        _csv(out / "counterfactual.csv", HEAD, map(_flat, cells))
    if importance is not None:
        each = list(importance_rows(importance))
        results["importance"] = [_json(row) for row in each]
        head = ("layer", "expert", "count", "loss")
        cells = ([_cell(row[name]) for name in head] for row in each)
        _csv(out / "importance.csv", head, map(_flat, cells))
    text = json.dumps(results, indent=1, allow_nan=False) + "\n"
    write_text(out / "counterfactual.json", text)
    charts = _drawn(out, found, importance) if has_matplotlib() else []
    page = _page(found, importance, charts, digest, settings)
    write_text(out / "counterfactual.html", page)
    require_matplotlib()


def _page(
    found: Counterfactuals | None,
    importance: Importance | None,
    charts: list[tuple[str, str, Chart]],
    digest: str,
    settings: Mapping[str, Any],
) -> str:
    """The page; equal arguments give equal text."""
    every = [] if found is None else list(rows(found))
    shown = [[_shown(row[name]) for name in HEAD] for row in every]
    experts = [] if importance is None else list(importance_rows(importance))
    experts.sort(key=lambda row: -row["loss"].mean)
    most = [[_shown(v) for v in row.values()] for row in experts[:MOST]]
    return render_page(
        "counterfactual.html",
        title="Counterfactual routes",
        checkpoint=digest,
        settings=[(name, str(value)) for name, value in settings.items()],
        head=list(HEAD),
        rows=shown,
        experts=most,
        all_experts=len(experts),
        figures=[
            {"name": name, "heading": heading, "chart": chart}
            for name, heading, chart in charts
        ],
        charts_possible=has_matplotlib(),
        notes=[NOTE],
        date=None,
    )


MOST = 32
"""Experts that the page shows, those whose loss is largest; the CSV file has all."""


def _drawn(
    out: Path, found: Counterfactuals | None, importance: Importance | None
) -> list[tuple[str, str, Chart]]:
    charts = []
    for name, (heading, caption) in CAPTIONS.items():
        picture = Picture(name, heading, out / f"{name}.png")
        if name == "counterfactual" and found is not None:
            plot_counterfactuals(found, picture, title=heading)
        elif name == "importance" and importance is not None:
            plot_importance(importance, picture, title=heading)
        else:
            continue
        charts.append((name, heading, chart_of(picture, caption)))
    return charts


def _json(row: Mapping[str, Any]) -> dict[str, Any]:
    named = {name: value for name, value in row.items() if name != "at"}
    return {name: _bounds(value) for name, value in named.items()}


def _bounds(value: Any) -> Any:
    """An interval as [mean, low, high], null where there is none."""
    if not isinstance(value, Interval):
        return value
    three = (value.mean, value.low, value.high)
    return [number if math.isfinite(number) else None for number in three]


def _shown(value: Any) -> str:
    if isinstance(value, Interval):
        return with_bounds(value) if math.isfinite(value.mean) else "n/a"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _cell(value: Any) -> Any:
    return (
        (value.mean, value.low, value.high) if isinstance(value, Interval) else (value,)
    )


def _flat(cells: Iterable[tuple[Any, ...]]) -> tuple[Any, ...]:
    return tuple(value for cell in cells for value in cell)


def _csv(path: Path, head: Iterable[str], lines: Iterable[tuple[Any, ...]]) -> None:
    """A column for each bound of an interval."""
    whole = [
        column
        for name in head
        for column in (
            (name, f"{name} low", f"{name} high")
            if name in (*MEASURES, "router", "loss")
            else (name,)
        )
    ]
    write_text(path, csv_text(tuple(whole), lines))
