"""The files of a replication: a page, Markdown, and all numbers as JSON."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jaxmoe.evals.replication.results import Judged, Replication
from jaxmoe.files import write_text
from jaxmoe.reports import comparison_charts as charts
from jaxmoe.reports.comparison_json import bounds, comparison_object
from jaxmoe.reports.page import render_page
from jaxmoe.reports.plots import has_matplotlib
from jaxmoe.reports.replication_text import (
    CLAIM_HEAD,
    claim_row,
    measure_head,
    measure_rows,
    notes_of,
    replication_text,
    title_of,
)


def write_replication(out: Path, found: Replication) -> None:
    """Writes replication.html, replication.md and replication.json into a folder."""
    write_text(out / "replication.html", render(found))
    write_text(out / "replication.md", replication_text(found))
    text = json.dumps(replication_object(found), indent=1, allow_nan=False)
    write_text(out / "replication.json", text + "\n")


def render(found: Replication) -> str:
    """The page; equal arguments give equal text."""
    draw = has_matplotlib()
    known = any("pass@k" in run.curves for run in found.comparison.runs)
    chart = charts.curve("pass", found.comparison, "pass@k") if draw and known else None
    return render_page(
        "replication.html",
        title=title_of(found),
        about=found.recipe.about,
        task=found.comparison.task,
        problems=len(found.comparison.problems),
        chart=chart,
        tables=_tables(found),
        charts_possible=draw,
        notes=notes_of(found),
        date=None,
    )


def _tables(found: Replication) -> list[dict[str, Any]]:
    """Heading, caption, head and rows of each table."""
    measures = {
        "id": "measures",
        "heading": "Measures",
        "caption": "Measures in percent, with 95 % intervals, beside published ones.",
        "head": measure_head(found),
        "rows": measure_rows(found),
    }
    claims = {
        "id": "claims",
        "heading": "Claims",
        "caption": "Claims, the differences that decide them, and verdicts.",
        "head": list(CLAIM_HEAD),
        "rows": [claim_row(judged) for judged in found.judged],
    }
    return [table for table in (claims, measures) if table["rows"]]


def replication_object(found: Replication) -> dict[str, Any]:
    """All of it, as JSON has it."""
    return {
        "recipe": found.recipe.name,
        "model": found.model,
        "benchmark": found.benchmark,
        "published": [asdict(figure) for figure in found.figures.values()],
        "verifiers": dict(found.verifiers),
        "claims": [_claim(judged) for judged in found.judged],
        **comparison_object(found.comparison),
    }


def _claim(judged: Judged) -> dict[str, Any]:
    about = asdict(judged.claim) | {"stated": judged.stated}
    if (found := judged.found) is None:
        return about | {"verdict": None}
    return about | {
        "difference": bounds(found.difference),
        "together": bounds(found.together),
        "p_value": found.p_value,
        "adjusted": found.adjusted,
        "verdict": found.verdict,
    }
