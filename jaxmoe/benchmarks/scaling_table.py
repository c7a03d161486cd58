"""Scaling tables of what compiled steps hold and send."""

from collections.abc import Iterator
from itertools import groupby
from typing import Any

from jaxmoe.reports.text_table import markdown_table, number

HEAD = ("chips", "mesh", "n", "GB held", "MB moved", "least", "ratio", "collectives")
HEAD += (
    "ms reading",
    "ms exchange",
    "ms a step",
    "tokens a second",
    "efficiency",
    "from",
)


def as_text(rows: list[dict[str, Any]]) -> str:
    """A table for each model, chip and kind of scaling."""
    title = lambda row: f"{row['model']} on {row['chip']}, {row['kind']} scaling"  # noqa: E731
    parts = [(name, list(some)) for name, some in groupby(rows, key=title)]
    tables = [(name, markdown_table(HEAD, _cells(some))) for name, some in parts]
    return "\n\n".join(f"{name}\n\n{table}" for name, table in tables)


def _cells(rows: list[dict[str, Any]]) -> Iterator[tuple[str, ...]]:
    base = next((row["rate"] / row["chips"] for row in rows if row["fits"]), None)
    for row in rows:
        cells = (str(row["chips"]), row["mesh"], str(row["load"]["n"]))
        if not row["fits"]:
            needed = f"does not fit: needs {row['planned'] / 1e9:.0f}"
            yield (*cells, needed, *[""] * 10)
            continue
        moved = (f"{row['moved'] / 1e6:.2f}", f"{row['least'] / 1e6:.2f}")
        ratio = f"{row['moved'] / row['least']:.2f}" if row["least"] else "-"
        cells += (f"{row['held'] / 1e9:.2f}", *moved, ratio, str(row["count"]))
        ms = row["ms"]
        times = (max(ms["memory"], ms["arithmetic"]), ms["exchange"], ms["total"])
        share = row["rate"] / row["chips"] / base if base else 0.0
        source = "compiled" if row["counted"] else "formulas"
        rates = (number(row["rate"]), f"{share:.0%}", source)
        yield (*cells, *map(number, times), *rates)
