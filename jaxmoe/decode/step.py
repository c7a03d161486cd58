"""The jit boundary: slots that decode side by side, one token a step each.

A slot holds one sample. `fill_slots` seats samples and draws each one's first token
from its prompt's logits; `decode_segment` runs a number of steps; `generate` is both
for one prompt, as a single function to call inside a user's own `jit`.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxmoe.cache import PrefixCache, SuffixCache, bucket
from jaxmoe.config import ModelConfig
from jaxmoe.decode.prefill import prefill
from jaxmoe.decode.tokens import (
    TokenSampler,
    is_stop,
    log_probability,
    self_certainty,
)
from jaxmoe.experts import Implementation
from jaxmoe.grouping import cut_blocks
from jaxmoe.keys import position_key, route_noise
from jaxmoe.nn.attend import QKV
from jaxmoe.nn.attend_whole import attention_for
from jaxmoe.nn.decoder import Attend, Decoder, bind, compute_dtype
from jaxmoe.nn.moe import choose_experts
from jaxmoe.router.policies import Policy, for_model
from jaxmoe.typing import Array, Bool, Float, Int, Key, Params

PROMPT_BLOCK = 8
"""Slots that read a prompt's prefix together, where several prompts are in flight."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Slots:
    """The samples under way; every array is [S] but for `key_data`.

    key_data: uint32 [S, 2], the bits of each sample's key k_i, which is folded at
    every step and never drawn from. prompt: its entry in the prefix cache.
    start: length of its prompt, int32. position: where `token`, its last drawn token,
    stands. left: tokens it may still draw. active: whether it is still drawing.
    """

    key_data: Array
    prompt: Array
    start: Array
    position: Array
    token: Array
    left: Array
    active: Array

    def position_keys(self, position: Array) -> Array:
        """k_it of each slot's sample at `position` [S]."""
        return jax.vmap(position_key)(jax.random.wrap_key_data(self.key_data), position)

    @classmethod
    def empty(cls, slots: int) -> "Slots":
        """Slots with no sample in them."""
        zeros = jnp.zeros(slots, jnp.int32)
        key_data = jnp.zeros((slots, 2), jnp.uint32)
        inactive = jnp.zeros(slots, bool)
        return cls(key_data, zeros, zeros, zeros, zeros, zeros, inactive)


class Drawn(NamedTuple):
    """Tokens drawn in M steps, the first `count` [S] columns of each row.

    tokens: int32 [S, M]. logprobs: float32 [S, M]. routes: int16 [S, M, L, K], and
    certainties: float32 [S, M] (`self_certainty`), or None where not asked for.
    """

    tokens: Array
    logprobs: Array
    routes: Array | None
    count: Array
    certainties: Array | None = None


@partial(jax.jit, static_argnames=("return_certainty",), donate_argnames=("suffix",))
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
) -> tuple[Slots, SuffixCache, Drawn]:
    """Seat new samples where `seats` is true and draw their first tokens.

    keys, prompt, limit: of the new samples; looked at only where seated.
    sampler: a resolved one.
    """
    start = prefix.length[prompt]
    logits = prefix.logits[prompt]
    first = jax.vmap(position_key)(keys, start)
    tokens = jax.vmap(sampler.draw)(first, logits)
    going = ~is_stop(tokens, stop_ids) & (limit > 1)
    data = jax.random.key_data(keys)
    new = Slots(data, prompt, start, start, tokens, limit - 1, going)
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
    return slots, suffix.clear(seats), drawn


