"""What a step holds, sends and takes: counted from the compiled program, or planned."""

from typing import Any

from _plan_rows import milliseconds

from jaxmoe.benchmarks.scaling import count_plans
from jaxmoe.benchmarks.traffic import expected
from jaxmoe.planning import Chip, Plan, Time, minimum, step_time
from jaxmoe.planning.plan import exchanges_of

NAMES = ("held", "moved", "least", "count", "counted", "as_planned", "ms", "rate")
"""Names of the figures."""


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
