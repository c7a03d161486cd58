"""The files of a comparison: a report, and figures and tables beside it."""

import json
import sys
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from _text_files import write_text

if TYPE_CHECKING:
    from jaxmoe.evals.comparison import Comparison


@dataclass(frozen=True)
class Outputs:
    """html: the report; others stand beside it under its name. router: a file."""

    html: Path
    title: str | None
    router: Path | None


def write_outputs(found: "Comparison", outputs: Outputs) -> None:
    """Writes the report, its tables as CSV, and the pass@n figure as PNG."""
    from jaxmoe.reports.comparison_csv import (
        differences_csv,
        measures_csv,
        problems_csv,
    )
    from jaxmoe.reports.html_report import render

    router = None if outputs.router is None else _router_curves(outputs.router)
    several = len(found.runs) > 2
    corrected = [d.adjusted for d in found.differences] if several else None
    today = date.today().isoformat()
    page = render(found, title=outputs.title, router=router, holm=corrected, date=today)
    write_text(outputs.html, page)
    beside = outputs.html.with_suffix
    write_text(beside(".measures.csv"), measures_csv(found))
    write_text(beside(".problems.csv"), problems_csv(found))
    write_text(beside(".differences.csv"), differences_csv(found))
    if not any(run.curves for run in found.runs):
        return  # one answer each: there is no curve to draw
    try:
        from jaxmoe.reports.comparison_figures import plot_pass_curves

        plot_pass_curves(found, beside(".png"))
    except ImportError as error:
        print(f"no figure: {error}", file=sys.stderr)


def _router_curves(path: Path) -> dict[str, dict[str, list[float]]]:
    """Router probability by rank, from router_report.py's file.

    Of generated tokens; of the prompts' where it measured no others.
    """
    from jaxmoe.analysis.router_stats import from_json

    try:
        layers = json.loads(path.read_text(encoding="utf-8"))["layers"]
        stats = {
            name: from_json(
                (classes.get("generated") or classes["prompt"])["statistics"]
            )
            for name, classes in layers.items()
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"--router must be the router.json of router_report.py, found {path}, "
            f"which is not ({error!r})"
        ) from None
    return {
        f"layer {name}": {
            "mean": found.probability.tolist(),
            "low": found.quantile(0.1).tolist(),
            "high": found.quantile(0.9).tolist(),
        }
        for name, found in stats.items()
    }