@partial(
    jax.jit,
    static_argnames=(
        "config",
        "segment",
        "return_routes",
        "return_certainty",
        "implementation",
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
) -> tuple[Slots, SuffixCache, Drawn]:
    """Up to `steps` <= `segment` tokens in each active slot.

    Args:
      policy, sampler: resolved ones.
      stop_ids: tokens that end an answer, padded with -1.
      enough: stop early when fewer slots than this are still active.
      routes: experts to take in each step instead, where not -1 (replay).
      segment: M, room for drawn tokens.
    """
    decoder = bind(config, params)
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

    def unfinished(carry):
        index, slots, _, _ = carry
        return (index < steps) & (slots.active.sum() >= jnp.maximum(enough, 1))

    def advance(carry):
        index, slots, suffix, drawn = carry
        forced = None if routes is None else routes[:, index]
        logits, taken, suffix = next_logits(
            decoder, prefix, slots, suffix, policy, forced, implementation
        )
        was_active = slots.active
        slots, logprobs = _draw(slots, logits, sampler, stop_ids)
        sure = jax.vmap(self_certainty)(logits) if return_certainty else None
        new = Drawn(slots.token, logprobs, taken, was_active, sure)
        drawn = _record(drawn, index, new)
        return index + 1, slots, suffix, drawn

    start = (jnp.int32(0), slots, suffix, drawn)
    _, slots, suffix, drawn = lax.while_loop(unfinished, advance, start)
    return slots, suffix, drawn


def next_logits(
    decoder: Decoder,
    prefix: PrefixCache,
    slots: Slots,
    suffix: SuffixCache,
    policy: Policy,
    routes: Int[Array, "S L K"] | None = None,
    implementation: Implementation = "auto",
) -> tuple[Float[Array, "S V"], Int[Array, "S L K"], SuffixCache]:
    """One pass over the last token of each slot: logits, experts, longer caches."""
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
) -> tuple[Slots, Float[Array, "S"]]:
    """Each active slot's next token, and its log-probability."""
    position = jnp.where(slots.active, slots.position + 1, slots.position)
    keys = slots.position_keys(position)
    tokens = jnp.where(slots.active, jax.vmap(sampler.draw)(keys, logits), slots.token)
    left = jnp.where(slots.active, slots.left - 1, slots.left)
    active = slots.active & ~is_stop(tokens, stop_ids) & (left > 0)
    logprobs = jax.vmap(log_probability)(logits, tokens)
    slots = replace(slots, position=position, token=tokens, left=left, active=active)
    return slots, logprobs


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


def generate(
    config: ModelConfig,
    params: Params,
    tokens: Int[Array, "T"],
    length: Int[Array, ""] | int,
    keys: Key[Array, "S"],
    *,
    policy: Policy,
    sampler: TokenSampler,
    max_new_tokens: int,
    stop_ids: tuple[int, ...] | None = None,
    return_routes: bool = False,
    implementation: Implementation = "auto",
) -> Drawn:
    """Answers of one prompt, one a key: prefill and decode as one pure function.

    Everything but `config` and the keyword arguments that set shapes may be traced.

    Args:
      tokens: the prompt, padded to any length; `length` of them count.
      keys: the samples' keys k_i, e.g. `jaxmoe.keys.sample_keys(key, n)`.
      policy, sampler: as given to `jaxmoe.sample`; resolved here.
      stop_ids: None for the model's own.

    Returns:
      Tokens [S, max_new_tokens], with their number in `count`.
    """
    policy = for_model(policy, config)
    sampler = sampler.resolve(config.vocab_size)
    plain = policy.deterministic(config.num_layers)
    prompt = prefill(
        config,
        params,
        tokens,
        jnp.asarray(length, jnp.int32),
        plain,
        implementation=implementation,
    )
    count, dtype = keys.shape[0], compute_dtype(params["embed.weight"])
    prefix = PrefixCache.empty(
        config,
        prompts=1,
        size=bucket(tokens.shape[0]),
        width=policy.width,
        dtype=dtype,
    ).put(jnp.int32(0), prompt)
    suffix = SuffixCache.empty(
        config, slots=count, size=bucket(max_new_tokens), dtype=dtype
    )
    stops = jnp.asarray(config.stop_ids if stop_ids is None else stop_ids, jnp.int32)
    everyone = jnp.ones(count, bool)
    limit = jnp.full(count, max_new_tokens, jnp.int32)
    none = jnp.zeros(count, jnp.int32)
    slots, suffix, first = fill_slots(
        prefix, Slots.empty(count), suffix, everyone, keys, none, limit, sampler, stops
    )
    _, _, rest = decode_segment(
        config,
        params,
        prefix,
        slots,
        suffix,
        policy,
        sampler,
        stops,
        jnp.int32(max_new_tokens - 1),
        segment=max(max_new_tokens - 1, 1),
        return_routes=return_routes,
        implementation=implementation,
    )
    join = lambda a, b: jnp.concatenate([a, b], axis=1)[:, :max_new_tokens]  # noqa: E731
    return Drawn(
        join(first.tokens, rest.tokens),
        join(first.logprobs, rest.logprobs),
        join(first.routes, rest.routes) if return_routes else None,
        first.count + rest.count,
    )
