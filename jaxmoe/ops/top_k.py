"""Top-k so called that XLA keeps to its fast form of it."""

import jax.numpy as jnp
from jax import lax

from jaxmoe.typing import Array


def whole_top_k(values: Array, k: int) -> tuple[Array, Array]:
    """`lax.top_k`, behind a barrier each for values and indices.

    XLA would look into a top-k of which only a part is wanted somewhere, and sort
    everything instead. (One barrier for the pair would stop its compiler.)
    """
    best, indices = lax.top_k(values, k)
    return lax.optimization_barrier(best), lax.optimization_barrier(indices)


def best_first(values: Array, k: int) -> tuple[Array, Array]:
    """`whole_top_k`, the lower index first of equals: of 0.0 and -0.0 too.

    Those are equals, but not to `lax.top_k`.
    """
    return whole_top_k(jnp.where(values == 0, 0.0, values), k)
