"""Scaling with what the compiled step really holds and sends.

A step is compiled with one layer and with two of the real shape. The second layer's
collectives and bytes are those of every further one, so that a line through both is
exact for any number of layers. What memory is read and what is computed stays
arithmetic (`jaxmoe.planning.work`).

A load in bfloat16 is compiled in float16, which has its size: XLA's compiler for CPUs
lets bfloat16 travel as float32.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from jaxmoe.benchmarks.traffic import Collective
from jaxmoe.benchmarks.virtual import Compiled, Step, compile_steps
from jaxmoe.config import ModelConfig
from jaxmoe.planning.chips import Chip
from jaxmoe.planning.plan import LATENCY, Plan, Time, step_time


@dataclass(frozen=True)
class Counted:
    """A step of the whole model.

    collectives: in one step. arguments: bytes of weights, caches and slots on each
    device.
    """

    collectives: tuple[Collective, ...]
    arguments: int

    @property
    def moved(self) -> float:
        """Bytes that a device receives in a step."""
        return sum(found.moved for found in self.collectives)

    @property
    def count(self) -> int:
        """Collectives of a step."""
        return sum(found.count for found in self.collectives)

    def time(self, plan: Plan, chip: Chip, latency: float = LATENCY) -> Time:
        """`step_time` with counted collectives instead of planned ones."""
        return replace(
            step_time(plan, chip, latency),
            bytes=self.moved / chip.link_of(plan.devices),
            waits=latency * self.count,
        )


def count_plans(plans: Iterable[Plan]) -> list[Counted]:
    """Compiles the step of each plan for as many virtual devices, and counts.

    On CPU a compilation takes seconds, for 256 devices half a minute.

    Raises:
      ValueError: a model whose layers differ. RuntimeError: a step that does not
        compile.
    """
    plans = list(plans)
    steps = [step for plan in plans for step in _steps(plan)]
    found = compile_steps(steps)
    pairs = zip(plans, found[::2], found[1::2], strict=True)
    return [_extended(plan, one, two) for plan, one, two in pairs]


def _steps(plan: Plan) -> list[Step]:
    shape = tuple(plan.layout.mesh.shape.values())
    assert len(shape) == 2, shape
    # The rules of the whole model: those of a preset may depend on its sizes.
    rules, load = plan.layout.rules, plan.load
    if load.dtype == "bfloat16":
        load = replace(load, dtype="float16")
    return [
        Step(_of_layers(plan.config, count), shape, load, rules) for count in (1, 2)
    ]


def _of_layers(config: ModelConfig, count: int) -> ModelConfig:
    if len(set(config.layers)) > 1:
        raise ValueError(
            f"expected a model whose layers are all alike, found "
            f"{len(set(config.layers))} kinds in {config.num_layers}; count the "
            "steps of jaxmoe.benchmarks.virtual instead"
        )
    return replace(config, layers=config.layers[:count])


def _extended(plan: Plan, one: Compiled, two: Compiled) -> Counted:
    """The line through one layer and two, at the model's number of layers."""
    more = plan.config.num_layers - 1
    return Counted(
        _line(one.traffic.step, two.traffic.step, more),
        one.arguments + more * (two.arguments - one.arguments),
    )


def _line(
    one: Iterable[Collective], two: Iterable[Collective], more: int
) -> tuple[Collective, ...]:
    first, second = _by_group(one), _by_group(two)
    none = (0.0, 0)
    found = []
    for key in sorted(second):
        (a, m), (b, n) = first.get(key, none), second[key]
        found.append(Collective(*key, a + more * (b - a), m + more * (n - m)))
    return tuple(found)


def _by_group(
    found: Iterable[Collective],
) -> Mapping[tuple[str, int], tuple[float, int]]:
    return {(c.kind, c.devices): (c.moved, c.count) for c in found}
