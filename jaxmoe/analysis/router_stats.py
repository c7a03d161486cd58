"""Statistics of one layer's router, summed up inside jit, token by token.

`jaxmoe.analysis.router_scores` takes all logits at once; these take any number of
tokens in constant memory, and no array with a row for each token leaves the device.
Counts are int32 and sums float32 on the device, where they hold one batch; `to_host`
makes them int64 and float64, in which batches are merged. So 10^8 tokens neither
overflow a count nor drown small probabilities in a large sum.
"""

import dataclasses
import operator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmoe.typing import Array, Bool, Float, Int, Integer, pytree

BIN_WIDTH = 1 / 16
"""Nats. A quantile of p is off by half a bin at most: a factor of 1.032."""

BINS = 512
"""From log p = 0 down to -32; the last bin also has all that is below."""

MASSES = (0.5, 0.8, 0.9)
"""Probabilities to be reached, of which head sizes are counted."""

_MASS_TOLERANCE = 1e-6
"""Sums of float32 probabilities that are short of a mass by less have reached it."""

Numbers = Any
"""An array on the device (int32, float32) or on the host (int64, float64)."""


@pytree()
@dataclass(frozen=True, eq=False)
class RouterStats:
    """Sums over tokens. Rank 1, the best expert, is at index 0.

    p = softmax(logits) over the R experts that a token may have, sorted: all E, or
    those of the groups that the model confines it to. What a model does to the weights
    of those it chooses changes nothing here. The properties need `to_host` first.

    tokens: how many; integer.
    not_finite: tokens left out of everything, because a logit was not finite.
    p_sum: of the probability at each rank, [R].
    top_log_sum: of log p at rank 1.
    gap_sum: of log p at each rank less log p at the next, [R - 1].
    log_bins: tokens by rank and by -log p in bins of `BIN_WIDTH`, integer [R, BINS].
    entropy_sum: of - sum p log p, nats.
    entropy_spread: of the squared distance of the entropy from its mean.
    head_sizes: tokens by the number of experts that reach each mass of `MASSES`,
      integer [3, R]; index 0 is one expert.
    chosen: tokens that chose both experts, integer [E, E]; the diagonal counts the
      choices of each.
    """

    tokens: Numbers
    not_finite: Numbers
    p_sum: Numbers
    top_log_sum: Numbers
    gap_sum: Numbers
    log_bins: Numbers
    entropy_sum: Numbers
    entropy_spread: Numbers
    head_sizes: Numbers
    chosen: Numbers

    @property
    def num_experts(self) -> int:
        """E."""
        return len(self.chosen)

    @property
    def ranks(self) -> int:
        """R, the experts that a token may have."""
        return len(self.p_sum)

    @property
    def probability(self) -> Float[np.ndarray, "R"]:
        """Mean probability at each rank."""
        return np.asarray(self.p_sum) / self._count

    @property
    def mass(self) -> Float[np.ndarray, "R"]:
        """Mean probability up to and including each rank; ends at 1."""
        return np.cumsum(self.probability)

    @property
    def gaps(self) -> Float[np.ndarray, "R1"]:
        """Mean of log p at each rank but the last less log p at the next, nats."""
        return np.asarray(self.gap_sum) / self._count

    @property
    def log_probability(self) -> Float[np.ndarray, "R"]:
        """Mean of log p at each rank, nats."""
        top = float(self.top_log_sum) / self._count
        return top - np.append(0.0, np.cumsum(self.gaps))

    @property
    def entropy(self) -> tuple[float, float]:
        """Mean and standard deviation over tokens, nats."""
        variance = float(self.entropy_spread) / self._count
        return float(self.entropy_sum) / self._count, variance**0.5

    @property
    def load(self) -> Integer[np.ndarray, "E"]:
        """Choices of each expert."""
        return np.diagonal(np.asarray(self.chosen))

    def quantile(self, share: float) -> Float[np.ndarray, "R"]:
        """The probability at each rank that `share` of the tokens do not exceed.

        The middle of its bin in log p, so a factor of exp(BIN_WIDTH / 2) off at most;
        below exp(-32) it says no more than that.
        """
        counts = np.asarray(self.log_bins)[:, ::-1].cumsum(axis=1)
        wanted = max(1, int(np.ceil(share * self._count - 1e-9)))
        place = BINS - 1 - (counts >= wanted).argmax(axis=1)
        return np.exp(-(place + 0.5) * BIN_WIDTH)

    def head_size(self, mass: float, share: float = 0.5) -> int:
        """The number of experts that reaches `mass` for `share` of the tokens.

        mass: one of `MASSES`. share: 0.5 for the median.
        """
        if mass not in MASSES:
            raise ValueError(
                f"head sizes are counted at {MASSES}, found {mass}; pass one of them"
            )
        counts = np.asarray(self.head_sizes)[MASSES.index(mass)].cumsum()
        wanted = max(1, int(np.ceil(share * self._count - 1e-9)))
        return int((counts >= wanted).argmax()) + 1

    def coactivation(self, *, beyond: float = 0.0) -> Float[np.ndarray, "E E"]:
        """How much more often two experts are chosen together than their loads say.

        n_ij over c n_i n_j, with the c that gives all pairs of different experts the
        sum they have: 1 where experts are chosen without regard to one another, nan on
        the diagonal and where an expert is never chosen.

        Args:
          beyond: counts that are nearer to what is expected than so many standard
            deviations (of Poisson's distribution) are taken to be 1 too.
        """
        pairs = np.asarray(self.chosen).astype(np.float64)
        np.fill_diagonal(pairs, 0)
        expected = np.outer(self.load, self.load).astype(np.float64)
        np.fill_diagonal(expected, 0)
        expected *= pairs.sum() / max(expected.sum(), 1)
        empty = expected == 0
        lift = np.where(empty, np.nan, pairs / np.where(empty, 1, expected))
        near = abs(pairs - expected) < beyond * np.sqrt(expected)
        return np.where(near & ~empty, 1.0, lift)

    @property
    def _count(self) -> int:
        if not int(self.tokens):
            raise ValueError(
                "a mean needs at least one token, found none; run a model over some"
            )
        return int(self.tokens)


