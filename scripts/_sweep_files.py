"""The files of a sweep: all numbers as JSON, heat maps of differences as PNG."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from _run_json import comparison_object
from _text_files import write_text

if TYPE_CHECKING:
    from jaxmoe.evals.comparison import Comparison
    from jaxmoe.evals.sweeps import Point


def write_sweep(out: Path, points: "Sequence[Point]", found: "Comparison") -> None:
    """Writes sweep.json, and a heat map of each measure where there is a grid."""
    swept = {point.name: point.values for point in points}
    text = json.dumps(comparison_object(found) | {"points": swept}, indent=1)
    write_text(out / "sweep.json", text)
    try:
        _write_heat_maps(out, points, found)
    except ImportError as error:
        print(f"no heat maps: {error}", file=sys.stderr)


def _write_heat_maps(out: Path, points: "Sequence[Point]", found: "Comparison") -> None:
    from jaxmoe.evals.sweeps import panels_of
    from jaxmoe.reports.heat_maps import plot_heat_maps

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
