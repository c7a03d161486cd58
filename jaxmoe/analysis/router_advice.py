"""A first guess at k_keep and r, read off a router's own scores.

A heuristic: it finds where a certain head ends and how far a plausible tail reaches.
It has not been validated on accuracy, knows nothing of what the experts compute, and
is no substitute for a sweep; it says where to begin one. A router that is sure of the
wrong experts gets the same advice as one that is right.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxmoe.config import ModelConfig
from jaxmoe.router.policies import ExpertSample

KNEE_RATIO = 0.5
"""The head ends where gaps fall below this times the mean gap of ranks 1..k."""

TAIL_SHARE = 0.25
"""Experts down to this times the probability of the k-th are candidates."""


@dataclass(frozen=True)
class Advice:
    """Suggested numbers of `ExpertSample` for one layer, and what they come from.

    k_keep, r: the suggestion, 1 <= k_keep <= max(1, k - 1) and k <= r <= E.
    knee: rank of the last expert of the head, which may lie past k; None where there is
      no clear one, and `k_keep` is the paper's k // 2 + 1, or k - 1 if that is less.
    gap_k: mean gap of log p between neighbouring ranks from 1 to k, nats.
    gap_head, gap_tail: the same from rank 1 to `k_keep`, and from there to `reach`; 0
      where that is no gap.
    reach: the last rank looked at for a knee, min(4 k, E).
    p_k, p_r: mean probability of ranks k and r.
    knee_ratio, tail_share: the thresholds of the rule.
    """

    k_keep: int
    r: int
    knee: int | None
    gap_k: float
    gap_head: float
    gap_tail: float
    reach: int
    p_k: float
    p_r: float
    knee_ratio: float
    tail_share: float

    def json(self) -> dict[str, Any]:
        """All of it by name."""
        return asdict(self)


def suggest(
    gaps: Float[np.ndarray, "E1"],
    probability: Float[np.ndarray, "E"],
    *,
    k: int,
    knee_ratio: float = KNEE_RATIO,
    tail_share: float = TAIL_SHARE,
) -> Advice:
    """k_keep and r from the mean curve of one layer.

    k_keep: the knee of the curve of log p, the rank behind which gaps are small. With
    t = `knee_ratio` times the mean gap of ranks 1..k, it is the rank j that maximises

        sum over i < j of (gap_i - t),    1 <= j <= min(4 k, E),

    so that every stretch of ranks that ends at j has a mean gap of t or more, and every
    one that begins there has less. Sums are less moved by noise than single gaps are,
    and a step in the gaps is found exactly where t lies between its levels. k_keep = j,
    at most k - 1 so that something is left to draw. A curve that still falls as fast at
    the end has no knee.

    r: the last rank whose mean probability is at least `tail_share` times that of
    rank k.

    Args:
      gaps: mean of log p at each rank but the last less log p at the next, nats
        (`RouterStats.gaps`).
      probability: mean probability at each rank (`RouterStats.probability`).
      k: experts per token.

    Raises:
      ValueError: k is not in 1..E, arrays of other lengths or with values that are not
        finite, or thresholds that are not between 0 and 1.
    """
    experts = len(probability)
    if len(gaps) != experts - 1 or not 1 <= k <= experts:
        raise ValueError(
            f"expected E probabilities, E - 1 gaps and k in 1..E, found {experts}, "
            f"{len(gaps)} and k = {k}; pass those of one layer"
        )
    if not (np.isfinite(gaps).all() and np.isfinite(probability).all()):
        raise ValueError(
            "gaps and probabilities must be finite, found some that are not; leave out "
            "tokens whose logits are not finite"
        )
    if not (0 < knee_ratio <= 1 and 0 < tail_share <= 1):
        raise ValueError(
            "knee_ratio and tail_share must be above 0 and at most 1, found "
            f"{knee_ratio} and {tail_share}; pass for example {KNEE_RATIO}, "
            f"{TAIL_SHARE}"
        )
    reach = min(4 * k, experts)
    gap_k = _mean(gaps[: k - 1])
    knee = _knee(gaps[: reach - 1], knee_ratio * gap_k)
    k_keep = max(1, min(k // 2 + 1 if knee is None else knee, k - 1))
    enough = np.flatnonzero(probability >= tail_share * probability[k - 1])
    r = max(k, int(enough[-1]) + 1)
    return Advice(
        k_keep=k_keep,
        r=r,
        knee=knee,
        gap_k=gap_k,
        gap_head=_mean(gaps[: k_keep - 1]),
        gap_tail=_mean(gaps[k_keep - 1 : reach - 1]),
        reach=reach,
        p_k=float(probability[k - 1]),
        p_r=float(probability[r - 1]),
        knee_ratio=knee_ratio,
        tail_share=tail_share,
    )


def _knee(gaps: np.ndarray, threshold: float) -> int | None:
    """The rank that ends the head; None where what follows is no flatter."""
    ahead = np.append(0.0, np.cumsum(gaps - threshold))
    knee = int(ahead.argmax()) + 1
    behind = gaps[knee - 1 :]
    return knee if len(behind) and behind.mean() < threshold else None


def _mean(gaps: np.ndarray) -> float:
    return float(gaps.mean()) if len(gaps) else 0.0


def policy_of(advice: Mapping[int, Advice], config: ModelConfig) -> ExpertSample:
    """`ExpertSample` with the numbers of each layer; layers without experts, which
    choose nothing, get those of the first that has them.

    Raises:
      ValueError: a layer with experts that has no advice, or no such layer.
    """
    missing = [layer for layer in config.moe_layers if layer not in advice]
    if missing or not config.moe_layers:
        raise ValueError(
            "expected advice for every layer with experts, found none for "
            f"{missing or 'any'}; measure the whole model"
        )
    first = advice[config.moe_layers[0]]
    rows = [advice.get(layer, first) for layer in range(config.num_layers)]
    return ExpertSample(
        k_keep=np.array([row.k_keep for row in rows]),
        r=np.array([row.r for row in rows]),
    )
