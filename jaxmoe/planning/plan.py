"""A model on a mesh: what each device holds, whether it fits, how long a step takes."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from jax.sharding import AbstractMesh

from jaxmoe.config import ModelConfig
from jaxmoe.nn.decoder import axis_sizes, check_blocks
from jaxmoe.planning.chips import Chip
from jaxmoe.planning.exchanges import Exchange, step_exchanges
from jaxmoe.planning.memory import Caches, buffer_bytes, cache_bytes, weight_bytes
from jaxmoe.planning.work import operations, read_bytes
from jaxmoe.sharding.layout import Layout, layout_for
from jaxmoe.sharding.rules import DATA, MODEL, Preset, Rules

USABLE = 0.95
"""Of a chip's memory: the rest is the runtime's, and lost between arrays."""

LATENCY = 10e-6
"""Seconds that a collective takes besides its bytes; assumed, not published."""

_MOST = 1 << 20


@dataclass(frozen=True)
class Load:
    """What is asked for.

    n: samples side by side. context: the most positions of a sample, its prompt's
    among them. prompt: tokens of the one prompt. dtype: of weights and caches. passes:
    of a token, J + 1 by a `RouteEnsemble` of J routes, which share its cache.

    Raises:
      ValueError: fewer than one sample, token or pass, or no room for an answer.
    """

    n: int
    context: int
    prompt: int = 1024
    dtype: str = "bfloat16"
    passes: int = 1

    def __post_init__(self):
        if self.n < 1 or self.prompt < 1:
            raise ValueError(
                f"expected a sample and a token of prompt at least, found n {self.n} "
                f"and prompt {self.prompt}"
            )
        if self.passes < 1:
            raise ValueError(
                f"expected a pass a token at least, found {self.passes}; an ensemble "
                "of J routes takes J + 1"
            )
        if self.context <= self.prompt:
            raise ValueError(
                f"context counts prompt and answer: expected more than the prompt's "
                f"{self.prompt} positions, found {self.context}; raise the context or "
                "shorten the prompt"
            )

    @property
    def own(self) -> int:
        """The most tokens of an answer."""
        return self.context - self.prompt


@dataclass(frozen=True)
class Plan:
    """What each device holds.

    slots: `load.n`, or the next number that all devices share equally. weights,
    caches: bytes, exact. buffers: bytes, an estimate of what comes on top for a while.
    """

    config: ModelConfig
    layout: Layout
    load: Load
    slots: int
    weights: int
    caches: Caches
    buffers: int

    @property
    def total(self) -> int:
        """Bytes of a device at the worst time."""
        return self.weights + self.caches.total + self.buffers

    @property
    def devices(self) -> int:
        """Devices of the mesh."""
        return self.layout.size(tuple(self.layout.mesh.shape))

    @property
    def shape(self) -> str:
        """The mesh, such as 2x4."""
        return "x".join(map(str, self.layout.mesh.shape.values()))

    def fits(self, chip: Chip, usable: float = USABLE) -> bool:
        """Whether a chip has room for it."""
        return self.total <= chip.memory * usable


_sizes = lru_cache(maxsize=32)(axis_sizes)


def mesh_of(shape: Mapping[str, int]) -> AbstractMesh:
    """A mesh without devices: axis -> size."""
    return AbstractMesh(tuple(shape.values()), tuple(shape))


def check_load(config: ModelConfig, load: Load) -> None:
    """Raises a ValueError for more positions than the model has."""
    if load.context > config.context_length:
        raise ValueError(
            f"the model has {config.context_length} positions, found a context of "
            f"{load.context}; ask for at most {config.context_length}"
        )


def plan_for(
    config: ModelConfig,
    shape: Mapping[str, int] | tuple[int, int],
    load: Load,
    rules: Rules | Preset = "auto",
) -> Plan:
    """The plan of a load on a mesh of this shape.

    Args:
      shape: mesh axis -> size; a pair is of `data` and `model`.

    Raises:
      ValueError: a model that does not divide over the mesh by these rules; more
        positions than it has.
    """
    check_load(config, load)
    axes = shape if isinstance(shape, Mapping) else {DATA: shape[0], MODEL: shape[1]}
    layout = layout_for(mesh_of(axes), rules, _sizes(config))  # type: ignore[arg-type]
    check_blocks(config, layout)
    weights = weight_bytes(config, layout, load.dtype)
    return _filled(config, layout, load, weights)


def _filled(config: ModelConfig, layout: Layout, load: Load, weights: int) -> Plan:
    slots = layout.slots(load.n)
    size = {"slots": slots, "prompt": load.prompt, "own": load.own, "dtype": load.dtype}
    caches = cache_bytes(config, layout, **size)
    buffers = buffer_bytes(config, layout, **size, passes=load.passes)
    return Plan(config, layout, load, slots, weights, caches, buffers)


def largest_n(plan: Plan, chip: Chip, usable: float = USABLE) -> int:
    """The most samples side by side for which the same mesh has room; 0 for none."""
    parts = plan.layout.size(plan.layout.rules.slots)

    def fits(groups: int) -> bool:
        load = replace(plan.load, n=groups * parts)
        filled = _filled(plan.config, plan.layout, load, plan.weights)
        return filled.fits(chip, usable)

    low, high = 0, 1
    while high <= _MOST and fits(high):
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low * parts


@dataclass(frozen=True)
class Time:
    """Seconds of one step, from stated bandwidths; nothing overlaps between them.

    memory: to read weights and caches. arithmetic: to compute. bytes: to move what
    collectives move. waits: what they take besides.
    """

    memory: float
    arithmetic: float
    bytes: float
    waits: float

    @property
    def exchange(self) -> float:
        """Seconds of all collectives."""
        return self.bytes + self.waits

    @property
    def total(self) -> float:
        """Reading beside computing, then exchanging."""
        return max(self.memory, self.arithmetic) + self.exchange


def exchanges_of(plan: Plan) -> list[Exchange]:
    """The collectives of one step."""
    return step_exchanges(
        plan.config,
        plan.layout,
        slots=plan.slots * plan.load.passes,
        dtype=plan.load.dtype,
    )


def step_time(plan: Plan, chip: Chip, latency: float = LATENCY) -> Time:
    """A step with caches filled to the context, which is the slowest.

    latency: seconds of each collective.
    """
    config, layout, load = plan.config, plan.layout, plan.load
    rows = plan.slots * load.passes
    read = read_bytes(config, layout, plan.caches, slots=rows, dtype=load.dtype)
    computed = operations(config, layout, slots=rows, prompt=load.prompt, own=load.own)
    exchanges = exchanges_of(plan)
    return Time(
        memory=read / chip.bandwidth,
        arithmetic=computed / chip.rate(load.dtype),
        bytes=sum(e.moved for e in exchanges) / chip.link_of(plan.devices),
        waits=latency * sum(e.count for e in exchanges),
    )
