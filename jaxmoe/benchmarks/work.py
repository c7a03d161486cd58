"""The work that a pass cannot avoid: bytes to move, operations to do.

A floor in time is bytes over bandwidth, or operations over the rate of a product. It
is for mixtures whose layers see all positions.
"""

import math
from dataclasses import dataclass

from jaxmoe.config import ModelConfig
from jaxmoe.nn.decoder import abstract_params, logical_axes
from jaxmoe.nn.mixers import kind_of
from jaxmoe.planning.memory import row_bytes
from jaxmoe.planning.plan import mesh_of
from jaxmoe.sharding.layout import Layout
from jaxmoe.sharding.rules import DATA, Rules

ONE_DEVICE = Layout(mesh_of({DATA: 1}), Rules())


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
    attended: products of a row for every position that it sees. fixed: those that a
      layer's state costs it whatever the length.
    """

    always: int
    expert: int
    matrices: int
    position: int
    head: int
    attended: int
    fixed: int


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
    products = [kind_of(mixer).module.products(mixer) for mixer in mixers]
    return Sizes(
        always=sum(math.prod(shape) for shape in read),
        expert=sum(math.prod(shapes[name][1:]) for name in stacks),
        matrices=sum(math.prod(shape) for shape in read if len(shape) > 1),
        position=row_bytes(config, ONE_DEVICE, 1).position,
        head=math.prod(shapes[table]),
        attended=sum(p.position for p in products),
        fixed=sum(p.fixed for p in products),
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
    # States of fixed size are read and written whole.
    states = 2 * n * row_bytes(config, ONE_DEVICE, cache_bytes).fixed
    moved = weights * weight_bytes + cached * cache_bytes + states
    products = size.matrices + config.experts_per_token * size.expert
    mixing = size.attended * (prompt + own + 1) + size.fixed
    return Work(moved, 2 * n * (products + mixing))


def prefill_operations(config: ModelConfig, tokens: int) -> float:
    """Operations of one pass over a prompt, with logits of its last token only."""
    size = sizes(config)
    products = size.matrices - size.head + config.experts_per_token * size.expert
    pairs = tokens * (tokens + 1) / 2
    mixing = tokens * size.fixed + size.attended * pairs
    return 2 * (tokens * products + size.head + mixing)
