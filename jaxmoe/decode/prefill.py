"""One pass over a prompt."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from jaxmoe.config import ModelConfig
from jaxmoe.decode.cache import PrefixCache
from jaxmoe.nn.decoder import Decoder, bind, own_heads, param_specs
from jaxmoe.ops.attention.chunked import CHUNK, QKV
from jaxmoe.ops.attention.whole import attention_for
from jaxmoe.ops.experts import Implementation
from jaxmoe.random.keys import position_key, route_key
from jaxmoe.router.policies import Policy
from jaxmoe.router.routing import Choose, choose_experts
from jaxmoe.sharding.collectives import WHOLE, DeviceContext, spread
from jaxmoe.sharding.layout import Layout
from jaxmoe.typing import Array, Float, Int, Key, Params


class Pass(NamedTuple):
    """A sequence run through the network.

    hidden: last hidden states [T, D]; routes: int16 [T, L, K]; qkv: one a layer.
    """

    hidden: Array
    routes: Array
    qkv: list[QKV]


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
    *,
    policy: Policy,
    key: Key[Array, ""] | None,
    noise_from: Array | int = 0,
    routes: Int[Array, "T L K"] | None = None,
    implementation: Implementation = "auto",
    part: DeviceContext = WHOLE,
) -> Pass:
    """All positions of one padded sequence at once.

    key: the sample's key k_i, for a noisy policy.
    noise_from: positions before it are routed by the policy without noise.
    routes: experts to take instead, where not -1.
    part: where its rows are divided, each device computes some positions, and attention
      alone for all of them.
    """
    config = decoder.config
    every = jnp.arange(tokens.shape[0], dtype=jnp.int32)
    captured: list[QKV] = []
    form = attention_for(jax.default_backend())

    def attend(layer: int, own: QKV) -> Array:
        qkv = part.everyone(own)
        # Padding may compute NaN, and 0 * NaN would reach the tokens that count.
        count = (every < length)[:, None, None]
        qkv = QKV(qkv.q, *(jnp.where(count, a, 0) for a in (qkv.k, qkv.v)))
        captured.append(qkv)
        return part.own(form.causal(qkv, window=config.layers[layer].mixer.window))

    tokens, positions, routes = part.own((tokens, every, routes))
    choose = _chooser(
        policy, key, positions, length, noise_from, routes, config.num_layers
    )
    hidden, taken = decoder.hidden(
        tokens,
        positions,
        jnp.broadcast_to(length, positions.shape),
        attend=attend,
        choose=choose,
        width=policy.width,
        implementation=implementation,
        part=part,
    )
    return Pass(part.everyone(hidden), part.everyone(taken), captured)


def _part(layout: Layout, size: int) -> DeviceContext:
    """A device's part in a pass over `size` positions: some, where they divide."""
    rows = layout.rules.slots
    return DeviceContext(layout, rows if size % layout.size(rows) == 0 else ())


def _chooser(policy, key, positions, length, noise_from, routes, num_layers) -> Choose:
    plain = policy.deterministic(num_layers)
    keys = None
    if policy.noisy and key is not None:
        keys = jax.vmap(lambda t: position_key(key, t))(positions)

    def choose(layer: int, ranking: Float[Array, "T E"]) -> Int[Array, "T K"]:
        forced = None if routes is None else routes[:, layer].astype(jnp.int32)
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


@partial(jax.jit, static_argnames=("config", "implementation", "layout"))
def prefill(
    config: ModelConfig,
    params: Params,
    tokens: Int[Array, "T"],
    length: Int[Array, ""],
    policy: Policy,
    key: Key[Array, ""] | None = None,
    *,
    implementation: Implementation = "auto",
    layout: Layout | None = None,
) -> PrefixCache:
    """A prompt's cache, and the logits of the token that follows it.

    Args:
      tokens: the prompt, padded at the end to any length.
      length: tokens that count.
      policy: a resolved policy.
      key: None routes without noise, as all samples can share; a sample's key k_i
        routes with it (`noisy_prefill`).
      layout: of the weights, where they lie on several devices. All get the cache, as
        the prompt's samples may sit on any.

    Returns:
      A cache of one prompt, P = 1, C = T rounded up to whole chunks, 0 past the end.
    """

    def one_device(
        part: DeviceContext, params, tokens, length, policy, key
    ) -> PrefixCache:
        decoder = bind(config, own_heads(config, params, part))
        return _prefill(decoder, tokens, length, policy, key, implementation, part)

    if layout is None:
        return one_device(WHOLE, params, tokens, length, policy, key)
    whole = layout.spec()
    specs = (param_specs(config, layout), whole, whole, whole, whole)
    run = spread(
        layout,
        partial(one_device, _part(layout, _pad(tokens).shape[0])),
        specs=specs,
        out=PrefixCache.specs(config.num_layers, layout),
    )
    return run(params, tokens, length, policy, key)


def _prefill(
    decoder: Decoder,
    tokens: Int[Array, "T"],
    length: Int[Array, ""],
    policy: Policy,
    key: Key[Array, ""] | None,
    implementation: Implementation,
    part: DeviceContext,
) -> PrefixCache:
    tokens = _pad(tokens)
    run = run_sequence(
        decoder,
        tokens,
        length,
        policy=policy,
        key=key,
        implementation=implementation,
        part=part,
    )
    # Whole chunks, so that nothing of an entry's last prompt stays in sight.
    room = ((0, 0), (0, 0), (0, -tokens.shape[0] % CHUNK), (0, 0))
    cached = lambda a: jnp.pad(a.swapaxes(0, 1)[None], room)  # noqa: E731
    last = lax.dynamic_slice_in_dim(run.hidden, length - 1, 1)
    return PrefixCache(
        k=tuple(cached(qkv.k) for qkv in run.qkv),
        v=tuple(cached(qkv.v) for qkv in run.qkv),
        length=length.astype(jnp.int32)[None],
        logits=part.join(decoder.logits(last), "vocab"),
        routes=lax.dynamic_slice_in_dim(run.routes, length - 1, 1),
    )


@partial(jax.jit, static_argnames=("config", "implementation", "layout"))
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
    implementation: Implementation = "auto",
    layout: Layout | None = None,
) -> tuple[Float[Array, "T V"], Int[Array, "T L K"]]:
    """Logits and experts at every position; see `run_sequence` for the arguments."""
    size = tokens.shape[0]
    tokens = _pad(tokens)
    if routes is not None:
        more = ((0, tokens.shape[0] - size), (0, 0), (0, 0))
        routes = jnp.pad(routes, more, constant_values=-1)

    def one_device(
        part: DeviceContext, params, tokens, length, policy, key, start, routes
    ):
        decoder = bind(config, own_heads(config, params, part))
        run = run_sequence(
            decoder,
            tokens,
            length,
            policy=policy,
            key=key,
            noise_from=start,
            routes=routes,
            implementation=implementation,
            part=part,
        )
        logits = part.join(decoder.logits(run.hidden[:size]), "vocab")
        return logits, run.routes[:size]

    rest = (tokens, length, policy, key, noise_from, routes)
    if layout is None:
        return one_device(WHOLE, params, *rest)
    specs = (param_specs(config, layout), *(layout.spec() for _ in rest))
    run = spread(
        layout,
        partial(one_device, _part(layout, tokens.shape[0])),
        specs=specs,
        out=layout.spec(),
    )
    return run(params, *rest)
