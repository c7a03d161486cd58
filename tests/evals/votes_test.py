"""Votes and best-of-k against all subsets, all tie-breaks, and examples by hand."""

import itertools
import math
import tracemalloc

import numpy as np
import pytest

from jaxmoe.evals import votes
from jaxmoe.evals.metrics import pass_at
from jaxmoe.evals.votes import (
    AGGREGATIONS,
    best_of_k,
    best_of_n,
    borda_vote,
    codes,
    filtered_vote,
    majority_at,
    majority_vote,
    most_confident,
    weighted_vote,
    weights_from,
)


@pytest.fixture
def drawn():
    """40 problems of 6 samples: ties, samples without an answer, problems without any.

    Correctness follows the answer, but for the last problems, where it is noise.
    """
    generator = np.random.default_rng(0)
    answers = generator.integers(-1, 3, (40, 6))
    answers[5] = -1
    correct = answers == generator.integers(0, 3, (40, 1))
    correct[30:] = generator.random((10, 6)) < 0.5
    return answers, correct


def _voted(answers, correct, weights, picked, how="sum") -> float:
    """One problem's vote among `picked`, spelled out with every tie-break."""
    totals = {}
    for i in picked:
        if answers[i] >= 0:
            totals.setdefault(answers[i], []).append(weights[i])
    if not totals:
        return 0.0
    totals = {
        code: math.fsum(found) / (len(found) if how == "mean" else 1)
        for code, found in totals.items()
    }
    winners = [
        code for code, total in totals.items() if total > max(totals.values()) - 1e-9
    ]
    return float(np.mean([correct[answers == code].mean() for code in winners]))


# -- codes -------------------------------------------------------------------------


def test_codes_are_equal_where_answers_are():
    """Votes for one answer would be split, or no answer would win elections."""
    found = codes([["7", "x", "7", None], [None, "x", "", "7"]])
    np.testing.assert_array_equal(found, [[0, 1, 0, -1], [-1, 0, 1, 2]])
    assert found.dtype == np.int64
    assert codes([]).shape == (0, 0)


def test_codes_refuse_problems_with_fewer_answers():
    """An unfinished problem would be voted on by fewer samples than it says."""
    with pytest.raises(ValueError, match="expected 2 answers .* found 1 to problem 1"):
        codes([["a", "b"], ["a"]])


# -- majority ----------------------------------------------------------------------


def test_majority_by_hand():
    """Ties would go to the first answer, or no answer would get votes."""
    answers = np.array(
        [
            [0, 0, 1, 2],  # 0 wins
            [0, 0, 1, 1],  # a tie of a right and a wrong one
            [0, 1, 2, -1],  # a tie of three, one right
            [-1, -1, -1, 0],  # one vote decides
            [-1, -1, -1, -1],
            [0, 0, 0, 1],  # 0 was graded right twice out of three times
        ]
    )
    correct = np.array(
        [
            [1, 1, 0, 0],
            [0, 0, 1, 1],
            [0, 1, 0, 0],
            [0, 0, 0, 1],
            [1, 1, 1, 1],
            [1, 1, 0, 1],
        ],
        bool,
    )
    found = majority_vote(answers, correct)
    np.testing.assert_allclose(found, [1, 1 / 2, 1 / 3, 1, 0, 2 / 3], atol=1e-15)
    assert found.dtype == np.float64


@pytest.mark.parametrize("k", [1, 2, 3, 5, 6])
def test_majority_at_is_the_mean_over_all_subsets(drawn, k):
    """Subsets would be missed, or those without any answer counted as right."""
    answers, correct = drawn
    ones = np.ones(6)
    expected = [
        np.mean(
            [
                _voted(*row, ones, picked)
                for picked in itertools.combinations(range(6), k)
            ]
        )
        for row in zip(answers, correct, strict=True)
    ]
    np.testing.assert_allclose(majority_at(answers, correct, k), expected, atol=1e-12)


def test_majority_at_its_ends(drawn):
    """A curve would not begin at the accuracy, or not end at the majority vote."""
    answers, correct = drawn
    answered = correct & (answers >= 0)
    np.testing.assert_allclose(majority_at(answers, correct, 1), answered.mean(axis=1))
    np.testing.assert_allclose(
        majority_at(answers, correct, 6), majority_vote(answers, correct)
    )


def test_majority_at_drawn_is_near_all(drawn):
    """The sets drawn would not be evenly distributed, or not have k members."""
    answers, correct = drawn
    answers, correct = np.tile(answers, 3), np.tile(correct, 3)
    every = majority_at(answers, correct, 4, subsets=3060)  # C(18, 4)
    found = majority_at(answers, correct, 4, subsets=3059)
    assert (found != every).any()
    # Five standard errors of at most 0.5 / sqrt(subsets).
    assert np.abs(found - every).max() < 5 * 0.5 / math.sqrt(3059)
    # Errors of problems are not all alike, so their mean is much nearer.
    assert abs(found.mean() - every.mean()) < 0.01


