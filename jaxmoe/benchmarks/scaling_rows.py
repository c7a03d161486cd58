"""Rows of scaling tables: counted from compiled steps, kept in a file."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from jaxmoe.benchmarks.scaling import count_plans
from jaxmoe.benchmarks.traffic import expected
from jaxmoe.config import ModelConfig
from jaxmoe.files import write_text
from jaxmoe.planning import Chip, Load, Plan, Time, best_mesh, minimum, step_time
from jaxmoe.planning.plan import exchanges_of
from jaxmoe.planning.rows import milliseconds

NAMES = ("held", "moved", "least", "count", "counted", "as_planned", "ms", "rate")
"""Names of the figures of a step."""


class Rows:
    """found: rows of this run. kept: all that the file has. most: chips to count."""

    def __init__(self, path: Path | None, most: int):
        self.path, self.most = path, most
        self.found: list[dict[str, Any]] = []
        self.kept: list[dict[str, Any]] = []
        if path is not None and path.exists():
            self.kept = json.loads(path.read_text("utf-8"))

    def add(
        self,
        key: tuple[str, str, str, int],
        config: ModelConfig,
        chip: Chip,
        load: Load,
        **options: Any,
    ) -> None:
        """Compiles and counts one, unless it is there already or has no room."""
        model, name, kind, chips = key
        row = {"model": model, "chip": name, "kind": kind, "chips": chips}
        row |= {"load": asdict(load), "options": options}
        for old in self.kept:
            if all(old[name] == value for name, value in row.items()):
                if self._is_enough(old):
                    self.found.append(old)
                    return
                self.kept.remove(old)
                break
        point = best_mesh(config, chip, chips, load, **options)
        if point is None:
            return
        plan = point.plan
        row |= {"mesh": plan.shape, "fits": point.fits, "planned": plan.total}
        if point.fits:
            figures = counted if chips <= self.most else planned
            row |= self._known(row) or figures(plan, chip, options["latency"])
        self.found.append(row)
        self.kept.append(row)
        if self.path is not None:
            write_text(self.path, json.dumps(self.kept, indent=2) + "\n")

    def _known(self, row: dict[str, Any]) -> dict[str, Any] | None:
        """What was counted for the same on the way to another table."""
        same = ("model", "chip", "mesh", "load", "options", "fits")
        for old in self.kept:
            if all(old[name] == row[name] for name in same) and self._is_enough(old):
                return {name: old[name] for name in NAMES}
        return None

    def _is_enough(self, row: dict[str, Any]) -> bool:
        """Whether it is counted, where it should be."""
        return not row["fits"] or row["counted"] or row["chips"] > self.most


def counted(plan: Plan, chip: Chip, latency: float) -> dict[str, Any]:
    """Of the compiled program; as_planned: whether it is what the formulas say."""
    (found,) = count_plans([plan])
    same = set(found.collectives) == set(expected(exchanges_of(plan)))
    time = found.time(plan, chip, latency)
    held, moved, count = found.arguments, found.moved, found.count
    return _figures(plan, time, held, moved, count) | {
        "counted": True,
        "as_planned": same,
    }


def planned(plan: Plan, chip: Chip, latency: float) -> dict[str, Any]:
    """Of the formulas alone."""
    exchanges, time = exchanges_of(plan), step_time(plan, chip, latency)
    moved, count = sum(e.moved for e in exchanges), sum(e.count for e in exchanges)
    held = plan.weights + plan.caches.total
    return _figures(plan, time, held, moved, count) | {
        "counted": False,
        "as_planned": True,
    }


def _figures(
    plan: Plan, time: Time, held: int, moved: float, count: int
) -> dict[str, Any]:
    size = {"slots": plan.slots, "dtype": plan.load.dtype}
    least = sum(minimum(plan.config, plan.layout, **size).values())
    figures = {"held": held, "moved": moved, "least": least, "count": count}
    return figures | {"ms": milliseconds(time), "rate": plan.load.n / time.total}
