"""The gated delta rule (arXiv 2412.06464): a matrix that decays and is corrected.

Every value head has a memory S [A, W], zero at first. A position with query q, key k
and value v, decay g (a logarithm, at most 0) and strength beta in 0..1 does

    S <- e^g S;    S <- S + k u^T, where u = beta (v - S^T k);    o = S^T q

`step` does this for one position of many rows; `chunk` for consecutive positions of one
sequence, by products of matrices (section 3.3 of the paper). All is float32.
Letters: G key heads, R value heads of each, A key width, W value width.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax

from jaxmoe.typing import Array, Float

CHUNK = 64
"""Positions that a pass over a whole sequence takes together: what they cost beside
the recurrence grows with it, and what is gained by it as well."""


class Position(NamedTuple):
    """What each of N positions brings.

    k: of length 1 (`unit`), as q is but for a factor of A ** -0.5. A position with
    decay, beta, k and v of 0 leaves the memory as it is, to the bit.
    """

    q: Float[Array, "N G A"]
    k: Float[Array, "N G A"]
    v: Float[Array, "N G R W"]
    decay: Float[Array, "N G R"]
    beta: Float[Array, "N G R"]


def unit(x: Float[Array, "*N A"]) -> Float[Array, "*N A"]:
    """x / sqrt(sum(x^2) + 1e-6) over the last axis; 0 stays 0."""
    return x * lax.rsqrt((x * x).sum(axis=-1, keepdims=True) + 1e-6)


def step(
    x: Position, memory: Float[Array, "N H A W"]
) -> tuple[Float[Array, "N G R W"], Float[Array, "N H A W"]]:
    """The output of one more position in every row, and the memory after it.

    memory: that of the G R value heads, those of one key head side by side.
    """
    shape = (*x.v.shape[:3], *memory.shape[2:])
    old = memory.reshape(shape)
    # Both products of the old memory at once: it is what there is to read.
    both = jnp.stack([x.k, x.q], axis=2)[:, :, None]
    both = jnp.broadcast_to(both, (*shape[:3], *both.shape[3:]))
    decay = jnp.exp(x.decay)[..., None]
    at_key, at_query = jnp.moveaxis(_matmul(both, old), 3, 0)
    u = x.beta[..., None] * (x.v - decay * at_key)
    k = x.k[:, :, None, :, None]
    new = decay[..., None] * old + k * u[..., None, :]
    along = (x.k * x.q).sum(axis=-1)[:, :, None, None]
    return decay * at_query + along * u, new.reshape(memory.shape)


def chunk(
    x: Position, memory: Float[Array, "H A W"]
) -> tuple[Float[Array, "N G R W"], Float[Array, "H A W"]]:
    """The outputs of N consecutive positions of a sequence, and the memory after them.

    With running sums c of the decays, M[i, j] = e^(c_i - c_j) for j <= i, else 0:

        A = strictly lower part of diag(beta) (K K^T * M)
        U = (I + A)^-1 diag(beta) (V - diag(e^c) K S)
        O = diag(e^c) Q S + (Q K^T * M) U
        S <- e^(c_N) S + (diag(e^(c_N - c)) K)^T U
    """
    length, groups = x.k.shape[:2]
    old = memory.reshape(groups, -1, *memory.shape[1:])
    q, k = (jnp.moveaxis(a, 0, 1) for a in (x.q, x.k))
    v, decay, beta = (jnp.moveaxis(a, 0, 2) for a in (x.v, x.decay, x.beta))
    total = jnp.cumsum(decay, axis=-1)
    index = jnp.arange(length)
    past = (index[:, None] >= index[None, :])[None, None]
    # Masked before the exponential, which would overflow above the diagonal.
    gap = jnp.where(past, total[..., :, None] - total[..., None, :], -jnp.inf)
    between = jnp.exp(gap)
    by_keys = _matmul(k, k.swapaxes(1, 2))[:, None]
    by_queries = _matmul(q, k.swapaxes(1, 2))[:, None]
    system = beta[..., None] * by_keys * between
    since = jnp.exp(total)[..., None]
    wanted = beta[..., None] * (v - since * _matmul(k[:, None], old))
    u = lax.linalg.triangular_solve(
        system, wanted, left_side=True, lower=True, unit_diagonal=True
    )
    out = since * _matmul(q[:, None], old) + _matmul(by_queries * between, u)
    last = total[..., -1:]
    faded = jnp.exp(last - total)[..., None] * k[:, None]
    new = jnp.exp(last)[..., None] * old + _matmul(faded.swapaxes(2, 3), u)
    return jnp.moveaxis(out, 2, 0), new.reshape(memory.shape)


def _matmul(a: Array, b: Array) -> Array:
    return jnp.matmul(a, b, precision=lax.Precision.HIGHEST)
