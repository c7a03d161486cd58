"""What one device reads and computes in a step of decoding."""

import math

from jaxmoe.config import ModelConfig, MoEConfig
from jaxmoe.nn.mixers import work
from jaxmoe.planning.exchanges import distinct_experts
from jaxmoe.planning.memory import (
    Caches,
    itemsize,
    prefix_size,
    suffix_size,
    weights_of,
)
from jaxmoe.sharding.layout import Layout


def read_bytes(
    config: ModelConfig, layout: Layout, caches: Caches, *, slots: int, dtype: str
) -> float:
    """Bytes of weights and caches that a device moves in a step.

    Caches are read whole, as the accelerators' form of attention does. Of a layer's
    experts those are read that a row has chosen, routing uniform; of the embedding
    table a row a slot. States that do not grow are written as well.
    """
    always, expert = 0, 0
    for weight in weights_of(config):
        shape = weight.read(layout)
        if weight.part == "experts":
            expert += weight.count * math.prod(shape[1:]) * weight.itemsize(dtype)
        elif weight.part == "rest":
            always += weight.count * math.prod(shape) * weight.itemsize(dtype)
    rows = slots // layout.size(layout.rules.slots) * config.d_model * itemsize(dtype)
    touched = distinct_experts(config, layout, slots) * expert
    return always + rows + touched + caches.total + caches.replaced


def operations(
    config: ModelConfig, layout: Layout, *, slots: int, prompt: int, own: int
) -> float:
    """Multiplications and additions of a device in a step, routing uniform."""
    rows = slots // layout.size(layout.rules.slots)
    matrices = sum(
        weight.count * math.prod(weight.read(layout))
        for weight in weights_of(config)
        if len(weight.shape) > 1 and weight.part == "rest"
    )
    mixing = work(config, layout)
    positions = prefix_size(prompt) + suffix_size(own)
    found = rows * (matrices + mixing.fixed + mixing.position * positions)
    # Each pair of a row and an expert is computed by those that divide that expert.
    inside = layout.size(layout.rules.expert_mlp)
    devices = inside * layout.size(layout.rules.experts)
    pairs = slots / _copies(layout) * config.experts_per_token / devices
    for layer in config.layers:
        if isinstance(layer.feed_forward, MoEConfig):
            found += pairs * 3 * config.d_model * layer.feed_forward.hidden
    return 2 * found


def _copies(layout: Layout) -> int:
    """Groups of devices that have all experts each, and other slots than the rest."""
    rules = layout.rules
    divided = (*rules.experts, *rules.expert_mlp)
    return layout.size([axis for axis in rules.slots if axis not in divided])
