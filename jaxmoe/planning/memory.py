"""Bytes on each device: weights and caches exactly, what comes besides roughly.

All devices hold the same number of bytes: rules divide evenly, or not at all.
"""

import math
from collections import Counter
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

import jax.numpy as jnp

from jaxmoe.config import ModelConfig, MoEConfig
from jaxmoe.decode.cache import bucket
from jaxmoe.decode.memory import FIRST_ANSWER
from jaxmoe.decode.prefill import prompt_bucket
from jaxmoe.nn.decoder import abstract_params, fixed_dtypes, logical_axes, read_shape
from jaxmoe.nn.mixers import held, kind_of, work
from jaxmoe.ops.attention.chunked import CHUNK
from jaxmoe.ops.attention.whole import SCORES_AT_ONCE
from jaxmoe.sharding.collectives import DeviceContext
from jaxmoe.sharding.layout import Layout


def itemsize(dtype: str) -> int:
    """Bytes of one value.

    Raises:
      TypeError: no such type.
    """
    return jnp.dtype(dtype).itemsize


class Weight(NamedTuple):
    """One shape of weight, and how many of it a model has.

    shape: whole. axes: its logical axes. part: "experts" for a stack of them, "table"
    for an embedding that is no head too, else "rest". fixed: its type where that is
    the same in every model.
    """

    shape: tuple[int, ...]
    axes: tuple[str, ...]
    part: Literal["experts", "table", "rest"]
    fixed: str | None
    count: int

    def itemsize(self, dtype: str) -> int:
        """Bytes of one value in a model of this type."""
        return itemsize(self.fixed or dtype)

    def own(self, layout: Layout) -> tuple[int, ...]:
        """The shape of what lies on one device."""
        over = [layout.size(layout.rules.of(axis)) for axis in self.axes]
        return tuple(size // n for size, n in zip(self.shape, over, strict=True))

    def read(self, layout: Layout) -> tuple[int, ...]:
        """The shape of what the device computes with, which may be less."""
        return read_shape(self.shape, self.axes, layout)


@lru_cache(maxsize=32)
def weights_of(config: ModelConfig) -> tuple[Weight, ...]:
    """Every weight of a model, those alike taken together."""
    axes, fixed = logical_axes(config), fixed_dtypes(config)

    def part(name: str) -> Literal["experts", "table", "rest"]:
        if name == "embed.weight" and not config.tie_embeddings:
            return "table"
        return "experts" if "experts" in axes[name] else "rest"

    found = Counter(
        (
            leaf.shape,
            axes[name],
            part(name),
            fixed[name].name if name in fixed else None,
        )
        for name, leaf in abstract_params(config).items()
    )
    return tuple(Weight(*kind, count) for kind, count in found.items())  # type: ignore[arg-type]


def weight_bytes(config: ModelConfig, layout: Layout, dtype: str) -> int:
    """Bytes of weights on each device."""
    return sum(
        w.count * math.prod(w.own(layout)) * w.itemsize(dtype)
        for w in weights_of(config)
    )


@dataclass(frozen=True)
class Caches:
    """Bytes of caches on each device.

    prefix: of the prompt, which all its samples share: its states, and the logits and
      routes of its last token. suffix: of the slots' own. growing: one state of the
      suffix as it was, beside which it grows for the last time. replaced: what of the
      suffix every step writes anew.
    """

    prefix: int
    suffix: int
    growing: int
    replaced: int = 0

    @property
    def total(self) -> int:
        """Bytes held while decoding."""
        return self.prefix + self.suffix


def prefix_size(prompt: int) -> int:
    """Positions allocated for a prompt of so many tokens."""
    return max(CHUNK, prompt_bucket(prompt))


def suffix_size(own: int) -> int:
    """Positions allocated for answers of up to `own` tokens, in the end."""
    return bucket(own)


def cache_bytes(
    config: ModelConfig,
    layout: Layout,
    *,
    slots: int,
    prompt: int,
    own: int,
    dtype: str,
) -> Caches:
    """Caches of `slots` samples of one prompt, as the engine allocates them.

    Args:
      slots: on all devices together; their parts are equal (`Layout.slots`).
      prompt: tokens. own: the most tokens of an answer.
    """
    position, fixed = held(config, layout, dtype)
    rows = slots // layout.size(layout.rules.slots)
    size = suffix_size(own)
    first = bucket(min(own, FIRST_ANSWER))
    last = 4 * config.vocab_size + 4
    # Routes of the prompt's last token, and their log-probabilities.
    last += config.num_layers * (2 * config.experts_per_token + 4)
    return Caches(
        prefix=position * prefix_size(prompt) + fixed + last,
        suffix=rows * (position * size + fixed),
        # One layer's state at a time; the last size but one was half of it.
        growing=position * rows * size // (2 * _growing_layers(config, layout, dtype))
        if size > first
        else 0,
        replaced=rows * fixed,
    )


def _growing_layers(config: ModelConfig, layout: Layout, dtype: str) -> int:
    """Layers whose states grow with positions; 1 where none does."""
    counts = Counter(layer.mixer for layer in config.layers)
    grows = lambda m: kind_of(m).state.held(m, dtype=dtype, layout=layout).position > 0  # noqa: E731
    return max(1, sum(count for mixer, count in counts.items() if grows(mixer)))


def buffer_bytes(
    config: ModelConfig,
    layout: Layout,
    *,
    slots: int,
    prompt: int,
    own: int,
    dtype: str,
    passes: int = 1,
) -> int:
    """What is there for a while, at the worst time: an estimate.

    The larger of a step, a pass over the prompt, and the growth of the suffix cache.
    Counted are the arrays that an accelerator's forms of attention and experts name
    (`nn.attend_whole`, `experts.ragged`) and logits with two copies; a compiler may
    do with less, or hold more.
    """
    caches = cache_bytes(
        config, layout, slots=slots, prompt=prompt, own=own, dtype=dtype
    )
    part = DeviceContext(layout, layout.rules.slots)
    rows = passes * slots // part.count("slots")
    gathered = rows * _apart(part)
    longest = max(prefix_size(prompt), suffix_size(own))
    heads = work(config, layout).scores
    logits = 3 * 4 * rows * config.vocab_size // part.count("vocab")
    # Scores, weights, and the sums of each chunk's values.
    scores = 3 * 4 * rows * heads * longest
    step = logits + scores + _expert_buffers(config, layout, gathered, dtype)
    tokens = prompt_bucket(prompt)
    scores = 3 * 4 * min(SCORES_AT_ONCE, heads * tokens * tokens)
    whole = scores + _expert_buffers(config, layout, tokens, dtype)
    # The prompt's states as they are captured, and in the cache's order.
    state = held(config, layout, dtype)
    whole += 2 * (tokens * state.position + state.fixed)
    return max(step, whole, caches.growing)


def _apart(part: DeviceContext) -> int:
    """Devices whose rows are gathered for their experts."""
    axes = [a for a in part.axes("experts", "expert_mlp") if a in part.rows]
    assert part.layout is not None
    return part.layout.size(axes)


def _expert_buffers(config: ModelConfig, layout: Layout, rows: int, dtype: str) -> int:
    """Sorted rows, gated and activated hidden units, and results in two orders."""
    moe = [c.feed_forward for c in config.layers]
    hidden = max((ff.hidden for ff in moe if isinstance(ff, MoEConfig)), default=0)
    hidden //= layout.size(layout.rules.expert_mlp)
    size, wide = itemsize(dtype), 4
    pair = config.d_model * (size + 2 * wide) + hidden * (2 * wide + size)
    return rows * config.experts_per_token * pair
