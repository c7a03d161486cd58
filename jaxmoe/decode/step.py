"""The jit boundary: slots that decode side by side, one token a step each.

A slot holds one sample. `fill_slots` seats samples and draws each one's first token
from its prompt's logits; `decode_segment` runs a number of steps. On several devices
each does the same for its own slots, and they meet in every product by a weight that is
divided among them (`jaxmoe.sharding.collectives`).
"""

from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxmoe.config import ModelConfig
from jaxmoe.decode.cache import PrefixCache, SuffixCache
from jaxmoe.decode.sampler import (
    TokenSampler,
    is_stop,
    log_probability,
    self_certainty,
)
from jaxmoe.decode.slots import Drawn, Slots
from jaxmoe.nn.decoder import Attend, Decoder, bind, own_heads, param_specs
from jaxmoe.ops.attention.chunked import QKV
from jaxmoe.ops.attention.whole import attention_for
from jaxmoe.ops.experts import Implementation
from jaxmoe.ops.grouping import cut_blocks
from jaxmoe.random.keys import position_key, route_noise
from jaxmoe.router.policies import Policy
from jaxmoe.router.routing import choose_experts
from jaxmoe.sharding.collectives import WHOLE, DeviceContext, spread
from jaxmoe.sharding.layout import Layout
from jaxmoe.typing import Array, Bool, Float, Int, Integer, Key, Params

PROMPT_BLOCK = 8
"""Slots that read a prompt's prefix together, where several prompts are in flight."""


@partial(
    jax.jit,
    static_argnames=("return_certainty", "layout"),
    donate_argnames=("suffix",),
)
def fill_slots(
    prefix: PrefixCache,
    slots: Slots,
    suffix: SuffixCache,
    seats: Bool[Array, "S"],
    keys: Key[Array, "S"],
    prompt: Int[Array, "S"],
    limit: Int[Array, "S"],
    sampler: TokenSampler,
    stop_ids: Int[Array, "X"],
    *,
    return_certainty: bool = False,
    layout: Layout | None = None,
) -> tuple[Slots, SuffixCache, Drawn]:
    """Seat new samples where `seats` is true and draw their first tokens.

    keys, prompt, limit: of the new samples; looked at only where seated.
    sampler: a resolved one. layout: of weights and caches on several devices.
    """
    data = jax.random.key_data(keys)
    rest = (prefix, slots, suffix, seats, data, prompt, limit, sampler, stop_ids)
    if layout is None:
        return _fill(WHOLE, return_certainty, *rest)
    whole, own = layout.spec(), layout.spec("slots")
    prompts, *places = _places(len(suffix.k), layout)
    fill = spread(
        layout,
        partial(_fill, _decoding(layout), return_certainty),
        specs=(prompts, *places, own, own, own, own, whole, whole),
        out=(*places, whole),
    )
    return fill(*rest)


def _places(num_layers: int, layout: Layout) -> tuple[Any, ...]:
    """How prefix, slots and suffix lie on a mesh."""
    prefix = PrefixCache.specs(num_layers, layout)
    return prefix, Slots.specs(layout), SuffixCache.specs(num_layers, layout)


def _decoding(layout: Layout) -> DeviceContext:
    """A device's part while decoding."""
    return DeviceContext(layout, layout.rules.slots)


def _fill(
    part: DeviceContext,
    return_certainty: bool,
    prefix: PrefixCache,
    slots: Slots,
    suffix: SuffixCache,
    seats: Bool[Array, "S"],
    key_data: Integer[Array, "S 2"],
    prompt: Int[Array, "S"],
    limit: Int[Array, "S"],
    sampler: TokenSampler,
    stop_ids: Int[Array, "X"],
) -> tuple[Slots, SuffixCache, Drawn]:
    keys = jax.random.wrap_key_data(key_data)
    start = prefix.length[prompt]
    logits = prefix.logits[prompt]
    first = jax.vmap(position_key)(keys, start)
    tokens = jax.vmap(sampler.draw)(first, logits)
    going = ~is_stop(tokens, stop_ids) & (limit > 1)
    new = Slots(key_data, prompt, start, start, tokens, limit - 1, going)
    seated = lambda a: seats.reshape(-1, *(1 for _ in a.shape[1:]))  # noqa: E731
    slots = jax.tree.map(lambda a, b: jnp.where(seated(a), a, b), new, slots)
    logprobs = jax.vmap(log_probability)(logits, tokens)
    drawn = Drawn(
        tokens[:, None],
        logprobs[:, None],
        prefix.routes[prompt][:, None],
        seats.astype(jnp.int32),
        jax.vmap(self_certainty)(logits)[:, None] if return_certainty else None,
    )
    return slots, suffix.clear(seats), part.everyone(drawn)


