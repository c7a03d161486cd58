"""Verdicts on made-up answers: what was stated before is what is done."""

from dataclasses import replace

import numpy as np
import pytest

from jaxmoe.demo import configuration_names as names
from jaxmoe.demo.chains import number_sets
from jaxmoe.demo.claims import PRIMARY, SECONDARY, SOLVED, compare, judge, pair_of
from jaxmoe.demo.game_runs import Outcome
from jaxmoe.demo.numbers_game import Problem
from jaxmoe.evals.claims import ALPHA, MARGIN, Claim
from jaxmoe.evals.metrics import Interval
from tests.outcomes import outcome_of

SETS = number_sets()
YES, NO, UNKNOWN = "yes", "no", "cannot be told"
HIGHER = Claim("c", "one", "two", "pass@4", "higher")
NO_WORSE = replace(HIGHER, measure="accuracy", expects="no worse")


def outcome(right, n: int) -> Outcome:
    """n answers to each problem, so many of them right; each of a set of its own."""
    problems = [Problem(SETS[j], 1 + j % 99) for j in range(len(right))]
    return outcome_of(problems, n, right)


# Bounds of a difference and its p-value; whether it is higher, and no worse.
CASES = {
    "far above": (0.03, 0.05, 0.001, YES, YES),
    "above, by less than a point": (0.001, 0.008, 0.001, YES, YES),
    "above, not significant": (0.0, 0.03, 0.06, UNKNOWN, YES),
    "at the level": (0.0, 0.03, 0.05, YES, YES),
    "around 0": (-0.009, 0.009, 0.9, NO, YES),
    "wide": (-0.05, 0.05, 0.9, UNKNOWN, UNKNOWN),
    "to a point": (-0.005, 0.01, 0.9, UNKNOWN, YES),
    "mostly below": (-0.03, 0.005, 0.2, NO, UNKNOWN),
    "below, by less than a point": (-0.008, -0.001, 0.001, NO, YES),
    "below": (-0.03, -0.002, 0.001, NO, NO),
    "nothing at all": (0.0, 0.0, 1.0, NO, YES),
}


@pytest.mark.parametrize("case", CASES)
def test_verdicts(case):
    """A claim would be said to hold, or not to, on answers that do not say so."""
    low, high, p_value, higher, no_worse = CASES[case]
    difference = Interval((low + high) / 2, low, high)
    assert HIGHER.judge(difference, p_value) == higher
    assert NO_WORSE.judge(difference, p_value) == no_worse


def test_the_design_is_what_was_designed():
    """What counts would have been chosen after a look at the answers."""
    assert (ALPHA, MARGIN, len(PRIMARY), len(SECONDARY)) == (0.05, 0.01, 10, 11)
    pairs = {(claim.a, claim.b) for claim in PRIMARY}
    assert pairs == {(names.ES, names.BASE), (names.ES_HOT, names.HOT)}


def test_a_claim_says_what_is_compared():
    """Problems chosen by an answer would look like all of them."""
    assert str(HIGHER) == "pass@4: one minus two"
    assert str(replace(HIGHER, only=SOLVED)).endswith(f"one minus two, {SOLVED}")


def test_differences_are_paired():
    """Problems that differ in how hard they are would hide every difference."""
    hard, easy = outcome([10, 90] * 40, 100), outcome([12, 92] * 40, 100)
    difference = compare(easy, hard, "accuracy")
    assert difference.mean == pytest.approx(0.02)
    own = easy.interval("accuracy")
    assert difference.high - difference.low < 0.6 * (own.high - own.low)
    assert compare(hard, easy, "pass@2").mean < 0


def test_pairs_are_of_equal_answers():
    """A row of fewer problems or answers would be compared with others' surplus."""
    outcomes = {"one": outcome([4, 4, 0], 4), "two": outcome([8, 2, 8, 8], 8)}
    pair = pair_of(HIGHER, outcomes)
    assert pair is not None
    assert [o.right.tolist() for o in pair] == [[4, 4, 0], [4, 2, 4]]
    outcomes[names.GREEDY] = outcome([0, 1, 1, 1], 1)
    pair = pair_of(replace(HIGHER, only=SOLVED), outcomes)
    assert pair is not None
    assert [o.right.tolist() for o in pair] == [[4, 0], [2, 4]]
    outcomes[names.GREEDY] = outcome([0, 0, 0, 1], 1)
    assert pair_of(replace(HIGHER, only=SOLVED), outcomes) is None


def test_a_family_is_corrected():
    """One of twenty claims about nothing would hold by chance."""
    rng = np.random.default_rng(0)
    base = rng.integers(0, 5, 200)
    outcomes = {
        "one": outcome(np.minimum(base + (rng.random(200) < 0.1), 8), 8),
        "two": outcome(base, 8),
        "like two": outcome(base, 8),
        names.GREEDY: outcome(base > 0, 1),
    }
    gain = Claim("gain", "one", "two", "accuracy", "higher")
    nothing = Claim("nothing", "like two", "two", "accuracy", "higher")
    (alone,) = judge([gain], outcomes)
    found = judge([gain, *[nothing] * 9], outcomes)
    assert alone.p_value == found[0].p_value < 0.01
    assert found[0].adjusted == pytest.approx(10 * alone.p_value)
    assert alone.difference == alone.together == found[0].difference
    wide, narrow = found[0].together, found[0].difference
    assert wide.low < narrow.low < wide.mean < narrow.high < wide.high
    assert found[0].verdict == YES
    assert {finding.adjusted for finding in found[1:]} == {1}


def test_a_claim_about_no_problem_is_left_out():
    """Hours of answers would end in a traceback."""
    outcomes = {"one": outcome([1], 4), "two": outcome([1], 4)}
    outcomes[names.GREEDY] = outcome([0], 1)
    family = [replace(NO_WORSE, only=SOLVED), NO_WORSE]
    assert [f.claim for f in judge(family, outcomes)] == [NO_WORSE]
