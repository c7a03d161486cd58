"""How far counts may lie from what was expected before a test says so."""

import itertools
import math

import numpy as np

_Z = 3.719  # the normal quantile of 1 - 1e-4


def excess(counts: np.ndarray, expected: np.ndarray) -> float:
    """Pearson's chi-square over its 1 - 1e-4 quantile: above 1, the counts differ.

    expected: probabilities of the cells, of the same shape; they sum to 1. Cells that
    expect fewer than 5 counts are merged into one.
    """
    counts, expected = np.ravel(counts), np.ravel(expected) * counts.sum()
    assert math.isclose(expected.sum(), counts.sum(), rel_tol=1e-5)
    assert not counts[expected == 0].any(), "something impossible was drawn"
    rare = expected < 5
    counts = np.append(counts[~rare], counts[rare].sum())
    expected = np.append(expected[~rare], expected[rare].sum())
    counts, expected = counts[expected > 0], expected[expected > 0]
    assert len(counts) > 1, "one cell decides nothing"
    freedom = len(counts) - 1
    spread = 2 / (9 * freedom)  # Wilson and Hilferty's approximation of the quantile
    quantile = freedom * (1 - spread + _Z * math.sqrt(spread)) ** 3
    return float(((counts - expected) ** 2 / expected).sum() / quantile)


def plackett_luce_sets(logits: np.ndarray, count: int) -> dict[frozenset[int], float]:
    """Probability of each set of `count` drawn one by one without replacement.

    P(set) = sum over its orders of prod_j w_j / (sum of w not yet drawn), w = e^logit.
    """
    weights = np.exp(np.asarray(logits, np.float64) - np.max(logits))
    result: dict[frozenset[int], float] = {}
    for order in itertools.permutations(range(len(weights)), count):
        rest, probability = weights.sum(), 1.0
        for drawn in order:
            probability *= weights[drawn] / rest
            rest -= weights[drawn]
        result[frozenset(order)] = result.get(frozenset(order), 0.0) + probability
    return result
