"""Scaling tables: the same work, or as much for each chip, on 1 to 256 of them."""

from collections.abc import Callable, Mapping
from typing import Any

from _plan_rows import milliseconds
from _plan_table import table

from jaxmoe.benchmarks.report import number
from jaxmoe.config import ModelConfig
from jaxmoe.planning import Chip, Load, Point, scale
from jaxmoe.sharding.rules import Preset

HEAD = ("chips", "mesh", "n", "GB a chip", "ms a step", "tokens a second", "of it")
HEAD += ("exchange", "efficiency")


def scaling_rows(
    config: ModelConfig,
    chip: Chip,
    load_of: Callable[[int], Load],
    rules: Preset,
    latency: float,
) -> list[dict[str, Any]]:
    """A row a number of chips."""
    points = scale(config, chip, load_of, rules=rules, latency=latency)
    return rows_of(points)


def rows_of(points: Mapping[int, Point | None]) -> list[dict[str, Any]]:
    """Efficiency: tokens a second of a chip, beside the fewest chips that fit."""
    rows, base = [], None
    for chips, point in points.items():
        if point is None:
            rows.append({"chips": chips})
            continue
        each = point.rate / chips
        if base is None and point.fits:
            base = each
        plan = point.plan
        row = {"chips": chips, "mesh": plan.shape, "n": plan.load.n, "fits": point.fits}
        row |= {"total": plan.total, "ms": milliseconds(point.time)}
        row |= {"rate": point.rate, "efficiency": each / base if base else None}
        rows.append(row)
    return rows


def scaling_text(rows: list[dict[str, Any]]) -> str:
    """The rows as a table."""
    return table(HEAD, map(_cells, rows))


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    if "mesh" not in row:
        return (str(row["chips"]), "the model divides over no mesh", *[""] * 7)
    head = (str(row["chips"]), row["mesh"], str(row["n"]), f"{row['total'] / 1e9:.2f}")
    if not row["fits"]:
        return (*head, "does not fit", *[""] * 4)
    ms = row["ms"]
    read = "reading" if ms["memory"] >= ms["arithmetic"] else "computing"
    work = f"{read} {number(max(ms['memory'], ms['arithmetic']))}"
    share = f"{number(ms['exchange'])} ({ms['exchange'] / ms['total']:.0%})"
    last = f"{row['efficiency']:.0%}"
    return (*head, number(ms["total"]), number(row["rate"]), work, share, last)
