"""A step of `RouteEnsemble`: several routes of a token, and one cache.

Rows are [1 + J, S]: a pass without noise, whose states are kept, and J routes.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import lax
from jax.nn import logsumexp

from jaxmoe.config import ModelConfig
from jaxmoe.decode.cache import PrefixCache
from jaxmoe.decode.slots import Running, Slots, step_of
from jaxmoe.decode.trace import Record
from jaxmoe.nn.base import Context
from jaxmoe.nn.decoder import Decoder, Passed, one_step_of_routes
from jaxmoe.random.keys import ensemble_keys, route_noise
from jaxmoe.router.ensemble import RouteEnsemble
from jaxmoe.router.routing import Choose, choose_experts, of_layer
from jaxmoe.typing import Array, Float, Int


def averaged(logits: Float[Array, "J *N V"]) -> Float[Array, "*N V"]:
    """log of the mean of softmax(logits) over J, up to a constant of each row.

    The constant makes equal logits come out as they are, bit for bit. A logit may be
    -inf, of a token that a route gives no probability; not all of one route.
    """
    # One value for all its uses: computed again, it might be rounded otherwise.
    total = lax.optimization_barrier(logsumexp(logits, axis=-1, keepdims=True))
    # Relative to the first route, or to its total where that has no probability.
    first = jnp.where(logits[0] > -jnp.inf, logits[0], total[0])
    relative = (logits - total) - (first - total[0])[None]
    best = relative.max(axis=0)
    best = jnp.where(best > -jnp.inf, best, 0.0)
    added = jnp.exp(relative - best[None]).sum(axis=0)
    # A program divides by J as it likes: J / J need not be 1, but J is J.
    count = logits.shape[0]
    log_mean = jnp.where(added == count, 0.0, jnp.log(added / count))
    return first + (best + log_mean)


def next_passes(
    decoder: Decoder,
    prefix: PrefixCache,
    running: Running,
    policy: RouteEnsemble,
    context: Context,
    routes: Int[Array, "S L W"] | None = None,
    record: Record = Record(),
) -> Passed:
    """As `jaxmoe.decode.step.next_pass`, with rows [J, S] of the routes alone.

    routes: experts to take instead, W = J K of each token.
    """
    slots, count, config = running.slots, policy.routes, decoder.config
    passed = decoder.run(
        jnp.tile(slots.token, 1 + count),
        one_step_of_routes(prefix.states, step_of(prefix, slots), context, count),
        _chooser(policy, slots, config, routes),
        context,
        width=policy.of_pass.width,
        states=running.states,
        keep_rankings=record.route_logprobs,
    )
    clean, rankings = slots.active.shape[0], passed.rankings
    return passed._replace(
        hidden=passed.hidden[clean:],
        routes=passed.routes[clean:],
        rankings=None if rankings is None else rankings[:, clean:],
    )


def _chooser(
    policy: RouteEnsemble,
    slots: Slots,
    config: ModelConfig,
    routes: Int[Array, "S L W"] | None,
) -> Choose:
    """Who chooses for rows [1 + J, S]."""
    clean, drawn, count = slots.active.shape[0], policy.of_pass, policy.routes
    plain, noise = (
        policy.deterministic(config.num_layers),
        _noise(policy, slots, config),
    )
    active = jnp.tile(slots.active, count)

    def choose(layer: Array | int, ranking: Float[Array, "N E"]) -> Int[Array, "N K"]:
        forced = of_layer(routes, layer, jnp.int32)
        if forced is not None:
            apart = forced.reshape(clean, count, -1)
            forced = apart.swapaxes(0, 1).reshape(clean * count, -1)
        first = choose_experts(
            plain.at_layer(layer), ranking[:clean], None, active=slots.active
        )
        others = choose_experts(
            drawn.at_layer(layer),
            ranking[clean:],
            of_layer(noise, layer),
            forced=forced,
            active=active,
        )
        return jnp.concatenate([first, others])

    return choose


def _noise(
    policy: RouteEnsemble, slots: Slots, config: ModelConfig
) -> Float[Array, "N L E"] | None:
    """Noise of all layers of rows [J, S]."""
    if not policy.noisy:
        return None
    of_one = partial(
        route_noise, num_layers=config.num_layers, num_experts=config.num_experts
    )
    keys = slots.position_keys(slots.position)
    each = jax.vmap(partial(ensemble_keys, routes=policy.routes), out_axes=1)(keys)
    return jax.vmap(of_one)(each.reshape(-1))


def of_tokens(
    count: int, routes: Int[Array, "N L K"], chances: Float[Array, "N L"] | None
) -> tuple[Int[Array, "S L W"], Float[Array, "S L"] | None]:
    """What rows [J, S] have, by token: J K experts, and the chance of all J routes."""
    beside = jnp.concatenate(jnp.split(routes, count), axis=-1)
    if chances is None:
        return beside, None
    return beside, chances.reshape(count, -1, chances.shape[1]).sum(axis=0)