def empty(num_experts: int, ranks: int | None = None) -> RouterStats:
    """Statistics of no token, on the device.

    ranks: the experts that a token may have; None for all.
    """
    count = jnp.zeros((), jnp.int32)
    total = jnp.zeros((), jnp.float32)
    ranks = num_experts if ranks is None else ranks
    return RouterStats(
        tokens=count,
        not_finite=count,
        p_sum=jnp.zeros(ranks, jnp.float32),
        top_log_sum=total,
        gap_sum=jnp.zeros(ranks - 1, jnp.float32),
        log_bins=jnp.zeros((ranks, BINS), jnp.int32),
        entropy_sum=total,
        entropy_spread=total,
        head_sizes=jnp.zeros((len(MASSES), ranks), jnp.int32),
        chosen=jnp.zeros((num_experts, num_experts), jnp.int32),
    )


def update(
    stats: RouterStats,
    logits: Float[Array, "N E"],
    experts: Int[Array, "N K"],
    mask: Bool[Array, "N"],
) -> RouterStats:
    """`stats` with N more tokens; pure, for use inside jit.

    Call `to_host` after at most some 10^5 tokens: float32 sums of n numbers are off by
    a share of sqrt(n) 6e-8 or so.

    Args:
      logits: of the router; their scale and any constant added to a row count as given.
        -inf for the experts that a token may not have.
      experts: chosen ones, each at most once a row; -1 is an empty place.
      mask: rows that count. The others may hold anything, nan too.
    """
    return merge(stats, _of_rows(logits, experts, mask, stats.ranks))


def _of_rows(logits, experts, mask, ranks: int) -> RouterStats:
    num_experts = logits.shape[1]
    log_p = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    finite = jnp.isfinite(log_p)
    forbidden = jnp.isneginf(logits).sum(axis=1) == num_experts - ranks
    finite = (finite.sum(axis=1) == ranks) & forbidden
    counts = mask & finite
    # Chosen, not multiplied: 0 * nan would reach the sums.
    log_p = -jnp.sort(-jnp.where(counts[:, None], log_p, 0.0), axis=-1)[:, :ranks]
    p = jnp.exp(log_p)
    total = lambda a: jnp.where(  # noqa: E731
        counts.reshape(-1, *[1] * (a.ndim - 1)), a, 0
    ).sum(axis=0)
    tokens = counts.sum(dtype=jnp.int32)
    entropy = -(p * log_p).sum(axis=1)
    mean = total(entropy) / jnp.maximum(tokens, 1)
    return RouterStats(
        tokens=tokens,
        not_finite=(mask & ~finite).sum(dtype=jnp.int32),
        p_sum=total(p),
        top_log_sum=total(log_p[:, 0]),
        gap_sum=total(log_p[:, :-1] - log_p[:, 1:]),
        log_bins=_log_bins(log_p, counts),
        entropy_sum=total(entropy),
        entropy_spread=total((entropy - mean) ** 2),
        head_sizes=_head_sizes(p, counts),
        chosen=_chosen(experts, counts, num_experts),
    )


def _log_bins(log_p, counts) -> Int[Array, "R X"]:
    ranks = jnp.arange(log_p.shape[1])
    # Rounding may lift log p past 0; a float past the last bin may not fit an int.
    bins = jnp.clip(-log_p / BIN_WIDTH, 0, BINS - 1).astype(jnp.int32)
    ones = jnp.broadcast_to(counts[:, None].astype(jnp.int32), bins.shape)
    blank = jnp.zeros((log_p.shape[1], BINS), jnp.int32)
    return blank.at[jnp.broadcast_to(ranks[None], bins.shape), bins].add(ones)


