"""The jit boundary: slots that decode side by side, one token a step each.

A slot holds one sample. `fill_slots` admits samples and draws each one's first token
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
from jaxmoe.decode import ensemble
from jaxmoe.decode.adjustments import History, adjust, allow_only
from jaxmoe.decode.cache import PrefixCache, fork
from jaxmoe.decode.program import program
from jaxmoe.decode.sampler import TokenSampler, is_stop
from jaxmoe.decode.slot_sampler import SlotSampler
from jaxmoe.decode.slots import (
    Admission,
    Running,
    SlotRules,
    Slots,
    Turn,
    step_of,
)
from jaxmoe.decode.trace import Drawn, Record, TokenTrace, empty, of_logits, put
from jaxmoe.execution import Execution
from jaxmoe.nn.base import Context
from jaxmoe.nn.decoder import (
    Decoder,
    Passed,
    bind,
    one_step,
    param_specs,
    state_specs,
)
from jaxmoe.random.keys import position_key, route_noise
from jaxmoe.router.ensemble import RouteEnsemble
from jaxmoe.router.per_slot import PerSlot
from jaxmoe.router.policies import Policy
from jaxmoe.router.routing import choose_experts, every_route_logprob, of_layer
from jaxmoe.sharding.collectives import DeviceContext, spread
from jaxmoe.sharding.layout import Layout
from jaxmoe.typing import Array, Bool, Float, Int, Key, Params


@program(
    static_argnames=("config", "record", "execution"), donate_argnames=("running",)
)
def fill_slots(
    config: ModelConfig,
    prefix: PrefixCache,
    running: Running,
    admission: Admission,
    rules: SlotRules,
    *,
    record: Record = Record(),
    execution: Execution,
) -> tuple[Running, Drawn]:
    """Give samples their slots and draw their first tokens.

    Args:
      running: it is consumed: what comes out takes its place.
      record: what is recorded of each token.
      execution: mesh and kernels (`Model.execution`).
    """
    layout = execution.layout
    prompts, places = _places(config, execution)
    own = layout.spec("slots")
    fill = spread(
        layout,
        partial(_fill, decode_context(execution).device, record),
        specs=(prompts, places, own, _rule_specs(rules, layout)),
        out=(places, layout.spec()),
    )
    return fill(prefix, running, admission, rules)


def _places(config: ModelConfig, execution: Execution) -> tuple[Any, Any]:
    """How prefix, slots and their states lie on a mesh."""
    slots = Slots.specs(execution.layout)
    own = state_specs(config, execution, "slots")
    places = Running(slots, own, execution.layout.spec("slots"))
    return PrefixCache.specs(config, execution), places


def _rule_specs(rules: SlotRules, layout: Layout) -> SlotRules:
    """Numbers that each slot has of its own lie where the slot does."""
    whole, own = layout.spec(), layout.spec("slots")
    return SlotRules(
        policy=own if isinstance(rules.policy, PerSlot) else whole,
        sampler=own if isinstance(rules.sampler, SlotSampler) else whole,
        stop_ids=own,
        adjustments=own,
        allowed=own,
        tops=whole,
    )


def decode_context(execution: Execution) -> Context:
    """What a device runs on while decoding."""
    layout = execution.layout
    return Context(execution, DeviceContext(layout, layout.rules.slots))


def _fill(
    device: DeviceContext,
    record: Record,
    prefix: PrefixCache,
    running: Running,
    admission: Admission,
    rules: SlotRules,
) -> tuple[Running, Drawn]:
    new, key_data, prompt, limit = admission
    start, logits = prefix.length[prompt], prefix.logits[prompt]
    keys = jax.vmap(position_key)(jax.random.wrap_key_data(key_data), start)
    history = running.history
    to_draw_from = _adjusted(logits, rules, history, jnp.zeros_like(start))
    tokens = _draw_each(rules.sampler, keys, to_draw_from)
    going = ~is_stop(tokens, rules.stop_ids) & (limit > 1)
    fresh = Slots(key_data, prompt, start, start, tokens, limit - 1, going)
    rows = lambda a: new.reshape(-1, *(1 for _ in a.shape[1:]))  # noqa: E731
    slots = jax.tree.map(lambda a, b: jnp.where(rows(a), a, b), fresh, running.slots)
    trace = of_logits(record, logits, tokens, rules.tops)
    if record.routes:
        trace = trace._replace(routes=prefix.routes[prompt])
    if record.route_logprobs:
        trace = trace._replace(route_logprobs=prefix.route_logprobs[prompt])
    trace = jax.tree.map(lambda a: a[:, None], trace)
    drawn = Drawn(trace, new.astype(jnp.int32))
    states = fork(running.states, prefix, prompt, new)
    history = None if history is None else history.note(tokens, new)
    return Running(slots, states, history), device.everyone(drawn)


def _adjusted(
    logits: Float[Array, "S V"],
    rules: SlotRules,
    history: History | None,
    drawn: Int[Array, "S"],
) -> Float[Array, "S V"]:
    """The logits to draw from; `drawn` counts the tokens of each answer so far."""
    if rules.allowed is not None:
        logits = allow_only(logits, rules.allowed)
    if rules.adjustments is not None and history is not None:
        logits = adjust(logits, rules.adjustments, history, drawn)
    return logits


def _draw_each(
    sampler: TokenSampler | SlotSampler,
    keys: Key[Array, "S"],
    logits: Float[Array, "S V"],
) -> Int[Array, "S"]:
    """A token of each slot; `keys` are the positions'."""
    if isinstance(sampler, SlotSampler):
        return sampler.draw_each(keys, logits)
    return jax.vmap(sampler.draw)(keys, logits)