def test_majority_at_follows_its_seed_not_its_chunks(drawn, monkeypatch):
    """A table could not be made again, or would depend on memory."""
    answers, correct = np.tile(drawn[0], 3), np.tile(drawn[1], 3)
    options = {"subsets": 50, "seed": 3}
    found = majority_at(answers, correct, 9, **options)
    other = majority_at(answers, correct, 9, subsets=50, seed=4)
    assert (found != other).any()
    every = majority_at(answers, correct, 2)
    monkeypatch.setattr(votes, "_CHUNK", 7 * 18)
    again = majority_at(answers, correct, 9, **options)
    np.testing.assert_allclose(again, found, atol=1e-12)
    np.testing.assert_allclose(majority_at(answers, correct, 2), every, atol=1e-12)


def test_majority_at_is_bounded_in_memory():
    """All votes of all subsets at once would take gigabytes."""
    generator = np.random.default_rng(0)
    answers = generator.integers(-1, 12, (16, 64))
    tracemalloc.start()
    try:
        found = majority_at(answers, answers == 3, 32, subsets=40_000)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert ((found >= 0) & (found <= 1)).all()
    assert peak < 80e6


@pytest.mark.parametrize("k", [0, 7])
def test_majority_at_refuses_more_votes_than_samples(drawn, k):
    """Majority@8 of four answers would be shown as if it had been measured."""
    answers, correct = drawn
    with pytest.raises(ValueError, match=rf"1\.\.n with n = 6, found {k}"):
        majority_at(answers, correct, k)


def test_majority_at_refuses_no_subsets(drawn):
    """The mean over nothing is nan."""
    answers, correct = drawn
    with pytest.raises(ValueError, match="subsets must be at least 1, found 0"):
        majority_at(answers, correct, 2, subsets=0)


# -- weighted votes ----------------------------------------------------------------


@pytest.mark.parametrize("how", ["sum", "mean"])
def test_weighted_vote_is_the_best_total(drawn, how):
    """Scores would be added over the wrong samples, or ties not shared."""
    answers, correct = drawn
    # Few distinct values, so that totals tie; thirds, so that rounding splits them.
    scores = np.random.default_rng(1).integers(-2, 4, answers.shape) / 3
    expected = [
        _voted(*row, range(6), how)
        for row in zip(answers, correct, scores, strict=True)
    ]
    found = weighted_vote(answers, correct, scores, how)
    np.testing.assert_allclose(found, expected, atol=1e-12)


def test_weighted_vote_by_hand():
    """Sum and mean would be mixed up: two lukewarm votes against one sure one."""
    answers = np.array([[0, 0, 1]])
    correct = np.array([[True, True, False]])
    scores = np.array([[0.4, 0.4, 0.7]])
    assert weighted_vote(answers, correct, scores, "sum") == 1
    assert weighted_vote(answers, correct, scores, "mean") == 0


def test_totals_that_differ_by_rounding_tie():
    """0.1 + 0.2 is above 0.3 for a computer, and would always win."""
    answers, correct = np.array([[0, 0, 1]]), np.array([[True, True, False]])
    assert weighted_vote(answers, correct, np.array([[0.1, 0.2, 0.3]])) == 0.5


def test_unknown_scores_count_as_the_lowest():
    """One nan would make every comparison false."""
    answers = np.array([[0, 0, 1], [0, 0, 1]])
    correct = np.array([[True, True, False]] * 2)
    nan = np.nan
    scores = np.array([[nan, 0.2, 0.5], [nan, nan, nan]])
    # 0.2 + 0.2 < 0.5; without any score the majority decides.
    np.testing.assert_array_equal(weighted_vote(answers, correct, scores), [0, 1])
    np.testing.assert_array_equal(
        weighted_vote(answers, correct, scores, "mean"), [0, 0.5]
    )


def test_log_probabilities_as_weights():
    """Under "sum" the rarest answer would win, and exp(-2000) would be 0 for all."""
    answers, correct = np.array([[0, 0, 1]]), np.array([[True, True, False]])
    logs = np.array([[-2000.0, -2000.0, -1999.5]])
    assert weighted_vote(answers, correct, logs) == 0
    weights = weights_from(logs)
    np.testing.assert_allclose(weights, np.exp([[-0.5, -0.5, 0.0]]))
    # 2 exp(-0.5) = 1.21 > 1
    assert weighted_vote(answers, correct, weights) == 1
    nan = np.nan
    found = weights_from(np.array([[nan, 0.0], [nan, nan], [-np.inf, -np.inf]]))
    np.testing.assert_array_equal(found, [[nan, 1], [nan, nan], [0, 0]])