def _head_sizes(p, counts) -> Int[Array, "M R"]:
    ranks = p.shape[1]
    mass = jnp.cumsum(p, axis=1)
    sizes = [(mass < m - _MASS_TOLERANCE).sum(axis=1) for m in MASSES]
    # The sum of all may fall short by rounding, but there are no more experts.
    size = jnp.minimum(jnp.stack(sizes), ranks - 1)
    every = jnp.arange(ranks)
    here = (size[:, :, None] == every[None, None]) & counts[None, :, None]
    return here.sum(axis=1, dtype=jnp.int32)


def _chosen(experts, counts, num_experts: int) -> Int[Array, "E E"]:
    every = jnp.arange(num_experts)
    took = (experts[:, :, None] == every[None, None]).any(axis=1) & counts[:, None]
    # Products of 0 and 1, summed in float32: exact up to 2^24 tokens at once.
    took = took.astype(jnp.float32)
    return jnp.matmul(took.T, took, precision="highest").astype(jnp.int32)


def merge(a: RouterStats, b: RouterStats) -> RouterStats:
    """The statistics of the tokens of both, on the device or both on the host.

    Squared distances are of each part's own mean, and so join by
    S = S_a + S_b + d^2 n_a n_b / (n_a + n_b), d the distance of the means (Chan,
    Golub and LeVeque 1979); a plain sum of squares would cancel where all entropies
    are nearly equal.
    """
    both = jax.tree.map(operator.add, a, b)
    # Without branches, so that it holds for arrays of layers, and for no tokens.
    mean_a, mean_b = (x.entropy_sum / (x.tokens + (x.tokens == 0)) for x in (a, b))
    weight = a.tokens * (b.tokens / (both.tokens + (both.tokens == 0)))
    spread = both.entropy_spread + (mean_a - mean_b) ** 2 * weight
    return dataclasses.replace(both, entropy_spread=spread)


def to_host(stats: RouterStats) -> RouterStats:
    """The same as NumPy arrays of int64 and float64.

    Raises:
      ValueError: some logits were not finite.
    """
    held = jax.tree.map(_widened, jax.device_get(stats))
    if wrong := int(held.not_finite.sum()):
        raise ValueError(
            f"router logits must be finite, found {wrong} tokens with others; leave "
            "out padding, take logits before any mask, and check the weights"
        )
    return held


def _widened(array: Any) -> np.ndarray:
    whole = np.issubdtype(array.dtype, np.integer)
    return np.asarray(array, np.int64 if whole else np.float64)


# -- files -------------------------------------------------------------------------


def to_json(stats: RouterStats) -> dict[str, Any]:
    """All of it, exactly, as JSON has it; of each rank's bins those from the first to
    the last that is not empty: [first, [counts]].
    """
    values = {
        item.name: np.asarray(getattr(stats, item.name)).tolist()
        for item in dataclasses.fields(stats)
        if item.name != "not_finite"
    }
    values["log_bins"] = [
        _trimmed(np.asarray(row)) for row in np.asarray(stats.log_bins)
    ]
    return values | {"bin_width": BIN_WIDTH, "masses": list(MASSES)}


def _trimmed(row: np.ndarray) -> list[Any]:
    places = np.flatnonzero(row)
    first, last = (places[0], places[-1]) if len(places) else (0, -1)
    return [int(first), row[first : last + 1].tolist()]


def from_json(values: dict[str, Any]) -> RouterStats:
    """What `to_json` was given, on the host.

    Raises:
      ValueError: fields that are missing, unknown, or of shapes that do not agree.
    """
    names = {item.name for item in dataclasses.fields(RouterStats)} - {"not_finite"}
    layout = {"bin_width": BIN_WIDTH, "masses": list(MASSES)}
    if values.keys() != names | layout.keys() or any(
        values[name] != value for name, value in layout.items()
    ):
        raise ValueError(
            f"expected router statistics with {', '.join(sorted(names))}, and "
            f"{layout}, found {', '.join(sorted(values))}; measure again with this "
            "version"
        )
    bins = np.zeros((len(values["log_bins"]), BINS), np.int64)
    for row, (first, counts) in zip(bins, values["log_bins"], strict=True):
        row[first : first + len(counts)] = counts
    arrays = {name: np.asarray(values[name]) for name in names - {"log_bins"}}
    plain = empty(len(values["chosen"]), len(values["p_sum"]))
    stats = RouterStats(**arrays, log_bins=bins, not_finite=np.zeros((), np.int64))
    return jax.tree.map(_like, plain, stats)


def _like(plain: Array, found: np.ndarray) -> np.ndarray:
    """`found` as int64 or float64, whichever `plain` is; its shape has to be equal."""
    if plain.shape != found.shape:
        raise ValueError(
            f"expected router statistics of one layer, found an array of shape "
            f"{found.shape} for {plain.shape}; the file is damaged, measure again"
        )
    whole = np.issubdtype(plain.dtype, np.integer)
    return found.astype(np.int64 if whole else np.float64)
