"""What devices say to each other in one step of decoding, and the least they must.

The formulas follow `jaxmoe.sharding.collectives` and who calls it; the compiled
program is compared with them by `jaxmoe.benchmarks.traffic`. Bytes are those that a
device receives from others, which are as many as it sends:

    all-gather   (M - 1) * own part            all-to-all   (M - 1) / M * what it has
    all-reduce   2 * (M - 1) / M * what it has

with M devices in a group (an all-reduce's bound: Patarasuk and Yuan 2009,
doi 10.1016/j.jpdc.2008.09.002).
"""

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace

import jax.numpy as jnp

from jaxmoe.config import LayerConfig, ModelConfig, MoEConfig
from jaxmoe.nn.mixers import kind_of
from jaxmoe.planning.memory import itemsize
from jaxmoe.sharding.collectives import DeviceContext
from jaxmoe.sharding.layout import Layout


@dataclass(frozen=True)
class Exchange:
    """Collectives of one kind and purpose in a step.

    what: embedding, attention, dense (shared experts too), experts, logits, tokens or
    end. kind: as HLO names it. devices: in a group. moved: bytes that a device receives
    in all of them together. count: how many there are.
    """

    what: str
    kind: str
    devices: int
    moved: float
    count: int = 1


def step_exchanges(
    config: ModelConfig, layout: Layout, *, slots: int, dtype: str
) -> list[Exchange]:
    """The collectives of one step of `slots` samples, those alike taken together.

    dtype: of activations, as `nn.decoder.compute_dtype` has it.
    """
    part = DeviceContext(layout, layout.rules.slots)
    rows, width, size = slots // part.count("slots"), config.d_model, itemsize(dtype)
    found = _add(part, "embedding", (rows, width), size, "vocab")
    for layer, count in Counter(config.layers).items():
        summed, told = _summed(layer), _told(layer, layout)
        some = _add(part, "attention", (rows, width), size, summed)
        some += told * _gather("attention", part.count(summed), 4 * rows)
        if isinstance(layer.feed_forward, MoEConfig):
            some += _experts(part, (rows, width), layer.feed_forward, dtype)
            if layer.feed_forward.shared is not None:
                some += _add(part, "dense", (rows, width), size, "mlp")
        else:
            some += _add(part, "dense", (rows, width), size, "mlp")
        found += [replace(e, moved=count * e.moved, count=count) for e in some]
    found += _logits(part, rows, config.vocab_size)
    # Whether all are done: one integer, summed over those that have other slots.
    found += _reduce("end", part.count("slots"), 4)
    return _together(found)


def _summed(layer: LayerConfig) -> str:
    return kind_of(layer.mixer).module.summed


def _told(layer: LayerConfig, layout: Layout) -> int:
    return kind_of(layer.mixer).module.work(layer.mixer, layout).told


def _experts(
    part: DeviceContext, shape: tuple[int, int], config: MoEConfig, dtype: str
) -> list[Exchange]:
    rows, width = shape
    places, size = config.experts_per_token, itemsize(dtype)
    weight = jnp.dtype(config.scoring.weight_dtype(dtype)).itemsize
    divided = ("experts", "expert_mlp")
    devices = _count(part, [a for a in part.axes(*divided) if a in part.rows])
    found: list[Exchange] = []
    # Rows, their experts (int32) and the weights of those.
    for values, each in ((width, size), (places, 4), (places, weight)):
        found += _gather("experts", devices, rows * values * each)
    return found + _add(part, "experts", shape, size, *divided)