def test_borda_votes_by_hand():
    """Ranks would be counted from the wrong end, or a tie be decided by order."""
    answers = np.array([[0, 1, 1, 0, -1]])
    correct = np.array([[True, False, False, True, False]])
    scores = np.array([[9.0, 5.0, 5.0, np.nan, 7.0]])
    # Ranks 1, 3.5, 3.5, 5 and 2 of 5: votes 5 + 1 against 2.5 + 2.5.
    assert borda_vote(answers, correct, scores) == 1
    # sqrt(5) + 1 = 3.236 against sqrt(3) + sqrt(2) = 3.146; without a power, a tie.
    assert borda_vote(answers, correct, scores, 0.5) == 1
    assert borda_vote(answers, correct, scores, 0) == 0.5
    scores[0, 3] = 6.0  # ranks 1, 4.5, 4.5, 3, 2
    assert borda_vote(answers, ~correct, scores) == 0


@pytest.mark.parametrize("p", [-1.0, np.inf, np.nan])
def test_borda_votes_refuse_other_powers(drawn, p):
    """The lowest rank would win, or nobody."""
    answers, correct = drawn
    with pytest.raises(ValueError, match=f"p must be 0 or more, found {p}"):
        borda_vote(answers, correct, np.zeros(answers.shape), p)


def test_every_aggregation_elects_within_bounds(drawn):
    """A row of a table would be no share; or two rows have one name."""
    answers, correct = drawn
    scores = np.random.default_rng(3).random(answers.shape)
    for one in AGGREGATIONS:
        found = one.elect(answers, correct, scores)
        assert found.shape == (len(answers),)
        assert (found >= 0).all() and (found <= 1).all()
        assert one.takes("mine", scores) == (one.scores == "any")
        assert not (one.added and one.takes(one.scores, -scores))
    assert len({one.measure for one in AGGREGATIONS}) == len(AGGREGATIONS)


def test_weighted_vote_refuses_what_has_no_sum(drawn):
    """inf - inf is nan, and nan is above nothing."""
    answers, correct = drawn
    with pytest.raises(ValueError, match="must be finite"):
        weighted_vote(answers, correct, np.full(answers.shape, -np.inf))


def test_weighted_vote_refuses_another_rule(drawn, untyped):
    """A misspelt rule would silently be a sum."""
    answers, correct = drawn
    with pytest.raises(ValueError, match='"sum" or "mean", found \'max\''):
        weighted_vote(answers, correct, np.ones((40, 6)), "max")  # type: ignore


# -- best of k ---------------------------------------------------------------------


def _best(correct, scores, picked) -> float:
    known = [-np.inf if np.isnan(scores[i]) else scores[i] for i in picked]
    return float(
        np.mean(
            [correct[i] for i, s in zip(picked, known, strict=True) if s == max(known)]
        )
    )


@pytest.mark.parametrize("k", [1, 2, 4, 6])
def test_best_of_k_is_the_mean_over_all_subsets(drawn, k):
    """The closed form would weigh ranks wrongly, or ties by their order."""
    _, correct = drawn
    scores = np.random.default_rng(2).integers(0, 4, correct.shape).astype(float)
    scores[scores == 0] = np.nan
    expected = [
        np.mean([_best(*row, picked) for picked in itertools.combinations(range(6), k)])
        for row in zip(correct, scores, strict=True)
    ]
    np.testing.assert_allclose(best_of_k(correct, scores, k), expected, atol=1e-12)
    if k == 6:
        np.testing.assert_allclose(best_of_n(correct, scores), expected, atol=1e-12)


def test_best_of_k_by_hand():
    """Of 3 samples, ranks 1 and 2 are the best of a pair in 2 and 1 of 3 pairs."""
    correct = np.array([[False, True, False]])
    scores = np.array([[0.9, 0.5, 0.1]])
    found = [best_of_k(correct, scores, k)[0] for k in (1, 2, 3)]
    np.testing.assert_allclose(found, [1 / 3, 1 / 3, 0], atol=1e-15)


@pytest.mark.parametrize("k", [1, 3, 8])
def test_best_of_k_by_the_truth_is_pass_at_k(k):
    """A perfect verifier must find a right answer wherever there is one."""
    correct = np.random.default_rng(0).random((50, 8)) < 0.3
    found = best_of_k(correct, correct.astype(float), k)
    np.testing.assert_allclose(found, pass_at(correct.sum(axis=1), 8, k), atol=1e-12)


