"""One answer out of n: majority votes, weighted votes, and the best by a score.

P problems with n answers each. `correct` is bool [P, n]. `answers` is integer [P, n]:
equal where the answers to a problem are equal, -1 where none was found (see `codes`).
`scores` is float [P, n], higher is better; nan is unknown and counts as the lowest.
All measures return one finite number per problem, float64 [P], for `metrics.bootstrap`.

An answer is as right as its samples are on average: where two samples have one code and
differ in `correct`, a vote for that code counts one half. Samples without an answer do
not vote, whatever their `correct`; a problem without any answer is 0.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, Float, Integer

NO_ANSWER = -1
"""The code of a sample whose text held no answer."""

_CHUNK = 1 << 20
"""Entries of the subsets held at once, 4 MiB; as many again for their votes."""

_ROUNDING = 1e-12
"""Totals nearer than this share of all weights are a tie: sums depend on order."""


def codes(answers: Sequence[Sequence[str | None]]) -> Integer[np.ndarray, "P n"]:
    """Numbers the answers to each problem from 0 in the order they first appear.

    Args:
      answers: n normalised answers to each problem; None where none was found.

    Returns:
      int64; -1 where none was found.

    Raises:
      ValueError: problems with different numbers of answers.
    """
    n = len(answers[0]) if answers else 0
    table = np.full((len(answers), n), NO_ANSWER, np.int64)
    for problem, row in enumerate(answers):
        if len(row) != n:
            raise ValueError(
                f"expected {n} answers to each problem, found {len(row)} to problem "
                f"{problem}; finish the run, or leave out what is incomplete"
            )
        numbers: dict[str, int] = {}
        for sample, answer in enumerate(row):
            if answer is not None:
                table[problem, sample] = numbers.setdefault(answer, len(numbers))
    return table


def majority_vote(
    answers: Integer[np.ndarray, "P n"], correct: Bool[np.ndarray, "P n"]
) -> Float[np.ndarray, "P"]:
    """How right the answer with the most votes is; one of several is drawn evenly.

    Raises:
      ValueError: shapes that differ.

    Source: Wang et al. 2022, "Self-consistency" (arXiv 2203.11171).
    """
    return weighted_vote(answers, correct, np.ones(answers.shape))


def majority_at(
    answers: Integer[np.ndarray, "P n"],
    correct: Bool[np.ndarray, "P n"],
    k: int,
    *,
    subsets: int = 4096,
    seed: int = 0,
) -> Float[np.ndarray, "P"]:
    """What `majority_vote` gives on average over sets of k of the n samples.

    Exact, over all C(n, k) sets, where there are at most `subsets` of them. Otherwise a
    Monte Carlo estimate from `subsets` sets, the same for all problems; its standard
    error is at most 0.5 / sqrt(subsets) for one problem. For one seed, the sets of a
    smaller k are parts of those of a larger one, so that a curve over k is smooth.

    How right an answer is stays its mean over all n samples. With k = 1 this is the
    share of right samples, those without an answer counted as wrong.

    Args:
      k: samples that vote.
      subsets: sets of samples at most.
      seed: of NumPy's generator.

    Raises:
      ValueError: shapes that differ, k not in 1..n, or no subsets.
    """
    _check_shapes(answers, correct)
    problems, n = answers.shape
    _check_size(k, n)
    if subsets < 1:
        raise ValueError(
            f"subsets must be at least 1, found {subsets}; pass for example 4096"
        )
    ballots = [_ballot(*row) for row in zip(answers, correct, strict=True)]
    totals, count = np.zeros(problems), 0
    for members in _subsets(n, k, subsets, seed):
        count += len(members)
        for problem, (votes, right) in enumerate(ballots):
            counts = members @ votes
            cast = counts.any(axis=1)  # none: all of the set are without an answer
            totals[problem] += _elected(counts, right)[cast].sum()
    return totals / count


def weighted_vote(
    answers: Integer[np.ndarray, "P n"],
    correct: Bool[np.ndarray, "P n"],
    scores: Float[np.ndarray, "P n"],
    how: Literal["sum", "mean"] = "sum",
) -> Float[np.ndarray, "P"]:
    """How right the answer is whose samples' scores add up to the most.

    Ties are drawn evenly. "sum" suits scores of 0 or more: each vote then helps. With
    negative scores, such as log-probabilities, each vote would count against its
    answer and the rarest would win; pass `weights_from(scores)` instead, or use "mean".

    An unknown score (nan) counts as the lowest known one of its problem; where none is
    known, all are 1, which for "sum" leaves the majority vote.

    Args:
      how: "sum" or "mean" of the scores of the samples with one answer.

    Raises:
      ValueError: shapes that differ, infinite scores, or another `how`.

    Source: Li et al. 2022 (arXiv 2206.02336), voting verifier, for "sum".
    """
    _check_shapes(answers, correct, scores)
    if how not in ("sum", "mean"):
        raise ValueError(
            f'how must be "sum" or "mean", found {how!r}; pass one of them'
        )
    _check_finite(scores)
    weights = _known(scores.astype(np.float64))
    elected = np.zeros(len(answers))
    for problem, row in enumerate(zip(answers, correct, strict=True)):
        votes, right = _ballot(*row)
        totals = weights[problem] @ votes
        if how == "mean":
            totals = totals / votes.sum(axis=0)
        slack = _ROUNDING * float(np.abs(weights[problem]).sum())
        elected[problem] = _elected(totals[None], right, slack)[0]
    return elected


def most_confident(
    scores: Float[np.ndarray, "P n"], keep: float
) -> Bool[np.ndarray, "P n"]:
    """Which samples are among the share `keep` with the highest scores.

    Those whose score is at least the percentile 100 (1 - keep) of the known ones of
    their problem; ties stay. An unknown score (nan) is left out where others are known.

    Raises:
      ValueError: `keep` is not in (0, 1].

    Source: Fu et al. 2025, DeepConf (arXiv 2508.15260), section 3.2.
    """
    if not 0 < keep <= 1:
        raise ValueError(f"keep must be a share in (0, 1], found {keep}")
    _check_finite(scores)
    return np.array([_highest(row, keep) for row in scores]).reshape(scores.shape)


def _highest(row: Float[np.ndarray, "n"], keep: float) -> Bool[np.ndarray, "n"]:
    known = row[~np.isnan(row)]
    if not known.size:
        return np.ones(row.shape, bool)
    return row >= np.percentile(known, 100 * (1 - keep))


def filtered_vote(
    answers: Integer[np.ndarray, "P n"],
    correct: Bool[np.ndarray, "P n"],
    scores: Float[np.ndarray, "P n"],
    keep: float = 0.1,
) -> Float[np.ndarray, "P"]:
    """`weighted_vote` of the most confident samples alone.

    Args:
      keep: their share; with 1 it is `weighted_vote`.

    Raises:
      ValueError: shapes that differ, infinite scores, or `keep` not in (0, 1].

    Source: Fu et al. 2025, DeepConf (arXiv 2508.15260), section 3.2; the paper's
    scores are confidences of groups of tokens (`jaxmoe.evals.deep_conf`).
    """
    _check_shapes(answers, correct, scores)
    voting = most_confident(scores, keep)
    return weighted_vote(np.where(voting, answers, NO_ANSWER), correct, scores)


def borda_vote(
    answers: Integer[np.ndarray, "P n"],
    correct: Bool[np.ndarray, "P n"],
    scores: Float[np.ndarray, "P n"],
    p: float = 1.0,
) -> Float[np.ndarray, "P"]:
    """How right the answer is whose samples' ranks add up to the most votes.

    The sample of rank r among n, 1 for the highest score, has (n - r + 1)^p votes;
    equal scores share the mean of their ranks', and an unknown one ranks last.

    Args:
      p: 0 is `majority_vote`; the larger, the nearer to `best_of_n`.

    Raises:
      ValueError: shapes that differ, or p is negative or not finite.

    Source: Kang et al. 2025, self-certainty (arXiv 2502.18581), equation 11.
    """
    _check_shapes(answers, correct, scores)
    if not 0 <= p < math.inf:
        raise ValueError(f"p must be 0 or more, found {p}; 1 is the usual count")
    votes = np.arange(scores.shape[1], 0, -1, dtype=np.float64) ** p
    return weighted_vote(answers, correct, _by_rank(votes, scores))


def weights_from(
    log_probabilities: Float[np.ndarray, "P n"],
) -> Float[np.ndarray, "P n"]:
    """Log-probabilities as weights: exp(s - the largest s of the problem).

    The common factor changes no vote and keeps long answers from underflowing all at
    once. nan stays nan.
    """
    scores = log_probabilities.astype(np.float64)
    known = np.where(np.isnan(scores), -np.inf, scores)
    largest = known.max(axis=1, initial=-np.inf, keepdims=True)
    return np.exp(scores - np.where(np.isfinite(largest), largest, 0.0))


def best_of_n(
    correct: Bool[np.ndarray, "P n"], scores: Float[np.ndarray, "P n"]
) -> Float[np.ndarray, "P"]:
    """How often the sample with the highest score is right, ties drawn evenly.

    Samples without an answer compete too; give them nan to keep them out where others
    have a score.

    Raises:
      ValueError: shapes that differ, or no samples.
    """
    return best_of_k(correct, scores, scores.shape[1])


def best_of_k(
    correct: Bool[np.ndarray, "P n"], scores: Float[np.ndarray, "P n"], k: int
) -> Float[np.ndarray, "P"]:
    """What `best_of_n` gives on average over all sets of k of the n samples, exactly.

    The sample of rank j is the best of a random set with probability

        w_j = C(n - j, k - 1) / C(n, k).

    Equal scores share the mean of their ranks' probabilities. With k = 1 this is the
    share of right samples.

    Raises:
      ValueError: shapes that differ, or k not in 1..n.
    """
    _check_shapes(scores, correct)
    n = scores.shape[1]
    _check_size(k, n)
    # w_1 = k / n and w_(j+1) / w_j = (n - j - k + 1) / (n - j): no large coefficients.
    later = np.arange(n - 1, 0, -1)
    ratios = np.maximum(later - k + 1, 0) / later
    chance = k / n * np.cumprod(np.append(1.0, ratios))
    return (_by_rank(chance, scores) * correct).sum(axis=1)


def _check_shapes(answers: np.ndarray, *others: np.ndarray) -> None:
    for other in others:
        if answers.ndim != 2 or other.shape != answers.shape:
            raise ValueError(
                "expected arrays of one shape [problems, samples], found "
                f"{answers.shape} and {other.shape}; pass those of one run"
            )


def _check_finite(scores: np.ndarray) -> None:
    if np.isinf(scores).any():
        raise ValueError(
            "scores that are added must be finite, or nan where unknown, found "
            "infinite ones; replace them by nan"
        )


def _check_size(k: int, n: int) -> None:
    if not 1 <= k <= n:
        raise ValueError(
            f"k must be in 1..n with n = {n}, found {k}; pass at most as many as were "
            "sampled"
        )


def _ballot(
    answers: Integer[np.ndarray, "n"], correct: Bool[np.ndarray, "n"]
) -> tuple[Float[np.ndarray, "n m"], Float[np.ndarray, "m"]]:
    """Who votes for which of the m answers, as 0 and 1, and how right each is."""
    candidates = np.unique(answers[answers >= 0])
    # float32 makes the product with a million subsets fast, and counts exactly.
    votes = (answers[:, None] == candidates).astype(np.float32)
    return votes, correct.astype(np.float64) @ votes / votes.sum(axis=0, dtype=float)


def _elected(
    totals: Float[np.ndarray, "B m"], right: Float[np.ndarray, "m"], slack: float = 0.0
) -> Float[np.ndarray, "B"]:
    """Mean of `right` over the answers whose total is within `slack` of the largest.

    0 where there are no answers.
    """
    if not right.size:
        return np.zeros(len(totals))
    largest = totals.max(axis=1, keepdims=True)
    tied = (totals >= largest - slack).astype(np.float64)
    return tied @ right / tied.sum(axis=1)


def _known(scores: Float[np.ndarray, "P n"]) -> Float[np.ndarray, "P n"]:
    """nan replaced by the lowest score of the problem, by 1 where all are nan."""
    missing = np.isnan(scores)
    lowest = np.where(missing, np.inf, scores).min(axis=1, initial=np.inf)
    return np.where(missing, np.where(np.isinf(lowest), 1.0, lowest)[:, None], scores)


def _by_rank(
    values: Float[np.ndarray, "n"], scores: Float[np.ndarray, "P n"]
) -> Float[np.ndarray, "P n"]:
    """values[r - 1] for the sample of rank r; equal scores get the mean of theirs."""
    known = np.where(np.isnan(scores), -np.inf, scores)
    order = np.argsort(-known, axis=1, kind="stable")
    ranked = np.take_along_axis(known, order, axis=1)
    first = np.ones(ranked.shape, bool)
    first[:, 1:] = ranked[:, 1:] != ranked[:, :-1]
    # Groups of equal scores, numbered through all problems.
    group = np.cumsum(first.ravel()) - 1
    sums = np.bincount(group, np.tile(values, len(scores)))
    shared = (sums / np.bincount(group))[group].reshape(ranked.shape)
    result = np.empty(ranked.shape)
    np.put_along_axis(result, order, shared, axis=1)
    return result


def _subsets(
    n: int, k: int, limit: int, seed: int
) -> Iterator[Float[np.ndarray, "B n"]]:
    """Sets of k of n as rows of 0 and 1: all of them, or `limit` drawn; in chunks."""
    chunk = max(1, _CHUNK // n)
    if math.comb(n, k) <= limit:
        every = itertools.combinations(range(n), k)
        while picked := list(itertools.islice(every, chunk)):
            yield _rows_of(np.array(picked), n)
        return
    generator = np.random.default_rng(seed)
    for start in range(0, limit, chunk):
        draws = generator.random((min(chunk, limit - start), n))
        yield _rows_of(np.argsort(draws, axis=1)[:, :k], n)


def _rows_of(picked: Integer[np.ndarray, "B k"], n: int) -> Float[np.ndarray, "B n"]:
    rows = np.zeros((len(picked), n), np.float32)
    np.put_along_axis(rows, picked, 1.0, axis=1)
    return rows


CERTAINTY = "self-certainty"
CONFIDENCE = "confidence"
SUREST = (0.1, 0.9)
"""Shares of answers that vote in DeepConf: low and high."""


@dataclass(frozen=True)
class Aggregation:
    """A way to one answer out of n, as a row of every table of measures.

    measure: its name there, with {n} for the number of answers and {score} for the
    name of their scores. rule: the function that says what it does. scores: by which it
    is measured: "none", "any", or the name of the only ones. elect: how right what it
    elects is, from answers, correct and scores. added: whether scores are added up, so
    that none may be negative. about: what is said of it, where its rule says more.
    """

    measure: str
    rule: Callable[..., Any]
    scores: str
    elect: Callable[[Any, Any, Any], Float[np.ndarray, "P"]]
    added: bool = False
    about: str = ""

    def takes(self, score: str, values: Float[np.ndarray, "P n"]) -> bool:
        """Whether it is measured by scores of this name and these values."""
        named = self.scores in ("any", score)
        return named and not (self.added and (values < 0).any())


def _filtered(keep: float) -> Aggregation:
    measure = f"vote of the surest {100 * keep:g} %, {{score}}"
    elect = lambda a, c, s: filtered_vote(a, c, s, keep)  # noqa: E731
    return Aggregation(measure, filtered_vote, CONFIDENCE, elect, added=True)


AGGREGATIONS = (
    Aggregation(
        "majority vote of {n}",
        majority_vote,
        "none",
        lambda a, c, _: majority_vote(a, c),
    ),
    Aggregation(
        "best of {n}, {score}", best_of_n, "any", lambda _, c, s: best_of_n(c, s)
    ),
    Aggregation(
        "vote by mean, {score}",
        weighted_vote,
        "any",
        lambda a, c, s: weighted_vote(a, c, s, how="mean"),
        about="How right the answer is whose samples' scores are highest on average.",
    ),
    Aggregation(
        "vote by sum, {score}", weighted_vote, "any", weighted_vote, added=True
    ),
    *map(_filtered, SUREST),
    Aggregation("Borda vote, {score}", borda_vote, CERTAINTY, borda_vote),
)
"""All that a run is summed up by; `jaxmoe list aggregations`."""
