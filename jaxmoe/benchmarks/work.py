"""The work that a pass cannot avoid: bytes to move, operations to do.

A floor in time is bytes over bandwidth, or operations over the rate of a product. It
is for full attention; a window is not counted.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import jax

from jaxmoe.config import ModelConfig
from jaxmoe.nn.decoder import abstract_params, fixed_dtypes, logical_axes
from jaxmoe.nn.mixers import held
from jaxmoe.nn.mixers import work as mixers_work
from jaxmoe.sharding.layout import single_device_layout


@dataclass(frozen=True)
class Work:
    """bytes: read and written. operations: multiplications and additions."""

    bytes: float
    operations: float


@dataclass(frozen=True)
class Sizes:
    """Elements of a model.

    always: weights that every pass reads whole: all but experts and the embedding
      table (which counts where it is the output head too).
    expert: one expert of each layer. matrices: those of `always` that multiply.
    head: the output head.
    """

    always: int
    expert: int
    matrices: int
    head: int


def sizes(config: ModelConfig) -> Sizes:
    """Counted from the declared weights."""
    config = replace(config, weights="float")  # scales are no matrices
    shapes = {name: leaf.shape for name, leaf in abstract_params(config).items()}
    stacks, read_names = _experts_and_rest(config)
    table = "embed.weight"
    read = [shapes[name] for name in read_names]
    return Sizes(
        always=sum(math.prod(shape) for shape in read),
        expert=sum(math.prod(shapes[name][1:]) for name in stacks),
        matrices=sum(math.prod(shape) for shape in read if len(shape) > 1),
        head=math.prod(shapes[table]),
    )


def _experts_and_rest(config: ModelConfig) -> tuple[list[str], list[str]]:
    """Weights of which a pass reads some experts, and those that it reads whole."""
    stacks = [n for n, axes in logical_axes(config).items() if "experts" in axes]
    table = () if config.tie_embeddings else ("embed.weight",)
    rest = [n for n in abstract_params(config) if n not in {*stacks, *table}]
    return stacks, rest


def _bytes(config: ModelConfig, weight_bytes: int) -> tuple[int, int]:
    """Of what every pass reads, and of one expert of each layer.

    weight_bytes: of one element whose type the config does not fix.
    """
    fixed, found = fixed_dtypes(config), abstract_params(config)
    size = lambda name: fixed[name].itemsize if name in fixed else weight_bytes  # noqa: E731
    stacks, rest = _experts_and_rest(config)
    always = sum(found[name].size * size(name) for name in rest)
    return always, sum(math.prod(found[n].shape[1:]) * size(n) for n in stacks)


def step(
    config: ModelConfig,
    *,
    n: int,
    prompt: int,
    own: float,
    distinct: float,
    weight_bytes: int,
    cache_dtype: Any,
) -> Work:
    """One step of n samples of one prompt.

    own: positions that each sample has passed since its prompt. distinct: experts
      that a layer reads, on average. weight_bytes: of one element that is not
      quantised. cache_dtype: of the states.
    """
    size = sizes(config)
    always, expert = _bytes(config, weight_bytes)
    weights = always + distinct * expert + n * config.d_model * weight_bytes
    layout = single_device_layout(jax.devices()[0])
    state, mixing = held(config, layout, cache_dtype), mixers_work(config, layout)
    # The prompt's positions are read once for all samples; each writes one of its own,
    # and what does not grow is read and written.
    cached = state.position * (prompt + n * own + n) + 2 * n * state.fixed
    moved = weights + cached
    products = size.matrices + config.experts_per_token * size.expert
    products += mixing.fixed + mixing.position * (prompt + own + 1)
    return Work(moved, 2 * n * products)


def prefill_operations(config: ModelConfig, tokens: int) -> float:
    """Operations of one pass over a prompt, with logits of its last token only."""
    size = sizes(config)
    mixing = mixers_work(config, single_device_layout(jax.devices()[0]))
    products = size.matrices - size.head + config.experts_per_token * size.expert
    products += mixing.fixed
    pairs = tokens * (tokens + 1) / 2
    return 2 * (tokens * products + size.head + mixing.pair * pairs)
