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
from jaxmoe.decode.program import program
from jaxmoe.decode.sampler import TokenSampler, is_stop
from jaxmoe.decode.slots import Slots
from jaxmoe.decode.trace import Drawn, Record, TokenTrace, empty, of_logits, put
from jaxmoe.execution import Execution
from jaxmoe.nn.base import Context, Step
from jaxmoe.nn.decoder import (
    Decoder,
    Passed,
    bind,
    one_step,
    param_specs,
    state_specs,
)
from jaxmoe.ops.grouping import cut_blocks
from jaxmoe.random.keys import position_key, route_noise
from jaxmoe.router.policies import Policy
from jaxmoe.router.routing import choose_experts, every_route_logprob, of_layer
from jaxmoe.sharding.collectives import DeviceContext, spread
from jaxmoe.typing import Array, Bool, Float, Int, Integer, Key, Params

PROMPT_BLOCK = 8
"""Slots that read a prompt's prefix together, where several prompts are in flight."""


@program(
    static_argnames=("config", "record", "execution"),
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
    record: Record = Record(),
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
        partial(_fill, _decoding(execution).device, record),
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
    device: DeviceContext,
    record: Record,
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
    trace = of_logits(record, logits, tokens)
    if record.routes:
        trace = trace._replace(routes=prefix.routes[prompt])
    if record.route_logprobs:
        trace = trace._replace(route_logprobs=prefix.route_logprobs[prompt])
    trace = jax.tree.map(lambda a: a[:, None], trace)
    drawn = Drawn(trace, seats.astype(jnp.int32))
    return slots, fork(states, prefix, prompt, seats), device.everyone(drawn)


@program(
    static_argnames=(
        "config",
        "segment",
        "record",
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
    record: Record = Record(),
    execution: Execution,
) -> tuple[Slots, tuple[Any, ...], Drawn]:
    """Up to `steps` <= `segment` tokens in each active slot.

    Args:
      policy, sampler: resolved ones.
      stop_ids: tokens that end an answer, padded with -1.
      enough: stop early when fewer slots than this are still active.
      routes: experts to take in each step instead, where not -1 (replay).
      segment: M, room for drawn tokens.
      record: what is recorded of each token.
      execution: mesh and kernels (`Model.execution`). On several devices what is
        drawn comes out whole on each.
    """

    context = _decoding(execution)

    def one_device(params: Params, *rest):
        return _segment(
            bind(config, params, context),
            *rest,
            segment=segment,
            record=record,
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
    record: Record,
    context: Context,
) -> tuple[Slots, tuple[Any, ...], Drawn]:
    config, device = decoder.config, context.device
    count = slots.active.shape[0]
    room = empty(
        record,
        rows=count,
        steps=segment,
        layers=config.num_layers,
        width=policy.width,
    )
    drawn = Drawn(room, jnp.zeros(count, jnp.int32))

    def busy(slots: Slots) -> Array:
        # Of all devices, so that all do the same number of steps together.
        return device.sum_rows(slots.active.sum()) >= jnp.maximum(enough, 1)

    def unfinished(carry):
        index, going, *_ = carry
        return (index < steps) & going

    def advance(carry):
        index, _, slots, states, drawn = carry
        forced = None if routes is None else routes[:, index]
        passed = next_pass(
            decoder, prefix, slots, states, policy, context, forced, record
        )
        was_active, logits = slots.active, decoder.logits(passed.hidden, context)
        slots, trace = _draw(slots, logits, sampler, stop_ids, record, device)
        if record.routes:
            trace = trace._replace(routes=passed.routes)
        if record.route_logprobs:
            chances = every_route_logprob(
                policy, config.moe_layers, passed.rankings, passed.routes, was_active
            )
            trace = trace._replace(route_logprobs=chances)
        # What slots at rest write is past their count.
        drawn = Drawn(put(drawn.trace, index, trace), drawn.count + was_active)
        return index + 1, busy(slots), slots, passed.states, drawn

    start = (jnp.int32(0), busy(slots), slots, states, drawn)
    _, _, slots, states, drawn = lax.while_loop(unfinished, advance, start)
    return slots, states, device.everyone(drawn)


def next_pass(
    decoder: Decoder,
    prefix: PrefixCache,
    slots: Slots,
    states: tuple[Any, ...],
    policy: Policy,
    context: Context,
    routes: Int[Array, "S L K"] | None = None,
    record: Record = Record(),
) -> Passed:
    """One pass over the last token of each slot, its states carried on."""
    noise = _step_noise(slots, policy, decoder.config)

    def choose(layer: Array | int, ranking: Float[Array, "S E"]) -> Int[Array, "S K"]:
        return choose_experts(
            policy.at_layer(layer),
            ranking,
            of_layer(noise, layer),
            forced=of_layer(routes, layer, jnp.int32),
            active=slots.active,
        )

    return decoder.run(
        slots.token,
        one_step(prefix.states, _step(prefix, slots), context),
        choose,
        context,
        width=policy.width,
        states=states,
        keep_rankings=record.route_logprobs,
    )


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
    record: Record,
    device: DeviceContext,
) -> tuple[Slots, TokenTrace]:
    """Each active slot's next token, and what the logits tell of it.

    On several devices the logits are those of the part of the vocabulary that lies
    here.
    """
    position = jnp.where(slots.active, slots.position + 1, slots.position)
    # Devices that have the same slots draw some of them each.
    logits = device.rows_for_columns(logits, "vocab")
    own, at = device.mine((slots, position), "vocab")
    drawn = jax.vmap(sampler.draw)(own.position_keys(at), logits)
    tokens = jnp.where(own.active, drawn, own.token)
    trace = of_logits(record, logits, tokens)
    trace = device.share(trace, "vocab", position.shape[0])
    left = jnp.where(slots.active, slots.left - 1, slots.left)
    active = slots.active & ~is_stop(trace.token, stop_ids) & (left > 0)
    slots = replace(
        slots, position=position, token=trace.token, left=left, active=active
    )
    return slots, trace
