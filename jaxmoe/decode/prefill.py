"""One pass over prompts."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxmoe.config import ModelConfig
from jaxmoe.decode.cache import PrefixCache
from jaxmoe.decode.program import program
from jaxmoe.execution import Execution
from jaxmoe.nn.base import Context, Sequences
from jaxmoe.nn.decoder import Decoder, Passed, bind, param_specs, whole_sequences
from jaxmoe.ops.attention import CHUNK
from jaxmoe.random.keys import position_key, route_key
from jaxmoe.router.policies import Policy
from jaxmoe.router.routing import (
    Choose,
    choose_experts,
    every_route_logprob,
    of_layer,
)
from jaxmoe.sharding.collectives import DeviceContext, spread
from jaxmoe.typing import Array, ArrayLike, Float, Int, Integer, Key, Params


def prompt_bucket(length: int) -> int:
    """Padded length of a prompt: powers of two, then multiples of 1024.

    Few shapes to compile, and at most 2x the positions (1.5x past 1024).
    """
    size = 16
    while size < min(length, 1024):
        size *= 2
    return size if length <= size else -(-length // 1024) * 1024


def _pad(tokens: Int[Array, "B T"]) -> Int[Array, "B T2"]:
    """`tokens` as long as attention walks: at most one chunk, or whole ones."""
    size = tokens.shape[1]
    more = -size % CHUNK if size > CHUNK else 0
    return jnp.pad(tokens, ((0, 0), (0, more)))


def run_sequences(
    decoder: Decoder,
    tokens: Int[Array, "B T"],
    lengths: Int[Array, "B"],
    context: Context,
    *,
    policy: Policy,
    keys: Key[Array, "B"] | None,
    noise_from: Array | int = 0,
    routes: Int[Array, "N L K"] | None = None,
    keep: bool = False,
    keep_rankings: bool = False,
    keep_weights: bool = False,
) -> Passed:
    """All positions of padded sequences at once, N = B T rows.

    Where rows are divided over devices, each computes some positions, and attention
    alone for all of them.

    Args:
      keys: the samples' keys k_i, for a noisy policy.
      noise_from: positions before it are routed by the policy without noise; one for
        all sequences, or [B].
      routes: experts to take instead, where not -1.
      keep, keep_rankings, keep_weights: whether the states after the sequences are
        wanted, what experts were ranked by, and what they weigh.
    """
    device, num_layers = context.device, decoder.config.num_layers
    count, size = tokens.shape
    place = jnp.arange(count * size, dtype=jnp.int32)
    every, length = place % size, jnp.repeat(lengths, size)
    data = None
    if policy.noisy and keys is not None:
        data = jnp.repeat(jax.random.key_data(keys), size, axis=0)
    flat = tokens.reshape(-1)
    noise_from = jnp.repeat(jnp.broadcast_to(noise_from, (count,)), size)
    flat, positions, mine, data, routes, noise_from = device.own(
        (flat, every, length, data, routes, noise_from)
    )
    sequences = Sequences(positions, mine, every < length, count, keep)
    choose = chooser(policy, data, positions, mine, noise_from, routes, num_layers)
    passed = decoder.run(
        flat,
        whole_sequences(sequences, context),
        choose,
        context,
        width=policy.width,
        keep_rankings=keep_rankings,
        keep_weights=keep_weights,
    )
    hidden, taken = device.everyone((passed.hidden, passed.routes))
    by_row = lambda a: device.everyone(a.swapaxes(0, 1)).swapaxes(0, 1)  # noqa: E731
    rankings, weights = jax.tree.map(by_row, (passed.rankings, passed.weights))
    return passed._replace(
        hidden=hidden, routes=taken, rankings=rankings, weights=weights
    )


def pass_context(execution: Execution, size: int) -> Context:
    """A device's part in a pass over `size` positions: some, where they divide."""
    layout = execution.layout
    rows = layout.rules.slots
    divides = size % layout.size(rows) == 0
    return Context(execution, DeviceContext(layout, rows if divides else ()))