@partial(
    jax.jit,
    static_argnames=(
        "config",
        "segment",
        "return_routes",
        "return_certainty",
        "implementation",
        "layout",
    ),
    donate_argnames=("suffix",),
)
def decode_segment(
    config: ModelConfig,
    params: Params,
    prefix: PrefixCache,
    slots: Slots,
    suffix: SuffixCache,
    policy: Policy,
    sampler: TokenSampler,
    stop_ids: Int[Array, "X"],
    steps: Int[Array, ""],
    enough: Int[Array, ""] | int = 1,
    routes: Int[Array, "S M L K"] | None = None,
    *,
    segment: int,
    return_routes: bool = False,
    return_certainty: bool = False,
    implementation: Implementation = "auto",
    layout: Layout | None = None,
) -> tuple[Slots, SuffixCache, Drawn]:
    """Up to `steps` <= `segment` tokens in each active slot.

    Args:
      policy, sampler: resolved ones.
      stop_ids: tokens that end an answer, padded with -1.
      enough: stop early when fewer slots than this are still active.
      routes: experts to take in each step instead, where not -1 (replay).
      segment: M, room for drawn tokens.
      layout: of weights and caches on several devices. What is drawn comes out whole
        on each.
    """

    def one_device(part: DeviceContext, params: Params, *rest):
        decoder = bind(config, own_heads(config, params, part))
        return _segment(
            decoder,
            *rest,
            segment=segment,
            return_routes=return_routes,
            return_certainty=return_certainty,
            implementation=implementation,
            part=part,
        )

    common = (policy, sampler, stop_ids, steps, enough)
    rest = (prefix, slots, suffix, *common, routes)
    if layout is None:
        return one_device(WHOLE, params, *rest)
    whole, own = layout.spec(), layout.spec("slots")
    prompts, *places = _places(config.num_layers, layout)
    run = spread(
        layout,
        partial(one_device, _decoding(layout)),
        specs=(
            param_specs(config, layout),
            prompts,
            *places,
            *(whole for _ in common),
            own,
        ),
        out=(*places, whole),
    )
    return run(params, *rest)


def _segment(
    decoder: Decoder,
    prefix: PrefixCache,
    slots: Slots,
    suffix: SuffixCache,
    policy: Policy,
    sampler: TokenSampler,
    stop_ids: Int[Array, "X"],
    steps: Int[Array, ""],
    enough: Int[Array, ""] | int,
    routes: Int[Array, "S M L K"] | None,
    *,
    segment: int,
    return_routes: bool,
    return_certainty: bool,
    implementation: Implementation,
    part: DeviceContext,
) -> tuple[Slots, SuffixCache, Drawn]:
    config = decoder.config
    count = slots.active.shape[0]
    drawn = Drawn(
        jnp.zeros((count, segment), jnp.int32),
        jnp.zeros((count, segment), jnp.float32),
        jnp.full((count, segment, config.num_layers, policy.width), -1, jnp.int16)
        if return_routes
        else None,
        jnp.zeros(count, jnp.int32),
        jnp.zeros((count, segment), jnp.float32) if return_certainty else None,
    )

    def busy(slots: Slots) -> Array:
        # Of all devices, so that all do the same number of steps together.
        return part.sum_rows(slots.active.sum()) >= jnp.maximum(enough, 1)

    def unfinished(carry):
        index, going, *_ = carry
        return (index < steps) & going

    def advance(carry):
        index, _, slots, suffix, drawn = carry
        forced = None if routes is None else routes[:, index]
        logits, taken, suffix = next_logits(
            decoder, prefix, slots, suffix, policy, forced, implementation, part
        )
        was_active = slots.active
        slots, logprobs, sure = _draw(
            slots, logits, sampler, stop_ids, return_certainty, part
        )
        new = Drawn(slots.token, logprobs, taken, was_active, sure)
        drawn = _record(drawn, index, new)
        return index + 1, busy(slots), slots, suffix, drawn

    start = (jnp.int32(0), busy(slots), slots, suffix, drawn)
    _, _, slots, suffix, drawn = lax.while_loop(unfinished, advance, start)
    return slots, suffix, part.everyone(drawn)


