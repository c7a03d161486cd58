"""A policy at work on rows: noise, replay, rows at rest."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxmoe.router.per_slot import PerSlot
from jaxmoe.router.policies import Policy
from jaxmoe.typing import Array, Bool, Float, Int, Shaped

Choose = Callable[[Array | int, Float[Array, "N E"]], Int[Array, "N K"]]
"""(layer, ranking [N, E]) -> experts [N, K]: a policy at work on rows."""


def choose_experts(
    policy: Policy,
    ranking: Float[Array, "N E"],
    noise: Float[Array, "N E"] | None,
    *,
    forced: Int[Array, "N K"] | None = None,
    active: Bool[Array, "N"] | None = None,
) -> Int[Array, "N K"]:
    """Each row's experts under the policy of one layer.

    policy: for all rows; in a `PerSlot`, row s has the numbers at s.
    forced: experts to take instead, in rows whose first entry is not -1 (replay).
    active: rows that count; the others get no expert, and read none.
    """
    if isinstance(policy, PerSlot):
        assert noise is not None
        experts = policy.choose_each(ranking, noise)
    elif noise is None:
        experts = jax.vmap(lambda row: policy.choose(row, None))(ranking)
    else:
        experts = jax.vmap(policy.choose)(ranking, noise)
    if forced is not None:
        experts = jnp.where(forced[:, :1] >= 0, forced, experts)
    if active is not None:
        experts = jnp.where(active[:, None], experts, -1)
    # All that follows compiles alike whatever the policy, so that policies which
    # choose the same experts give the same bits.
    return lax.optimization_barrier(experts)


def of_layer(
    values: Shaped[Array, "N L *X"] | None, layer: Array | int, dtype: Any = None
) -> Shaped[Array, "N *X"] | None:
    """What [N, L, ...] holds of one layer; None of None."""
    if values is None:
        return None
    if isinstance(layer, int):
        found = values[:, layer]
    else:
        found = lax.dynamic_index_in_dim(values, layer, 1, keepdims=False)
    return found if dtype is None else found.astype(dtype)


def route_logprobs(
    policy: Policy,
    ranking: Float[Array, "N E"],
    experts: Int[Array, "N K"],
    *,
    active: Bool[Array, "N"] | None = None,
) -> Float[Array, "N"]:
    """Log-probability of each row's set of experts under the policy of one layer.

    Args:
      policy: For all rows; in a `PerSlot`, row s has the numbers at s.
      ranking: What experts are ranked by, as in `choose_experts`.
      experts: What it returned, or others, in any order.
      active: Rows that count; the others, which have no experts, get 0.

    Returns:
      Nats, float32; see `Policy.log_probability`.
    """
    if isinstance(policy, PerSlot):
        logprobs = policy.log_probability_each(ranking, experts)
    else:
        logprobs = jax.vmap(policy.log_probability)(ranking, experts)
    return logprobs if active is None else jnp.where(active, logprobs, 0.0)


def every_route_logprob(
    policy: Policy,
    layers: tuple[int, ...],
    rankings: Float[Array, "X N E"] | None,
    routes: Int[Array, "N L K"],
    active: Bool[Array, "N"],
) -> Float[Array, "N L"]:
    """`route_logprobs` in every layer; 0 in those without experts.

    layers: the X layers that have experts. rankings: what those were ranked by; None
      where there are none.
    """
    none = jnp.zeros(routes.shape[:2], jnp.float32)
    if rankings is None:
        return none

    def one_layer(given: tuple[Array, Array]) -> Array:
        layer, ranking = given
        experts = lax.dynamic_index_in_dim(routes, layer, 1, keepdims=False)
        experts = experts.astype(jnp.int32)
        return route_logprobs(policy.at_layer(layer), ranking, experts, active=active)

    # A loop over layers, so that one is compiled.
    found = lax.map(one_layer, (jnp.array(layers, jnp.int32), rankings))
    return none.at[:, jnp.array(layers)].set(found.T)
