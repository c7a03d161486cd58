"""Statistics of router logits by rank, and of how evenly experts are used.

Expert-Sample rests on a shape: a few experts are far ahead, and behind them comes a
long tail of nearly equal ones. A rank curve shows whether a layer has it.
"""

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Float, Integer

_SUM_TOLERANCE = 1e-6


# Arrays have no single truth value, so the generated == could only raise.
@dataclass(frozen=True, eq=False)
class RankCurve:
    """Softmax probability of the expert at each rank; entry 0 is rank 1, the best.

    mean, low, middle, high: mean, 10 % quantile, median and 90 % quantile over rows.
    cumulative: mean of the probability up to and including each rank; ends at 1.
    head, tail: the ranks between which the gaps are taken.
    gap_head: mean of log p at rank 1 less log p at rank `head`, nats.
    gap_tail: mean of log p at rank `head` less log p at rank `tail`, nats.
    """

    mean: Float[np.ndarray, "E"]
    low: Float[np.ndarray, "E"]
    middle: Float[np.ndarray, "E"]
    high: Float[np.ndarray, "E"]
    cumulative: Float[np.ndarray, "E"]
    head: int
    tail: int
    gap_head: float
    gap_tail: float

    @property
    def gap_head_per_rank(self) -> float:
        """`gap_head` over the head - 1 ranks it crosses, nats."""
        return self.gap_head / (self.head - 1)

    @property
    def gap_tail_per_rank(self) -> float:
        """`gap_tail` over the tail - head ranks it crosses, nats."""
        return self.gap_tail / (self.tail - self.head)


def rank_curve(
    logits: Float[np.ndarray, "N E"], *, head: int = 5, tail: int = 32
) -> RankCurve:
    """Sorts each row's probabilities and takes statistics over rows, in float64.

    p = softmax(logits) over all E experts. What a model does to the weights of those
    it chooses changes nothing here.

    Args:
      logits: router logits, a row for each token.
      head: rank at which the head ends.
      tail: rank at which the tail ends, for the gap behind the head.

    Raises:
      ValueError: not 1 < head < tail <= E, no rows, or logits that are not finite.
    """
    rows, experts = logits.shape
    if not 1 < head < tail <= experts:
        raise ValueError(
            f"expected 1 < head < tail <= E with E = {experts} experts, found head = "
            f"{head}, tail = {tail}; pass smaller ones"
        )
    logits = logits.astype(np.float64)
    if not rows or not np.isfinite(logits).all():
        found = "some that are not" if rows else "no rows"
        raise ValueError(
            f"router logits must be finite, at least one row, found {found}; leave out "
            "padding, and record the logits before any mask"
        )
    log_p = -np.sort(-_log_softmax(logits), axis=-1)
    p = np.exp(log_p)
    low, middle, high = np.quantile(p, [0.1, 0.5, 0.9], axis=0)
    mean = p.mean(axis=0)
    mean_log_p = log_p.mean(axis=0)
    return RankCurve(
        mean=mean,
        low=low,
        middle=middle,
        high=high,
        cumulative=np.cumsum(mean),
        head=head,
        tail=tail,
        gap_head=float(mean_log_p[0] - mean_log_p[head - 1]),
        gap_tail=float(mean_log_p[head - 1] - mean_log_p[tail - 1]),
    )


def to_json(curve: RankCurve) -> dict[str, Any]:
    """Every field and the gaps per rank, as JSON has them, to 6 significant digits.

    Significant, because the probabilities of late ranks are far below 1e-6.
    """
    values = {item.name: getattr(curve, item.name) for item in fields(curve)}
    values["gap_head_per_rank"] = curve.gap_head_per_rank
    values["gap_tail_per_rank"] = curve.gap_tail_per_rank
    return {name: _rounded(value) for name, value in values.items()}


def load_share(
    experts: Integer[np.ndarray, "N K"], num_experts: int
) -> Float[np.ndarray, "E"]:
    """Share of all choices that each expert gets; sums to 1.

    Args:
      experts: chosen experts, a row for each token; -1 is no choice.
      num_experts: E.

    Raises:
      ValueError: an expert that is not in -1..E-1, or nothing chosen.
    """
    if experts.size and not -1 <= experts.min() <= experts.max() < num_experts:
        raise ValueError(
            f"experts must be in -1..{num_experts - 1}, found "
            f"{experts.min()}..{experts.max()}; pass the model's own num_experts"
        )
    chosen = experts[experts >= 0]
    if not chosen.size:
        raise ValueError(
            "a share needs at least one choice, found none; pass the routes of tokens "
            "that went through a router"
        )
    return np.bincount(chosen, minlength=num_experts) / chosen.size


def normalised_entropy(share: Float[np.ndarray, "E"]) -> float:
    """How even a load is: 1 where all experts get the same, 0 where one gets all.

    - sum over e of s_e log s_e, over log E; 1 where E = 1.

    Raises:
      ValueError: `share` is negative somewhere, or does not sum to 1.
    """
    total = float(share.sum())
    if share.min(initial=0) < 0 or abs(total - 1) > _SUM_TOLERANCE:
        raise ValueError(
            f"a share must be 0 or more and sum to 1, found a minimum of "
            f"{share.min(initial=0)} and a sum of {total}; divide counts by their sum"
        )
    if len(share) == 1:
        return 1.0
    used = share[share > 0].astype(np.float64)
    # Rounding could carry an even load past 1, and - sum(1 log 1) is -0.0.
    return float(np.clip(np.sum(used * -np.log(used)) / np.log(len(share)), 0.0, 1.0))


def _log_softmax(logits: Float[np.ndarray, "N E"]) -> Float[np.ndarray, "N E"]:
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def _rounded(value: Any) -> Any:
    """`value` to 6 significant digits; an array as a list, an int as it is."""
    if isinstance(value, np.ndarray):
        return [_rounded(x) for x in value.tolist()]
    return float(f"{value:.6g}") if isinstance(value, float) else value
