"""The files of a sweep: all numbers as JSON, heat maps of differences as PNG."""

import json
from collections.abc import Sequence
from pathlib import Path

from jaxmoe.evals.comparison import Comparison
from jaxmoe.evals.sweeps import Point, panels_of
from jaxmoe.files import write_text
from jaxmoe.reports.comparison_json import comparison_object
from jaxmoe.reports.heat_maps import plot_heat_maps


def write_sweep(out: Path, points: Sequence[Point], found: Comparison) -> None:
    """Writes sweep.json, and a heat map of each measure where there is a grid.

    Raises:
      ImportError: without matplotlib; sweep.json has been written.
    """
    swept = {point.name: point.values for point in points}
    text = json.dumps(comparison_object(found) | {"points": swept}, indent=1)
    write_text(out / "sweep.json", text)
    n = found.runs[0].n
    for measure in ("accuracy", f"pass@{n}"):
        made = panels_of(points, found, measure)
        if made is None:
            continue
        name = measure.replace("@", "_at_")
        plot_heat_maps(
            made.panels,
            out / f"{name}.png",
            x=("tau", made.taus),
            y=("k_keep", made.keeps),
            title=f"{measure} of Expert-Sample less that of topk, percentage points",
        )
