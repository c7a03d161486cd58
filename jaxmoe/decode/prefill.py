"""One pass over a prompt."""

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
from jaxmoe.typing import Array, Float, Int, Key, Params


def prompt_bucket(length: int) -> int:
    """Padded length of a prompt: powers of two, then multiples of 1024.

    Few shapes to compile, and at most 2x the positions (1.5x past 1024).
    """
    size = 16
    while size < min(length, 1024):
        size *= 2
    return size if length <= size else -(-length // 1024) * 1024


def _pad(tokens: Int[Array, "T"]) -> Int[Array, "T2"]:
    """`tokens` as long as attention walks: at most one chunk, or whole ones."""
    more = -tokens.shape[0] % CHUNK if tokens.shape[0] > CHUNK else 0
    return jnp.pad(tokens, (0, more))


def run_sequence(
    decoder: Decoder,
    tokens: Int[Array, "T"],
    length: Int[Array, ""],
    context: Context,
    *,
    policy: Policy,
    key: Key[Array, ""] | None,
    noise_from: Array | int = 0,
    routes: Int[Array, "T L K"] | None = None,
    keep: bool = False,
) -> Passed:
    """All positions of one padded sequence at once.

    Where rows are divided over devices, each computes some positions, and attention
    alone for all of them.

    Args:
      key: the sample's key k_i, for a noisy policy.
      noise_from: positions before it are routed by the policy without noise.
      routes: experts to take instead, where not -1.
      keep: whether the states after the sequence are wanted.
    """
    device, num_layers = context.device, decoder.config.num_layers
    every = jnp.arange(tokens.shape[0], dtype=jnp.int32)
    tokens, positions, routes = device.own((tokens, every, routes))
    lengths = jnp.broadcast_to(length, positions.shape)
    sequences = Sequences(positions, lengths, every < length, 1, keep)
    choose = _chooser(policy, key, positions, length, noise_from, routes, num_layers)
    passed = decoder.run(
        tokens,
        whole_sequences(sequences, context),
        choose,
        context,
        width=policy.width,
        keep_rankings=keep and key is not None,
    )
    hidden, taken = device.everyone((passed.hidden, passed.routes))
    rankings = passed.rankings
    if rankings is not None:
        rankings = device.everyone(rankings.swapaxes(0, 1)).swapaxes(0, 1)
    return passed._replace(hidden=hidden, routes=taken, rankings=rankings)


def _context(execution: Execution, size: int) -> Context:
    """A device's part in a pass over `size` positions: some, where they divide."""
    layout = execution.layout
    rows = layout.rules.slots
    divides = size % layout.size(rows) == 0
    return Context(execution, DeviceContext(layout, rows if divides else ()))


def _chooser(policy, key, positions, length, noise_from, routes, num_layers) -> Choose:
    plain = policy.deterministic(num_layers)
    keys = None
    if policy.noisy and key is not None:
        keys = jax.vmap(lambda t: position_key(key, t))(positions)

    def choose(layer: Array | int, ranking: Float[Array, "T E"]) -> Int[Array, "T K"]:
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
            active=positions < length,
        )

    return choose


@program(static_argnames=("config", "execution"))
def prefill(
    config: ModelConfig,
    params: Params,
    tokens: Int[Array, "T"],
    length: Int[Array, ""],
    policy: Policy,
    key: Key[Array, ""] | None = None,
    *,
    execution: Execution,
) -> PrefixCache:
    """A prompt's states, and the logits of the token that follows it.

    Args:
      tokens: the prompt, padded at the end to any length.
      length: tokens that count.
      policy: a resolved policy.
      key: None routes without noise, as all samples can share; a sample's key k_i
        routes with it (`noisy_prefill`).
      execution: mesh and kernels (`Model.execution`). On several devices all get the
        states, as the prompt's samples may sit on any.

    Returns:
      A cache of one prompt, P = 1, C = T rounded up to whole chunks, 0 past the end.
    """
    tokens = _pad(tokens)
    context = _context(execution, tokens.shape[0])

    def one_device(params, tokens, length, policy, key) -> PrefixCache:
        decoder = bind(config, params, context)
        passed = run_sequence(
            decoder, tokens, length, context, policy=policy, key=key, keep=True
        )
        last_of = lambda a, axis=0: lax.dynamic_slice_in_dim(a, length - 1, 1, axis)  # noqa: E731
        last, routes = last_of(passed.hidden), last_of(passed.routes)
        rankings = passed.rankings
        chances = every_route_logprob(
            policy,
            config.moe_layers,
            None if rankings is None else last_of(rankings, 1),
            routes,
            jnp.ones(1, bool),
        )
        return PrefixCache(
            states=passed.kept,
            length=length.astype(jnp.int32)[None],
            logits=context.device.join(decoder.logits(last, context), "vocab"),
            routes=routes,
            route_logprobs=chances,
        )

    layout = execution.layout
    whole, weights = layout.spec(), param_specs(config, layout, layers=execution.layers)
    run = spread(
        layout,
        one_device,
        specs=(weights, whole, whole, whole, whole),
        out=PrefixCache.specs(config, execution),
    )
    return run(params, tokens, length, policy, key)


@program(static_argnames=("config", "execution"))
def score(
    config: ModelConfig,
    params: Params,
    tokens: Int[Array, "T"],
    length: Int[Array, ""],
    policy: Policy,
    key: Key[Array, ""] | None = None,
    noise_from: Int[Array, ""] | int = 0,
    routes: Int[Array, "T L K"] | None = None,
    *,
    execution: Execution,
) -> tuple[Float[Array, "T V"], Int[Array, "T L K"]]:
    """Logits and experts at every position; see `run_sequence` for the arguments."""
    size = tokens.shape[0]
    tokens = _pad(tokens)
    if routes is not None:
        more = ((0, tokens.shape[0] - size), (0, 0), (0, 0))
        routes = jnp.pad(routes, more, constant_values=-1)
    context = _context(execution, tokens.shape[0])

    def one_device(params, tokens, length, policy, key, start, routes):
        decoder = bind(config, params, context)
        passed = run_sequence(
            decoder,
            tokens,
            length,
            context,
            policy=policy,
            key=key,
            noise_from=start,
            routes=routes,
        )
        logits = decoder.logits(passed.hidden[:size], context)
        return context.device.join(logits, "vocab"), passed.routes[:size]

    layout = execution.layout
    rest = (tokens, length, policy, key, noise_from, routes)
    weights = param_specs(config, layout, layers=execution.layers)
    specs = (weights, *(layout.spec() for _ in rest))
    run = spread(layout, one_device, specs=specs, out=layout.spec())
    return run(params, *rest)
