"""A policy at work on rows: noise, replay, rows at rest."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

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

    forced: experts to take instead, in rows whose first entry is not -1 (replay).
    active: rows that count; the others get no expert, and read none.
    """
    if noise is None:
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
