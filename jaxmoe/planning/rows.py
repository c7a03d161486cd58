"""What a model takes on each mesh, and on more chips, as rows of plain values."""

from collections.abc import Iterable, Mapping
from typing import Any

from jaxmoe.config import ModelConfig
from jaxmoe.planning.chips import Chip
from jaxmoe.planning.plan import USABLE, Load, Plan, Time, largest_n, step_time
from jaxmoe.planning.scaling import Point, plans_of
from jaxmoe.sharding.rules import Preset

MOST = 32
"""Chips of a slice, where no numbers of devices are given."""


def mesh_rows(
    config: ModelConfig,
    chip: Chip,
    load: Load,
    *,
    devices: Iterable[int] | None,
    rules: Preset,
    latency: float,
) -> list[dict[str, Any]]:
    """A row a mesh; `smallest` marks the fastest of the fewest chips that do."""
    counts = devices or [count for count in chip.slices if count <= MOST]
    rows = []
    for count in counts:
        for shape, plan in plans_of(config, count, load, rules):
            row = {"chip": chip.name, "mesh": "{}x{}".format(*shape), "devices": count}
            if isinstance(plan, str):
                lines = plan.splitlines()
                reason = "; ".join(line.strip() for line in lines[1:-1]) or plan
                rows.append(row | {"fits": False, "reason": reason})
            else:
                rows.append(row | _planned(plan, chip, latency))
    _mark(rows, chip)
    return rows


def _planned(plan: Plan, chip: Chip, latency: float) -> dict[str, Any]:
    fits, caches = plan.fits(chip), plan.caches
    room = chip.memory * USABLE
    lacks = f"needs {plan.total / 1e9:.1f} GB of {room / 1e9:.1f}"
    return {
        "fits": fits,
        "reason": None if fits else lacks,
        "slots": plan.slots,
        "weights": plan.weights,
        "prefix": caches.prefix,
        "suffix": caches.suffix,
        "buffers": plan.buffers,
        "total": plan.total,
        "largest_n": largest_n(plan, chip),
        "ms": milliseconds(step_time(plan, chip, latency)),
    }


def milliseconds(time: Time) -> dict[str, float]:
    """The parts of a step and the whole."""
    return {
        "memory": 1e3 * time.memory,
        "arithmetic": 1e3 * time.arithmetic,
        "exchange": 1e3 * time.exchange,
        "total": 1e3 * time.total,
    }


def _mark(rows: list[dict[str, Any]], chip: Chip) -> None:
    fitting = [row for row in rows if row["fits"]]
    if fitting:
        best = min(fitting, key=lambda row: (row["devices"], row["ms"]["total"]))
        best["smallest"] = chip.slice_of(best["devices"])


def scaling_rows(points: Mapping[int, Point | None]) -> list[dict[str, Any]]:
    """A row a number of chips.

    efficiency: tokens a second of a chip, beside that of the fewest
    chips that fit.
    """
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