@pytest.mark.parametrize("k", [1, 3, 8])
def test_best_of_k_with_equal_scores_is_accuracy(k):
    """A score that knows nothing would seem to help."""
    correct = np.random.default_rng(0).random((50, 8)) < 0.3
    for value in (0.5, np.nan, -np.inf):
        found = best_of_k(correct, np.full((50, 8), value), k)
        np.testing.assert_allclose(found, correct.mean(axis=1), atol=1e-12)


def test_best_of_k_holds_for_many_samples():
    """Binomial coefficients of this size overflow a float."""
    correct = np.arange(4000)[None] < 2000
    scores = -np.arange(4000.0)[None]
    expected = 1 - math.comb(2000, 500) / math.comb(4000, 500)
    assert best_of_k(correct, scores, 500)[0] == pytest.approx(expected, abs=1e-12)
    assert best_of_k(~correct, scores, 2)[0] == pytest.approx(0.5 * 1999 / 3999)


# -- all ---------------------------------------------------------------------------


def test_the_order_of_samples_changes_nothing(drawn):
    """The first sample would have an advantage."""
    answers, correct = drawn
    generator = np.random.default_rng(3)
    scores = generator.integers(0, 5, answers.shape) / 7
    order = generator.permuted(np.tile(np.arange(6), (40, 1)), axis=1)
    a, c, s = (np.take_along_axis(x, order, axis=1) for x in (answers, correct, scores))
    for measure in (
        lambda a, c, s: majority_vote(a, c),
        lambda a, c, s: majority_at(a, c, 3),
        weighted_vote,
        lambda a, c, s: weighted_vote(a, c, s, "mean"),
        lambda a, c, s: best_of_n(c, s),
        lambda a, c, s: best_of_k(c, s, 4),
    ):
        np.testing.assert_allclose(
            measure(a, c, s), measure(answers, correct, scores), atol=1e-12
        )


def test_no_problems_give_no_numbers():
    """An empty file would end in an error about something else."""
    none = np.zeros((0, 4))
    answers, correct = none.astype(int), none.astype(bool)
    for found in (
        majority_vote(answers, correct),
        majority_at(answers, correct, 2),
        best_of_k(correct, none, 2),
    ):
        assert found.shape == (0,)
    assert weights_from(none).shape == (0, 4)


@pytest.mark.parametrize(
    "measure",
    [
        lambda a, c: majority_vote(a, c),
        lambda a, c: majority_at(a, c, 1),
        lambda a, c: weighted_vote(a, c, np.ones(a.shape)),
        lambda a, c: best_of_n(c, np.ones(a.shape)),
    ],
)
def test_arrays_of_different_runs_are_refused(measure, untyped):
    """NumPy would stretch one sample's correctness over all."""
    with pytest.raises(ValueError, match=r"one shape .* \(2, 3\) and \(2, 1\)"):
        measure(np.zeros((2, 3), int), np.ones((2, 1), bool))


# -- filtered votes ----------------------------------------------------------------


def test_filtered_votes_are_those_of_the_most_confident(drawn):
    """Another share would vote, or unsure samples outvote the others."""
    answers, correct = drawn
    scores = np.random.default_rng(3).random(answers.shape)
    scores[7, 1:3] = np.nan
    found = filtered_vote(answers, correct, scores, keep=0.4)
    for problem in range(len(answers)):
        row = scores[problem]
        bound = np.nanpercentile(row, 60)
        picked = [i for i in range(6) if row[i] >= bound]
        expected = _voted(answers[problem], correct[problem], row, picked)
        # As right as the voters for it are.
        if len({*answers[problem]} & {*range(3)}) and problem < 30:
            assert found[problem] == pytest.approx(expected)
    whole = filtered_vote(answers, correct, scores[:, ::-1], keep=1.0)
    known = np.where(np.isnan(scores), np.nan, scores)[:, ::-1]
    sure = ~np.isnan(known).any(axis=1)
    everyone = weighted_vote(answers, correct, known)
    np.testing.assert_array_equal(whole[sure], everyone[sure])


def test_most_confident_keeps_ties_and_leaves_unknown_out(drawn):
    """A sample would be left out by its place, or kept without a score."""
    scores = np.array([[3.0, 1.0, 3.0, np.nan], [np.nan] * 4, [1.0, 2.0, 3.0, 4.0]])
    found = most_confident(scores, 0.5)
    np.testing.assert_array_equal(found, [[1, 0, 1, 0], [1] * 4, [0, 0, 1, 1]])
    for keep in (0.0, 1.1, float("nan")):
        with pytest.raises(ValueError, match="keep"):
            most_confident(scores, keep)
    with pytest.raises(ValueError, match="finite"):
        filtered_vote(*drawn, np.full(drawn[0].shape, -np.inf))
