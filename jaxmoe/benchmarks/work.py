"""The work that a pass cannot avoid: bytes to move, operations to do.

A floor in time is bytes over bandwidth, or operations over the rate of a product. It
is for mixtures with full attention.
"""

import math
from dataclasses import dataclass

from jaxmoe.config import ModelConfig
from jaxmoe.nn.decoder import abstract_params, logical_axes


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
    position: keys and values of one position. head: the output head.
    attended: query heads times head dimension, summed over layers.
    """

    always: int
    expert: int
    matrices: int
    position: int
    head: int
    attended: int


def sizes(config: ModelConfig) -> Sizes:
    """Counted from the declared weights."""
    shapes = {name: leaf.shape for name, leaf in abstract_params(config).items()}
    stacks = {n for n, axes in logical_axes(config).items() if "experts" in axes}
    table = "embed.weight"
    read = [
        shape
        for name, shape in shapes.items()
        if name not in stacks and (name != table or config.tie_embeddings)
    ]
    mixers = [layer.mixer for layer in config.layers]
    return Sizes(
        always=sum(math.prod(shape) for shape in read),
        expert=sum(math.prod(shapes[name][1:]) for name in stacks),
        matrices=sum(math.prod(shape) for shape in read if len(shape) > 1),
        position=sum(2 * m.num_kv_heads * m.head_dim for m in mixers),
        head=math.prod(shapes[table]),
        attended=sum(m.num_heads * m.head_dim for m in mixers),
    )


def step(
    config: ModelConfig,
    *,
    n: int,
    prompt: int,
    own: float,
    distinct: float,
    weight_bytes: int,
    cache_bytes: int,
) -> Work:
    """One step of n samples of one prompt.

    own: positions that each sample has passed since its prompt. distinct: experts
      that a layer reads, on average. weight_bytes, cache_bytes: of one element.
    """
    size = sizes(config)
    rows = n * config.d_model
    weights = size.always + distinct * size.expert + rows
    # The prompt's positions are read once for all samples; each writes one of its own.
    cached = size.position * (prompt + n * own + n)
    moved = weights * weight_bytes + cached * cache_bytes
    products = size.matrices + config.experts_per_token * size.expert
    # Scores and sums over the cache: two products a position.
    attention = 2 * size.attended * (prompt + own + 1)
    return Work(moved, 2 * n * (products + attention))


def prefill_operations(config: ModelConfig, tokens: int) -> float:
    """Operations of one pass over a prompt, with logits of its last token only."""
    size = sizes(config)
    products = size.matrices - size.head + config.experts_per_token * size.expert
    pairs = tokens * (tokens + 1) / 2
    return 2 * (tokens * products + size.head + 2 * size.attended * pairs)
