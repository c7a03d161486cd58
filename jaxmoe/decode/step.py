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
from jaxmoe.decode.cache import PrefixCache, fork
from jaxmoe.decode.sampler import (
    TokenSampler,
    is_stop,
    log_probability,
    self_certainty,
)
from jaxmoe.decode.slots import Drawn, Slots
from jaxmoe.execution import Execution
from jaxmoe.nn.base import Context, Step
from jaxmoe.nn.decoder import Decoder, bind, one_step, param_specs, state_specs
from jaxmoe.ops.grouping import cut_blocks
from jaxmoe.random.keys import position_key, route_noise
from jaxmoe.router.policies import Policy
from jaxmoe.router.routing import choose_experts, of_layer
from jaxmoe.sharding.collectives import DeviceContext, spread
from jaxmoe.typing import Array, Bool, Float, Int, Integer, Key, Params

PROMPT_BLOCK = 8
"""Slots that read a prompt's prefix together, where several prompts are in flight."""


@partial(
    jax.jit,
    static_argnames=("config", "return_certainty", "execution"),
    donate_argnames=("states",),
)
def fill_slots(
    config: ModelConfig,
    prefix: PrefixCache,
    slots: Slots,
    states: tuple[Any, ...],
    seats: Bool[Array, "S"],
    keys: Key[Array, "S"],
    prompt: Int[Array, "S"],
    limit: Int[Array, "S"],
    sampler: TokenSampler,
    stop_ids: Int[Array, "X"],
    *,
    return_certainty: bool = False,
    execution: Execution,
) -> tuple[Slots, tuple[Any, ...], Drawn]:
    """Seat new samples where `seats` is true and draw their first tokens.

    keys, prompt, limit: of the new samples; looked at only where seated.
    sampler: a resolved one. execution: mesh and kernels.
    """
    data = jax.random.key_data(keys)
    rest = (prefix, slots, states, seats, data, prompt, limit, sampler, stop_ids)
    layout = execution.layout
    whole, own = layout.spec(), layout.spec("slots")
    prompts, *places = _places(config, execution)
    fill = spread(
        layout,
        partial(_fill, _decoding(execution).device, return_certainty),
        specs=(prompts, *places, own, own, own, own, whole, whole),
        out=(*places, whole),
    )
    return fill(*rest)


def _places(config: ModelConfig, execution: Execution) -> tuple[Any, ...]:
    """How prefix, slots and their states lie on a mesh."""
    slots = Slots.specs(execution.layout)
    own = state_specs(config, execution, "slots")
    return PrefixCache.specs(config, execution), slots, own


def _decoding(execution: Execution) -> Context:
    """What a device runs on while decoding."""
    layout = execution.layout
    return Context(execution, DeviceContext(layout, layout.rules.slots))


def _fill(
    part: DeviceContext,
    return_certainty: bool,
    prefix: PrefixCache,
    slots: Slots,
    states: tuple[Any, ...],
    seats: Bool[Array, "S"],
    key_data: Integer[Array, "S 2"],
    prompt: Int[Array, "S"],
    limit: Int[Array, "S"],
    sampler: TokenSampler,
    stop_ids: Int[Array, "X"],
) -> tuple[Slots, tuple[Any, ...], Drawn]:
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
    return slots, fork(states, prefix, prompt, seats), part.everyone(drawn)


@partial(
    jax.jit,
    static_argnames=(
        "config",
        "segment",
        "return_routes",
        "return_certainty",
        "execution",
    ),
    donate_argnames=("states",),
)
def decode_segment(
    config: ModelConfig,
    params: Params,
    prefix: PrefixCache,
    slots: Slots,
    states: tuple[Any, ...],
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
    execution: Execution,
) -> tuple[Slots, tuple[Any, ...], Drawn]:
    """Up to `steps` <= `segment` tokens in each active slot.

    Args:
      policy, sampler: resolved ones.
      stop_ids: tokens that end an answer, padded with -1.
      enough: stop early when fewer slots than this are still active.
      routes: experts to take in each step instead, where not -1 (replay).
      segment: M, room for drawn tokens.
      execution: mesh and kernels (`Model.execution`). On several devices what is
        drawn comes out whole on each.
    """

    context = _decoding(execution)

    def one_device(params: Params, *rest):
        return _segment(
            bind(config, params, context),
            *rest,
            segment=segment,
            return_routes=return_routes,
            return_certainty=return_certainty,
            context=context,
        )

    layout = execution.layout
    common = (policy, sampler, stop_ids, steps, enough)
    rest = (prefix, slots, states, *common, routes)
    whole, own = layout.spec(), layout.spec("slots")
    prompts, *places = _places(config, execution)
    weights = param_specs(config, layout, layers=execution.layers)
    run = spread(
        layout,
        one_device,
        specs=(weights, prompts, *places, *(whole for _ in common), own),
        out=(*places, whole),
    )
    return run(params, *rest)


def _segment(
    decoder: Decoder,
    prefix: PrefixCache,
    slots: Slots,
    states: tuple[Any, ...],
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
    context: Context,
) -> tuple[Slots, tuple[Any, ...], Drawn]:
    config, part = decoder.config, context.device
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
        index, _, slots, states, drawn = carry
        forced = None if routes is None else routes[:, index]
        logits, taken, states = next_logits(
            decoder, prefix, slots, states, policy, context, forced
        )
        was_active = slots.active
        slots, logprobs, sure = _draw(
            slots, logits, sampler, stop_ids, return_certainty, part
        )
        new = Drawn(slots.token, logprobs, taken, was_active, sure)
        drawn = _record(drawn, index, new)
        return index + 1, busy(slots), slots, states, drawn

    start = (jnp.int32(0), busy(slots), slots, states, drawn)
    _, _, slots, states, drawn = lax.while_loop(unfinished, advance, start)
    return slots, states, part.everyone(drawn)


def next_logits(
    decoder: Decoder,
    prefix: PrefixCache,
    slots: Slots,
    states: tuple[Any, ...],
    policy: Policy,
    context: Context,
    routes: Int[Array, "S L K"] | None = None,
) -> tuple[Float[Array, "S V"], Int[Array, "S L K"], tuple[Any, ...]]:
    """One pass over the last token of each slot: logits, experts, states carried on.

    On several devices the logits are those of the part of the vocabulary that lies
    here.
    """
    noise = _step_noise(slots, policy, decoder.config)

    def choose(layer: Array | int, ranking: Float[Array, "S E"]) -> Int[Array, "S K"]:
        return choose_experts(
            policy.at_layer(layer),
            ranking,
            of_layer(noise, layer),
            forced=of_layer(routes, layer, jnp.int32),
            active=slots.active,
        )

    passed = decoder.run(
        slots.token,
        one_step(prefix.states, _step(prefix, slots), context),
        choose,
        context,
        width=policy.width,
        states=states,
    )
    return decoder.logits(passed.hidden, context), passed.routes, passed.states


def _step(prefix: PrefixCache, slots: Slots) -> Step:
    """What mixers are told of the slots; those that share a prompt read it together."""
    groups = jnp.where(slots.active, slots.prompt, -1)
    prompts = prefix.length.shape[0]
    block = min(PROMPT_BLOCK, slots.active.shape[0])
    return Step(
        positions=slots.position,
        start=slots.start,
        active=slots.active,
        longest=jnp.where(slots.active, slots.position - slots.start + 1, 0).max(),
        prompt_lengths=prefix.length,
        blocks=cut_blocks(groups, prompts, block) if prompts > 1 else None,
        block=block,
    )


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