def chooser(
    policy: Policy,
    data: Integer[Array, "N 2"] | None,
    positions: Int[Array, "N"],
    lengths: Int[Array, "N"],
    noise_from: ArrayLike,
    routes: Int[Array, "N L K"] | None,
    num_layers: int,
) -> Choose:
    """A function that chooses experts for rows, each with noise of its own.

    Args:
      data: of the samples' keys k_i; None routes all rows without noise.
      positions: of each row in its sequence. lengths: tokens of that.
      noise_from: positions before it are routed by the policy without noise.
      routes: experts to take instead, where not -1.
    """
    plain = policy.deterministic(num_layers)
    keys = None
    if data is not None:
        keys = jax.vmap(position_key)(jax.random.wrap_key_data(data), positions)

    def choose(layer: Array | int, ranking: Float[Array, "N E"]) -> Int[Array, "N K"]:
        forced = of_layer(routes, layer, jnp.int32)
        if keys is not None:
            without = choose_experts(plain.at_layer(layer), ranking, None)
            early = positions < noise_from
            replayed = jnp.full_like(without, -1) if forced is None else forced
            keep = replayed[:, :1] >= 0
            forced = jnp.where(early[:, None] & ~keep, without, replayed)
            draw = lambda k: jax.random.gumbel(route_key(k, layer), ranking.shape[1:])  # noqa: E731
            noise, chosen_by = jax.vmap(draw)(keys), policy
        else:
            noise, chosen_by = None, plain
        return choose_experts(
            chosen_by.at_layer(layer),
            ranking,
            noise,
            forced=forced,
            active=positions < lengths,
        )

    return choose


@program(static_argnames=("config", "chances", "execution"))
def prefill(
    config: ModelConfig,
    params: Params,
    tokens: Int[Array, "B T"],
    lengths: Int[Array, "B"],
    policy: Policy,
    keys: Key[Array, "B"] | None = None,
    *,
    chances: bool = False,
    execution: Execution,
) -> PrefixCache:
    """The states of some prompts, and the logits of the token that follows each.

    Args:
      tokens: the prompts, padded at the end to any length.
      lengths: tokens that count; 0 for no prompt.
      policy: a resolved policy.
      keys: None routes without noise, as all samples can share; samples' keys k_i
        route with them (`noisy_prefill`).
      chances: whether log-probabilities of the experts are wanted; else they are 0.
      execution: mesh and kernels (`Model.execution`). On several devices all get the
        states, as a prompt's samples may sit on any.

    Returns:
      A cache of B prompts, C = T rounded up to whole chunks, 0 past the end. What it
      holds of a prompt does not depend on the others.
    """
    tokens = _pad(tokens)
    count, size = tokens.shape
    context = pass_context(execution, count * size)

    def one_device(params, tokens, lengths, policy, keys) -> PrefixCache:
        decoder = bind(config, params, context)
        passed = run_sequences(
            decoder,
            tokens,
            lengths,
            context,
            policy=policy,
            keys=keys,
            keep=True,
            keep_rankings=chances and keys is not None,
        )
        last = jnp.arange(count) * size + jnp.maximum(lengths - 1, 0)
        routes, rankings = passed.routes[last], passed.rankings
        logprobs = every_route_logprob(
            policy,
            config.moe_layers,
            None if rankings is None else rankings[:, last],
            routes,
            lengths > 0,
        )
        logits = decoder.logits(passed.hidden[last], context)
        return PrefixCache(
            states=passed.kept,
            length=lengths.astype(jnp.int32),
            logits=context.device.join(logits, "vocab"),
            routes=routes,
            route_logprobs=logprobs,
        )

    layout = execution.layout
    whole, weights = layout.spec(), param_specs(config, layout, layers=execution.layers)
    run = spread(
        layout,
        one_device,
        specs=(weights, whole, whole, whole, whole),
        out=PrefixCache.specs(config, execution),
    )
    return run(params, tokens, lengths, policy, keys)


