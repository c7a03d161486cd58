"""More chips: the same work in less time (strong), or more work in the same (weak)."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from jaxmoe.config import ModelConfig
from jaxmoe.planning.chips import Chip
from jaxmoe.planning.plan import LATENCY, Load, Plan, Time, plan_for, step_time
from jaxmoe.sharding.rules import Preset

COUNTS = tuple(1 << power for power in range(9))
"""1 to 256 chips."""


@dataclass(frozen=True)
class Point:
    """One number of chips.

    plan: on the mesh with the fastest step, of those that fit where any does. fits:
    whether it does. time: of a step.
    """

    plan: Plan
    fits: bool
    time: Time

    @property
    def rate(self) -> float:
        """Tokens a second of all samples together."""
        return self.plan.load.n / self.time.total


def shapes_of(devices: int) -> list[tuple[int, int]]:
    """All meshes of so many devices, (data, model), the most `data` last."""
    return [(d, devices // d) for d in range(1, devices + 1) if devices % d == 0]


def plans_of(
    config: ModelConfig, devices: int, load: Load, rules: Preset = "auto"
) -> Iterator[tuple[tuple[int, int], Plan | str]]:
    """Each mesh of so many devices with its plan, or why there is none."""
    for shape in shapes_of(devices):
        try:
            yield shape, plan_for(config, shape, load, rules)
        except ValueError as error:
            yield shape, str(error)


def best_mesh(
    config: ModelConfig,
    chip: Chip,
    devices: int,
    load: Load,
    *,
    rules: Preset = "auto",
    latency: float = LATENCY,
) -> Point | None:
    """The fastest mesh of so many chips; None where the model divides over none."""
    found = [
        Point(plan, plan.fits(chip), step_time(plan, chip, latency))
        for _, plan in plans_of(config, devices, load, rules)
        if isinstance(plan, Plan)
    ]
    order = lambda point: (not point.fits, point.time.total)  # noqa: E731
    return min(found, key=order, default=None)


def scale(
    config: ModelConfig,
    chip: Chip,
    load_of: Callable[[int], Load],
    *,
    counts: Iterable[int] = COUNTS,
    rules: Preset = "auto",
    latency: float = LATENCY,
) -> dict[int, Point | None]:
    """Number of chips -> its fastest mesh, for a load that may depend on it."""
    return {
        count: best_mesh(
            config, chip, count, load_of(count), rules=rules, latency=latency
        )
        for count in counts
    }