@program(
    static_argnames=("config", "record", "execution"), donate_argnames=("running",)
)
def decode_segment(
    config: ModelConfig,
    params: Params,
    prefix: PrefixCache,
    running: Running,
    rules: SlotRules,
    turn: Turn,
    *,
    record: Record = Record(),
    execution: Execution,
) -> tuple[Running, Drawn]:
    """Some tokens, at most `record.steps`, in each active slot.

    Args:
      running: it is consumed: what comes out takes its place.
      record: what is recorded of each token.
      execution: mesh and kernels (`Model.execution`). On several devices what is
        drawn comes out whole on each.
    """
    layout, context = execution.layout, decode_context(execution)
    whole, own = layout.spec(), layout.spec("slots")

    def one_device(params, prefix, running, rules, turn):
        decoder = bind(config, params, context)
        return _segment(decoder, prefix, running, rules, turn, record, context)

    prompts, places = _places(config, execution)
    weights = param_specs(config, layout, layers=execution.layers)
    turns = Turn(whole, whole, None if turn.routes is None else own)
    run = spread(
        layout,
        one_device,
        specs=(weights, prompts, places, _rule_specs(rules, layout), turns),
        out=(places, whole),
    )
    return run(params, prefix, running, rules, turn)


def _segment(
    decoder: Decoder,
    prefix: PrefixCache,
    running: Running,
    rules: SlotRules,
    turn: Turn,
    record: Record,
    context: Context,
) -> tuple[Running, Drawn]:
    config, device, policy = decoder.config, context.device, rules.policy
    count = running.slots.active.shape[0]
    room = empty(record, rows=count, layers=config.num_layers, width=policy.width)

    def busy(slots: Slots) -> Array:
        # Of all devices, so that all do the same number of steps together.
        return device.sum_rows(slots.active.sum()) >= jnp.maximum(turn.enough, 1)

    def unfinished(carry):
        index, going, *_ = carry
        return (index < turn.steps) & going

    def advance(carry):
        index, _, running, drawn = carry
        forced = None if turn.routes is None else turn.routes[:, index]
        several = isinstance(policy, RouteEnsemble)
        advanced = ensemble.next_passes if several else next_pass
        passed = advanced(decoder, prefix, running, policy, context, forced, record)
        was_active = running.slots.active
        logits = decoder.logits(passed.hidden, context)
        slots, trace = _draw(running, logits, rules, record, device)
        history = running.history
        if history is not None:
            history = history.note(trace.token, was_active)
        layers = config.moe_layers
        trace = _with_routes(trace, passed, policy, layers, was_active, record)
        # What slots at rest write is past their count.
        drawn = Drawn(put(drawn.trace, index, trace), drawn.count + was_active)
        running = Running(slots, passed.states, history)
        return index + 1, busy(slots), running, drawn

    none = Drawn(room, jnp.zeros(count, jnp.int32))
    start = (jnp.int32(0), busy(running.slots), running, none)
    _, _, running, drawn = lax.while_loop(unfinished, advance, start)
    return running, device.everyone(drawn)