def next_logits(
    decoder: Decoder,
    prefix: PrefixCache,
    slots: Slots,
    suffix: SuffixCache,
    policy: Policy,
    routes: Int[Array, "S L K"] | None = None,
    implementation: Implementation = "auto",
    part: DeviceContext = WHOLE,
) -> tuple[Float[Array, "S V"], Int[Array, "S L K"], SuffixCache]:
    """One pass over the last token of each slot: logits, experts, longer caches.

    On several devices the logits are those of the part of the vocabulary that lies
    here.
    """
    config = decoder.config
    caches = [suffix]
    attend = _attend_with(config, prefix, slots, caches)
    noise = _step_noise(slots, policy, config)

    def choose(layer: int, ranking: Float[Array, "S E"]) -> Int[Array, "S K"]:
        return choose_experts(
            policy.at_layer(layer),
            ranking,
            None if noise is None else noise[:, layer],
            forced=None if routes is None else routes[:, layer].astype(jnp.int32),
            active=slots.active,
        )

    hidden, taken = decoder.hidden(
        slots.token,
        slots.position,
        slots.position + 1,
        attend=attend,
        choose=choose,
        width=policy.width,
        implementation=implementation,
        part=part,
    )
    return decoder.logits(hidden), taken, caches[0]


def _attend_with(
    config: ModelConfig, prefix: PrefixCache, slots: Slots, caches: list[SuffixCache]
) -> Attend:
    """Attention of each slot to its prompt and its own positions.

    caches: holds the suffix cache, replaced as each layer writes to it.
    """
    form = attention_for(jax.default_backend())
    own = slots.position - slots.start
    longest = jnp.where(slots.active, own + 1, 0).max()
    # In a slot at rest the write goes past the end, and is dropped.
    place = jnp.where(slots.active, own, caches[0].size)
    groups = jnp.where(slots.active, slots.prompt, -1)
    prompts = prefix.length.shape[0]
    size = min(PROMPT_BLOCK, slots.active.shape[0])
    blocks = cut_blocks(groups, prompts, size) if prompts > 1 else None

    def attend(layer: int, qkv: QKV) -> Array:
        caches[0] = caches[0].write(layer, qkv.k, qkv.v, place)
        window = config.layers[layer].mixer.window
        running = form.prefix(
            qkv.q,
            prefix.k[layer],
            prefix.v[layer],
            length=prefix.length,
            positions=slots.position,
            blocks=blocks,
            block=size,
            window=window,
        )
        return form.suffix(
            running,
            qkv.q,
            caches[0].k[layer],
            caches[0].v[layer],
            start=slots.start,
            positions=slots.position,
            longest=longest,
            window=window,
        )

    return attend


def _step_noise(slots: Slots, policy: Policy, config: ModelConfig):
    """Noise of all layers and slots in one call, float32 [S, L, E], or None."""
    if not policy.noisy:
        return None
    keys = slots.position_keys(slots.position)
    draw = partial(
        route_noise, num_layers=config.num_layers, num_experts=config.num_experts
    )
    return jax.vmap(draw)(keys)


def _draw(
    slots: Slots,
    logits: Float[Array, "S V"],
    sampler: TokenSampler,
    stop_ids: Int[Array, "X"],
    return_certainty: bool,
    part: DeviceContext,
) -> tuple[Slots, Float[Array, "S"], Float[Array, "S"] | None]:
    """Each active slot's next token, its log-probability and self-certainty."""
    position = jnp.where(slots.active, slots.position + 1, slots.position)
    # Devices that have the same slots draw some of them each.
    logits = part.rows_for_columns(logits, "vocab")
    own, at = part.mine((slots, position), "vocab")
    drawn = jax.vmap(sampler.draw)(own.position_keys(at), logits)
    tokens = jnp.where(own.active, drawn, own.token)
    logprobs = jax.vmap(log_probability)(logits, tokens)
    sure = jax.vmap(self_certainty)(logits) if return_certainty else None
    tokens, logprobs, sure = part.share(
        (tokens, logprobs, sure), "vocab", position.shape[0]
    )
    left = jnp.where(slots.active, slots.left - 1, slots.left)
    active = slots.active & ~is_stop(tokens, stop_ids) & (left > 0)
    slots = replace(slots, position=position, token=tokens, left=left, active=active)
    return slots, logprobs, sure


def _record(drawn: Drawn, index, new: Drawn) -> Drawn:
    """`drawn` with column `index`; what slots at rest write is past their count."""

    def put(into: Array, column: Array) -> Array:
        return lax.dynamic_update_index_in_dim(into, column, index, axis=1)

    def put_asked(into: Array | None, column: Array | None) -> Array | None:
        return None if into is None or column is None else put(into, column)

    return Drawn(
        put(drawn.tokens, new.tokens),
        put(drawn.logprobs, new.logprobs),
        put_asked(drawn.routes, new.routes),
        drawn.count + new.count,
        put_asked(drawn.certainties, new.certainties),
    )