class Prompts(NamedTuple):
    """Prompts to compute, those of no tokens last.

    tokens: int32 [N, T], padded at the end. lengths: int32 [N]. entries: int32 [N],
    where each goes in the prefix cache. key_data: uint32 [N, 2] of samples' keys k_i
    that route them, or None.
    """

    tokens: Any
    lengths: Any
    entries: Any
    key_data: Any = None


@program(
    static_argnames=("config", "batch", "chances", "execution"),
    donate_argnames=("prefix",),
)
def load_prompts(
    config: ModelConfig,
    params: Params,
    prefix: PrefixCache,
    prompts: Prompts,
    policy: Policy,
    *,
    batch: int,
    chances: bool = False,
    execution: Execution,
) -> PrefixCache:
    """`prefix`, which is consumed, with prompts in their entries; see `prefill`.

    Args:
      batch: prompts that go through one pass, of which there are as many as it takes.
        What is computed of a prompt depends on `batch`, to rounding, but on no other
        prompt; N is a multiple of it.
    """

    def load(turn: Array | int, prefix: PrefixCache) -> PrefixCache:
        cut = lambda a: lax.dynamic_slice_in_dim(a, turn * batch, batch)  # noqa: E731
        tokens, lengths, entries, data = jax.tree.map(cut, prompts)
        keys = None if data is None else jax.random.wrap_key_data(data)
        computed = prefill(
            config,
            params,
            tokens,
            lengths,
            policy,
            keys,
            chances=chances,
            execution=execution,
        )
        return prefix.put(entries, computed)

    if prompts.tokens.shape[0] == batch:
        prefix = load(0, prefix)
    else:
        turns = -(-(prompts.lengths > 0).sum() // batch)
        prefix = lax.fori_loop(0, turns, load, prefix)
    return _placed(config, prefix, execution)


@program(static_argnames=("config", "execution"), donate_argnames=("prefix",))
def put_prompts(
    config: ModelConfig,
    prefix: PrefixCache,
    entries: Int[Array, "B"],
    computed: PrefixCache,
    *,
    execution: Execution,
) -> PrefixCache:
    """`prefix`, which is consumed, with prompts that `prefill` computed."""
    return _placed(config, prefix.put(entries, computed), execution)


def _placed(
    config: ModelConfig, prefix: PrefixCache, execution: Execution
) -> PrefixCache:
    places = execution.layout.placed(PrefixCache.specs(config, execution))
    return prefix if places is None else lax.with_sharding_constraint(prefix, places)


class Given(NamedTuple):
    """A sequence to score.

    tokens: int32 [T], padded at the end; length of them count. key: the sample's key
    k_i, for a noisy policy. noise_from: positions before it are routed by the policy
    without noise. routes: int [T, L, K], experts to take instead, where not -1.
    """

    tokens: Any
    length: Any
    key: Any = None
    noise_from: Any = 0
    routes: Any = None


@program(static_argnames=("config", "execution"))
def score(
    config: ModelConfig,
    params: Params,
    given: Given,
    policy: Policy,
    *,
    execution: Execution,
) -> tuple[Float[Array, "T V"], Int[Array, "T L K"]]:
    """Logits and experts at every position."""
    size = given.tokens.shape[0]
    padded = _pad(given.tokens[None])
    routes = given.routes
    if routes is not None:
        more = ((0, padded.shape[1] - size), (0, 0), (0, 0))
        routes = jnp.pad(routes, more, constant_values=-1)
    given = given._replace(tokens=padded, routes=routes)
    context = pass_context(execution, padded.shape[1])

    def one_device(params, given, policy):
        decoder = bind(config, params, context)
        passed = run_sequences(
            decoder,
            given.tokens,
            given.length[None],
            context,
            policy=policy,
            keys=None if given.key is None else given.key[None],
            noise_from=given.noise_from,
            routes=given.routes,
        )
        logits = decoder.logits(passed.hidden[:size], context)
        return context.device.join(logits, "vocab"), passed.routes[:size]

    layout = execution.layout
    whole, weights = layout.spec(), param_specs(config, layout, layers=execution.layers)
    run = spread(layout, one_device, specs=(weights, whole, whole), out=whole)
    return run(params, given, policy)
