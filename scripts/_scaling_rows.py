"""Rows of scripts/scaling.py: counted from compiled steps, kept in a file."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from _scaling_figures import NAMES, counted, planned

from jaxmoe.config import ModelConfig
from jaxmoe.planning import Chip, Load, best_mesh


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
            self.path.write_text(json.dumps(self.kept, indent=2) + "\n", "utf-8")

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