def _with_routes(
    trace: TokenTrace,
    passed: Passed,
    policy: Policy,
    layers: tuple[int, ...],
    active: Bool[Array, "S"],
    record: Record,
) -> TokenTrace:
    """`trace` with what is asked for of routes; layers: those with experts."""
    routes, chances = passed.routes, None
    several = policy.routes if isinstance(policy, RouteEnsemble) else None
    if record.route_logprobs:
        rows = active if several is None else jnp.tile(active, several)
        chances = every_route_logprob(
            policy.of_pass, layers, passed.rankings, routes, rows
        )
    if several is not None:
        routes, chances = ensemble.of_tokens(several, routes, chances)
    if record.routes:
        trace = trace._replace(routes=routes)
    return trace._replace(route_logprobs=chances)


def next_pass(
    decoder: Decoder,
    prefix: PrefixCache,
    running: Running,
    policy: Policy,
    context: Context,
    routes: Int[Array, "S L K"] | None = None,
    record: Record = Record(),
) -> Passed:
    """One pass over the last token of each slot, its states carried on."""
    slots = running.slots
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
        one_step(prefix.states, step_of(prefix, slots), context),
        choose,
        context,
        width=policy.width,
        states=running.states,
        keep_rankings=record.route_logprobs,
    )


def _step_noise(slots: Slots, policy: Policy, config: ModelConfig):
    """Noise of all layers and slots in one call, float32 [S, L, E], or None."""
    if not policy.noisy:
        return None
    layers, experts = config.num_layers, config.num_experts

    def draw() -> Array:
        keys = slots.position_keys(slots.position)
        of_one = partial(route_noise, num_layers=layers, num_experts=experts)
        return jax.vmap(of_one)(keys)

    if not isinstance(policy, PerSlot):
        return draw()
    shape = (slots.position.shape[0], layers, experts)
    return lax.cond(policy.any_noisy(), draw, lambda: jnp.zeros(shape, jnp.float32))


def _draw(
    running: Running,
    logits: Float[Array, "N V"],
    rules: SlotRules,
    record: Record,
    device: DeviceContext,
) -> tuple[Slots, TokenTrace]:
    """Each active slot's next token, and what the logits tell of it.

    On several devices the logits are those of the part of the vocabulary that lies
    here. Where a token has several routes there are rows [J, S].
    """
    slots = running.slots
    position = jnp.where(slots.active, slots.position + 1, slots.position)
    # Devices that have the same slots draw some of them each.
    if logits.shape[0] == position.shape[0]:
        logits = device.rows_for_columns(logits, "vocab")
    else:
        routes = logits.reshape(-1, position.shape[0], logits.shape[1])
        whole = [device.rows_for_columns(route, "vocab") for route in routes]
        logits = ensemble.averaged(jnp.stack(whole))
    own, at = device.mine((slots, position), "vocab")
    sampler = rules.sampler
    if isinstance(sampler, SlotSampler):
        sampler = device.mine(sampler, "vocab")
    changes = rules._replace(policy=None, sampler=None, stop_ids=None, tops=None)
    changes, history = device.mine((changes, running.history), "vocab")
    to_draw_from = _adjusted(logits, changes, history, own.drawn)
    drawn = _draw_each(sampler, own.position_keys(at), to_draw_from)
    tokens = jnp.where(own.active, drawn, own.token)
    trace = of_logits(record, logits, tokens, rules.tops)
    trace = device.share(trace, "vocab", position.shape[0])
    left = jnp.where(slots.active, slots.left - 1, slots.left)
    active = slots.active & ~is_stop(trace.token, rules.stop_ids) & (left > 0)
    slots = replace(
        slots, position=position, token=trace.token, left=left, active=active
    )
    return slots, trace
