"""Runs and comparisons as JSON."""

import json
from typing import Any

from jaxmoe.evals.comparison import Comparison, RunSummary
from jaxmoe.evals.metrics import Interval


def as_json(found: RunSummary) -> str:
    """One line: means with the bounds of their intervals, and what they are of."""
    return json.dumps(summary_object(found))


def summary_object(found: RunSummary) -> dict[str, Any]:
    """A run's numbers as JSON has them, without what is there for each problem."""
    return {
        "name": found.name,
        "problems": len(found.right),
        "measures": {name: bounds(i) for name, i in found.measures.items()},
        "numbers": dict(found.numbers),
        "curves": {
            name: {"k": list(curve.ks), "intervals": [*map(bounds, curve.intervals)]}
            for name, curve in found.curves.items()
        },
        "right": list(found.right),
        "about": dict(found.about),
    }


def comparison_object(found: Comparison) -> dict[str, Any]:
    """All of a comparison but its examples, as JSON has it."""
    return {
        "task": found.task,
        "groups": found.groups,
        "problems": list(found.problems),
        "runs": [summary_object(run) for run in found.runs],
        "differences": [
            vars(d) | {"interval": bounds(d.interval)} for d in found.differences
        ],
    }


def bounds(interval: Interval) -> list[float]:
    """[mean, low, high], fractions."""
    return [interval.mean, interval.low, interval.high]
