"""How much the answers to one problem, and the experts behind them, differ.

Of answers: `answers` is integer [P, n] as in `jaxmoe.evals.votes`, and every measure
returns one finite number per problem, float64 [P]; samples without an answer (-1) are
left out. Of routes: expert ids of one problem's samples, padded with -1, and every
measure returns one number per layer, float64 [L]; nan where a layer is dense (-1
everywhere) or no two samples can be compared.
"""

import math

import numpy as np
from jaxtyping import Float, Integer

_CHUNK = 1 << 17
"""Positions of pairs compared at once, so that a few arrays of them fit a cache."""

# -- answers -----------------------------------------------------------------------


def distinct(answers: Integer[np.ndarray, "P n"]) -> Float[np.ndarray, "P"]:
    """How many different answers each problem got."""
    return np.array([len(_counts(row)) for row in answers], np.float64)


def entropy(
    answers: Integer[np.ndarray, "P n"], *, normalised: bool = False
) -> Float[np.ndarray, "P"]:
    """Entropy of the answers' shares, - sum over answers of s log s, nats.

    That of the shares as they are, which is too low for few samples: compare runs of
    equal n. 0 for a problem with no answer or one.

    Args:
      normalised: divide by the log of the samples with an answer; 1 then means that all
        of them differ.

    Source: Shannon 1948, "A mathematical theory of communication".
    """
    values = np.zeros(len(answers))
    for problem, row in enumerate(answers):
        counts = _counts(row)
        found = counts.sum()
        if len(counts) > 1:
            share = counts / found
            value = -np.sum(share * np.log(share))
            values[problem] = value / np.log(found) if normalised else value
    return np.minimum(values, 1.0) if normalised else values


# -- routes ------------------------------------------------------------------------


def route_jaccard(
    routes_a: Integer[np.ndarray, "Ta L K"], routes_b: Integer[np.ndarray, "Tb L K"]
) -> Float[np.ndarray, "L"]:
    """Mean over positions of |A and B| / |A or B| of the experts of two samples.

    Position t of one is compared with position t of the other, as far as both go.

    Raises:
      ValueError: different numbers of layers or of experts chosen.

    Source: Jaccard 1912, "The distribution of the flora in the alpine zone".
    """
    if routes_a.shape[1:] != routes_b.shape[1:]:
        raise ValueError(
            "routes must be [T, L, K] with equal L and K, found "
            f"{routes_a.shape} and {routes_b.shape}; compare samples of one model"
        )
    both = min(len(routes_a), len(routes_b))
    routes = np.stack([routes_a[:both], routes_b[:both]])
    return mean_route_jaccard(routes, np.array([both, both]))


def mean_route_jaccard(
    routes: Integer[np.ndarray, "n T L K"],
    lengths: Integer[np.ndarray, "n"],
    *,
    max_pairs: int = 256,
    seed: int = 0,
) -> Float[np.ndarray, "L"]:
    """Mean of `route_jaccard` over pairs of the n samples of one problem.

    Every pair counts once, however long it is; a pair that shares no position does not
    count. Over all n (n - 1) / 2 pairs where they are at most `max_pairs` (up to n =
    23); otherwise over `max_pairs` of them, drawn without replacement.

    Args:
      routes: expert ids; -1 past the end of a sample and in dense layers.
      lengths: positions of each sample, in 0..T.
      max_pairs: pairs at most.
      seed: of NumPy's generator.

    Raises:
      ValueError: fewer than two samples, no pairs, or a length that is not in 0..T.
    """
    first, second = _checked_pairs(routes, lengths, max_pairs, seed)
    values = np.full(routes.shape[2], np.nan)
    for layer in range(routes.shape[2]):
        sets = _expert_sets(routes[:, :, layer], lengths)
        values[layer] = _mean_jaccard(sets, first, second)
    return values


def _counts(row: Integer[np.ndarray, "n"]) -> Integer[np.ndarray, "m"]:
    """How many samples gave each answer."""
    return np.unique(row[row >= 0], return_counts=True)[1]


def _checked_pairs(
    routes: np.ndarray, lengths: np.ndarray, max_pairs: int, seed: int
) -> tuple[Integer[np.ndarray, "M"], Integer[np.ndarray, "M"]]:
    """The samples i < j of each pair to compare."""
    n, positions = routes.shape[:2]
    if n < 2 or max_pairs < 1:
        raise ValueError(
            f"expected at least two samples and one pair, found {n} and {max_pairs}; "
            "draw more answers to the problem"
        )
    outside = (lengths < 0) | (lengths > positions)
    if len(lengths) != n or outside.any():
        raise ValueError(
            f"expected {n} lengths in 0..{positions}, found {lengths.tolist()}; pass "
            "the lengths of the samples whose routes these are"
        )
    every = n * (n - 1) // 2
    if every <= max_pairs:
        return np.triu_indices(n, 1)
    drawn = np.random.default_rng(seed).choice(every, max_pairs, replace=False)
    return tuple(np.stack(np.triu_indices(n, 1))[:, np.sort(drawn)])


def _expert_sets(
    chosen: Integer[np.ndarray, "n T K"], lengths: Integer[np.ndarray, "n"]
) -> Integer[np.ndarray, "W n T"]:
    """The experts of each position as bits of W words; no bits past a sample's end."""
    words = int(chosen.max(initial=0)) // 64 + 1
    sets = np.zeros((words, *chosen.shape[:2]), np.uint64)
    for sample, length in enumerate(lengths.tolist()):
        for rank in range(chosen.shape[2]):
            expert = chosen[sample, :length, rank]
            (here,) = np.nonzero(expert >= 0)
            known = expert[here].astype(np.int64)
            bit = np.uint64(1) << (known % 64).astype(np.uint64)
            sets[known // 64, sample, here] |= bit
    return sets


def _mean_jaccard(
    sets: Integer[np.ndarray, "W n T"],
    first: Integer[np.ndarray, "M"],
    second: Integer[np.ndarray, "M"],
) -> float:
    """Mean over pairs of the mean over positions where both sets hold something."""
    sizes = np.bitwise_count(sets).sum(axis=0, dtype=np.int32)
    chunk = max(1, _CHUNK // max(1, sets.shape[2]))
    means = np.concatenate(
        [
            _jaccard(sets, sizes, first[at : at + chunk], second[at : at + chunk])
            for at in range(0, len(first), chunk)
        ]
    )
    means = means[~np.isnan(means)]
    return float(means.mean()) if means.size else math.nan


def _jaccard(
    sets: Integer[np.ndarray, "W n T"],
    sizes: Integer[np.ndarray, "n T"],
    first: Integer[np.ndarray, "M"],
    second: Integer[np.ndarray, "M"],
) -> Float[np.ndarray, "M"]:
    """Mean over positions of each pair; nan where no position holds two sets."""
    shared = np.zeros((len(first), sizes.shape[1]), np.int32)
    for word in sets:
        shared += np.bitwise_count(word[first] & word[second])
    either = sizes[first] + sizes[second] - shared
    positions = ((sizes > 0)[first] & (sizes > 0)[second]).sum(axis=1)
    # Where a set is empty nothing is shared, so such positions add 0.
    total = (shared / np.maximum(either, 1)).sum(axis=1)
    return np.where(positions > 0, total / np.maximum(positions, 1), np.nan)
