"""The law of a set drawn without replacement (Plackett-Luce).

Gumbel-top-k with logits s / tau draws D, |D| = m, as if one by one, each next expert
with probability proportional to w = exp(s / tau) among those left (arXiv 1903.06059,
section 2.3 and appendix A):

    P(D) = sum over orders o of D of prod_j w(o_j) / (Z - w(o_1) - ... - w(o_{j-1}))

with Z the sum of w over all candidates. The sum over m! orders is a recursion over
the 2^m subsets S of D, where f(S) is the probability that the first |S| drawn are S:

    f(S) = sum over e in S of f(S - e) w(e) / W(S - e),    f({}) = 1,    P(D) = f(D)

with W(S) the sum of w over the candidates that are not in S.
"""

from functools import lru_cache

import jax.numpy as jnp
import numpy as np
from jax.nn import logsumexp

from jaxmoe.typing import Array, ArrayLike, Bool, Float

MOST_DRAWN = 12
"""The largest K: the recursion has 2^K states for each token."""

_LARGEST = float(np.finfo(np.float32).max)


def log_probability_of_set(
    scores: Float[Array, "R"],
    at_rank: Bool[Array, "K R"],
    *,
    head: Bool[Array, "R"],
    candidate: Bool[Array, "R"],
    tau: ArrayLike,
    count: ArrayLike,
) -> Float[Array, ""]:
    """Log-probability that `draw_tail` chooses one set.

    Args:
      scores: By rank, the best first.
      at_rank: Which rank each expert of the set has; none in empty places.
      head: Ranks that are always taken, at most `count`.
      candidate: Ranks that the others are drawn from, where they are not in the head.
      tau: Temperature, >= 0.
      count: Experts chosen, 1..K.

    Returns:
      Nats; 0 for a set that is certain, -inf for one that cannot be chosen.

    Raises:
      ValueError: K is larger than `MOST_DRAWN`.
    """
    k, ranks = at_rank.shape
    if k > MOST_DRAWN:
        raise ValueError(
            f"log-probability of a route: k must be 1..{MOST_DRAWN} (the exact sum "
            f"has 2^k states), found {k}; record none, or choose fewer experts"
        )
    # As `draw_tail` compares them. Masked experts (-inf) have no weight.
    scores = jnp.clip(scores, -_LARGEST, _LARGEST)
    candidate = candidate & ~head
    weighty = candidate & (scores > -_LARGEST)
    chosen = at_rank.any(axis=0)
    possible = (chosen.sum() == count) & (chosen | ~head).all()
    # Experts given twice, or without a rank.
    possible &= (at_rank.any(axis=1).sum() == count) & ~(
        chosen & ~head & ~candidate
    ).any()
    # Where nothing is left to chance the best of equals are chosen, in rank order.
    certain = (tau == 0) | (weighty.sum() <= count - head.sum())
    best = (chosen == (jnp.arange(ranks) < count)).all()

    tail = at_rank & ~head[None, :]
    drawn = tail.any(axis=1)
    drawn_scores = jnp.where(tail, scores[None, :], 0.0).sum(axis=1)
    law = _log_plackett_luce(
        drawn_scores, drawn, scores, weighty & ~chosen, jnp.where(tau == 0, 1.0, tau)
    )
    possible &= jnp.where(certain, best, ~(chosen & candidate & ~weighty).any())
    # Rounding may pass 1.
    return jnp.where(possible, jnp.where(certain, 0.0, jnp.minimum(law, 0.0)), -jnp.inf)


def _log_plackett_luce(
    drawn_scores: Float[Array, "K"],
    drawn: Bool[Array, "K"],
    scores: Float[Array, "R"],
    others: Bool[Array, "R"],
    tau: ArrayLike,
) -> Float[Array, ""]:
    """log P(D) for the set D of `drawn` among D and `others`.

    Weights are taken relative to the best score that is left, in each subset anew, and
    W(S) is summed over what is left instead of subtracted from Z. So neither weights
    that differ by many orders, nor a D with nearly all of Z, lose digits.
    """
    k = drawn.shape[0]
    left = ~_members(k) & drawn[None, :]  # [2^K, K], not yet drawn
    best_other = jnp.where(others, scores, -_LARGEST).max()
    other = logsumexp(
        jnp.where(others, (scores - best_other) / tau, -jnp.inf)
    )  # relative to the best of them
    best = jnp.maximum(
        jnp.where(left, drawn_scores[None, :], -_LARGEST).max(axis=1), best_other
    )  # [2^K]
    relative = jnp.where(left, (drawn_scores[None, :] - best[:, None]) / tau, -jnp.inf)
    of_others = jnp.where(others.any(), (best_other - best) / tau + other, -jnp.inf)
    log_left = logsumexp(
        jnp.concatenate([relative, of_others[:, None]], axis=1), axis=1, keepdims=True
    )  # log W(S), relative to the best left
    step = jnp.where(left, relative - log_left, -jnp.inf)  # log w(e) / W(S)

    # f over subsets in order of their sizes.
    log_f = jnp.zeros(1)
    for before, expert, origin in _levels(k):
        log_f = jnp.concatenate(
            [log_f, logsumexp(log_f[before] + step[origin, expert], axis=1)]
        )
    whole = (drawn << np.arange(k)).sum()
    return log_f[jnp.asarray(_order(k)[1])[whole]]


@lru_cache
def _members(k: int) -> np.ndarray:
    """bool [2^K, K]: the elements of each subset, which is the bits of its index."""
    return (np.arange(1 << k)[:, None] >> np.arange(k)) & 1 == 1


@lru_cache
def _order(k: int) -> tuple[np.ndarray, np.ndarray]:
    """Subsets by size, and the place of each subset in that order, both [2^K]."""
    order = np.argsort(_members(k).sum(axis=1), kind="stable")
    return order, np.argsort(order)


@lru_cache
def _levels(k: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """For the subsets of n = 1..K elements, the ways in which each is reached.

    Three arrays [subsets, n]: the place of the subset before, the element drawn last,
    and the subset before.
    """
    members, (order, place) = _members(k), _order(k)
    levels = []
    for n in range(1, k + 1):
        subsets = order[members[order].sum(axis=1) == n]
        expert = np.nonzero(members[subsets])[1].reshape(len(subsets), n)
        origin = subsets[:, None] ^ (1 << expert)
        levels.append((place[origin], expert, origin))
    return levels