def _add(
    part: DeviceContext, what: str, shape: tuple[int, int], size: int, *logical: str
) -> list[Exchange]:
    """`DeviceContext.add` of results [rows, width] for each device's own rows."""
    rows, width = shape
    axes = part.axes(*logical)
    apart = _count(part, [a for a in axes if a in part.rows])
    alike = _count(part, [a for a in axes if a not in part.rows])
    padded = -(-width // alike) * alike
    whole = apart * rows * padded * size
    pieces = _all_to_all(what, apart * alike, whole)
    return pieces + _gather(what, alike, rows * padded // alike * size)


def _logits(part: DeviceContext, rows: int, vocab: int) -> list[Exchange]:
    devices = part.count("vocab")
    own = 4 * rows * vocab // devices
    if rows % devices:
        return _gather("logits", devices, own)
    drawn = 4 * rows // devices
    # Tokens, and their log-probabilities.
    found = _gather("tokens", devices, drawn) + _gather("tokens", devices, drawn)
    return _all_to_all("logits", devices, own) + found


def _gather(what: str, devices: int, own: float) -> list[Exchange]:
    moved = (devices - 1) * own
    return [Exchange(what, "all-gather", devices, moved)] if devices > 1 else []


def _all_to_all(what: str, devices: int, whole: float) -> list[Exchange]:
    moved = whole * (devices - 1) / devices
    return [Exchange(what, "all-to-all", devices, moved)] if devices > 1 else []


def _reduce(what: str, devices: int, whole: float) -> list[Exchange]:
    moved = 2 * whole * (devices - 1) / devices
    return [Exchange(what, "all-reduce", devices, moved)] if devices > 1 else []


def _count(part: DeviceContext, axes: Iterable[str]) -> int:
    assert part.layout is not None
    return part.layout.size(tuple(axes))


def _together(exchanges: Iterable[Exchange]) -> list[Exchange]:
    groups: dict[tuple[str, str, int], list[Exchange]] = {}
    for one in exchanges:
        groups.setdefault((one.what, one.kind, one.devices), []).append(one)
    return [
        Exchange(*key, sum(one.moved for one in some), sum(one.count for one in some))
        for key, some in groups.items()
    ]


def touched(config: ModelConfig, experts: int) -> float:
    """The probability that a row chooses one of so many experts, routing uniform."""
    every, chosen = config.num_experts, config.experts_per_token
    return 1 - math.comb(every - experts, chosen) / math.comb(every, chosen)


def distinct_experts(config: ModelConfig, layout: Layout, slots: int) -> float:
    """Experts that a device is expected to read in a layer, routing uniform.

    Of E that lie there, E (1 - (1 - k / all)^rows), for all rows that reach it.
    """
    if not config.num_experts:
        return 0.0
    own = config.num_experts // layout.size(layout.rules.experts)
    missed = 1 - config.experts_per_token / config.num_experts
    return own * (1 - missed ** rows_reaching(layout, slots))


def rows_reaching(layout: Layout, slots: int) -> int:
    """Rows that a device computes experts for: its own and those gathered."""
    part = DeviceContext(layout, layout.rules.slots)
    gathered = [a for a in part.axes("experts", "expert_mlp") if a in part.rows]
    return slots // part.count("slots") * layout.size(gathered)


def minimum(
    config: ModelConfig, layout: Layout, *, slots: int, dtype: str
) -> dict[str, float]:
    """Bytes that a device must receive in a step on average, by purpose.

    Work is divided as the layout has it, and routing is uniform. Then a row has to
    reach each device that holds one of its experts and has it not yet, come back from
    each as one partial result, and reach all that go on with it. A row's attention is
    partial everywhere, its embedding lies in one place, and each row is drawn where V
    logits come together. Who is routed where is not counted.
    """
    part = DeviceContext(layout, layout.rules.slots)
    rows, size = slots // part.count("slots"), itemsize(dtype)
    row = config.d_model * size
    share = lambda *logical: 1 - 1 / part.count(*logical)  # noqa: E731
    found = {
        "embedding": rows * row * share("vocab"),
        "attention": sum(
            2 * rows * (row + 4 * _told(c, layout)) * share(_summed(c))
            for c in config.layers
        ),
        "logits": 4 * rows / part.count("vocab") * config.vocab_size * share("vocab"),
        "tokens": 2 * 4 * rows * share("vocab"),
        "end": 2 * 4 * share("slots"),
    }
    ffs = [layer.feed_forward for layer in config.layers]
    dense = sum(not isinstance(ff, MoEConfig) or ff.shared is not None for ff in ffs)
    found["dense"] = dense * 2 * rows * row * share("mlp")
    found["experts"] = len(config.moe_layers) * row * _expert_rows(config, part, rows)
    return found


def _expert_rows(config: ModelConfig, part: DeviceContext, rows: int) -> float:
    """Rows and partial results that a device must receive for one layer's experts."""
    axes = part.axes("experts", "expert_mlp")
    if not axes:
        return 0.0
    alike = [a for a in axes if a not in part.rows]
    devices, holders = _count(part, axes), _count(part, alike)
    own = config.num_experts // part.count("experts")
    held = own * _count(part, [a for a in alike if a in part.axes("experts")])
    busy = devices * touched(config, own)
    out = (devices - holders) * touched(config, own)
    # The sum is made at a holder that has a part of it, where there is one.
    back = busy - touched(config, held)
    return rows / holders * (out + back + holders - 1)
