"""Answers to problems, counted: canned ones, so that every number is known."""

import numpy as np
import pytest

import jaxmoe
from jaxmoe import ExpertSample, TokenSampler
from jaxmoe.checkpoints.bundled import BUNDLED
from jaxmoe.demo.encoding import ANSWER_LENGTH, encode
from jaxmoe.demo.game_runs import (
    MAX_NEW_TOKENS,
    TRIES,
    Outcome,
    play,
    room_of,
)
from jaxmoe.demo.numbers_game import Problem
from jaxmoe.evals import evaluate as evaluation
from jaxmoe.evals.draw import Draw
from jaxmoe.evals.metrics import bootstrap
from jaxmoe.sampling import Finished
from tests.outcomes import outcome_of

PROBLEMS = [Problem.parse(f"2,5,8,12={target}:") for target in (27, 1, 97)]
ANSWERS = [
    [
        "12+8=20,5+2=7,20+7=27",
        "2+5=7,8+12=20,7+20=27",  # the same sum
        "12*2=24,8-5=3,24+3=27",
        "12+8=20,5+2=7,20+7=28",
        "12+8=20,5+2=7,20+7=27",  # the same text
    ],
    ["", "1", "", "8-5=3,3-2=1", "8-5=3,3-2=1,12"],
    ["12*8=96,5-2=3,96+3=99"] * 5,
]
DRAW = Draw(ExpertSample(), TokenSampler(0.7), 5, MAX_NEW_TOKENS, seed=4, slots=8)


def test_answers_are_counted(monkeypatch, tmp_path):
    """An answer would count for another problem, or twice as another sum."""

    def canned(model, prompts, **options):
        asked = [encode(problem.prompt) for problem in PROBLEMS]
        assert [prompt.tolist() for prompt in prompts] == [[*ids] for ids in asked]
        for j, texts in enumerate(ANSWERS):
            for i, text in enumerate(texts):
                tokens, none = np.ones(3, np.int32), np.zeros(3, np.float32)
                yield Finished(j, i, tokens, none, "stop", None, text)

    monkeypatch.setattr(evaluation, "stream", canned)
    heard = []
    for _ in range(2):  # the second time from the folder
        outcome = play(
            jaxmoe.load("demo"),
            PROBLEMS,
            DRAW,
            tmp_path / "run",
            checkpoint="a",
            progress=heard.append,
        )
        assert (outcome.problems, outcome.n) == (tuple(PROBLEMS), 5)
        assert outcome.right.tolist() == [4, 0, 0]
        assert outcome.first == tuple(texts[0] for texts in ANSWERS)
    assert outcome.first_texts()[::2] == [
        "2,5,8,12=27:12+8=20,5+2=7,20+7=27",
        "2,5,8,12=97:12*8=96,5-2=3,96+3=99",
    ]
    assert heard[-1].done == 15


def test_an_answer_has_room():
    """Right answers would be cut short, or too long ones pass for right."""
    assert MAX_NEW_TOKENS > ANSWER_LENGTH
    assert room_of("demo") == room_of("./a-model") == MAX_NEW_TOKENS
    assert {*TRIES} == {*BUNDLED}
    assert room_of("demo-tries") > TRIES["demo-tries"] * ANSWER_LENGTH


SETS = [(1, 2, 3, 4), (1, 2, 3, 5), (1, 2, 3, 6)]


def _outcome(right, n: int) -> Outcome:
    """An outcome; problem j is of number set j modulo 3."""
    right = np.array(right)
    problems = [Problem(SETS[j % 3], 1 + j) for j in range(len(right))]
    return outcome_of(problems, n, right)


def test_shares_of_right_answers():
    """Accuracy or pass@n would be of another number of answers."""
    outcome = _outcome([0, 1, 2, 4], 4)
    assert outcome.values("accuracy").tolist() == [0, 0.25, 0.5, 1]
    np.testing.assert_allclose(outcome.values("pass@1"), [0, 0.25, 0.5, 1])
    # Of 2 of 4 answers both are wrong with 2 / 4 * 1 / 3 where 2 are right.
    np.testing.assert_allclose(outcome.values("pass@2"), [0, 0.5, 1 - 1 / 6, 1])
    assert outcome.values("pass@4").tolist() == [0, 1, 1, 1]


@pytest.mark.parametrize("measure", ["pass@8", "pass@0", "pass@", "exactness"])
def test_what_is_no_measure(measure):
    """A misspelt measure, or one of more answers than there are, would be a number."""
    with pytest.raises(ValueError):
        _outcome([0, 1, 2, 4], 4).values(measure)


@pytest.mark.parametrize(
    ("n", "budgets"),
    [
        (1, [1]),
        (2, [1, 2]),
        (5, [1, 2, 4, 5]),
        (64, [1, 2, 4, 8, 16, 32, 64]),
        (100, [1, 2, 4, 8, 16, 32, 64, 100]),
    ],
)
def test_budgets(n, budgets):
    """A budget would be asked for that was not drawn, or the largest be left out."""
    outcome = _outcome([0, 1], n)
    assert outcome.budgets() == budgets
    names = ["accuracy", *(f"pass@{k}" for k in budgets[1:])]
    assert list(outcome.measures()) == names


def test_measures_are_means():
    """A row would be of another measure."""
    found = _outcome([0, 1, 2, 4], 4).measures()
    assert found["accuracy"].mean == pytest.approx(7 / 16)
    assert found["pass@2"].mean == pytest.approx((0 + 0.5 + 5 / 6 + 1) / 4)
    assert found["pass@4"].mean == pytest.approx(3 / 4)


def test_whole_sets_of_numbers_are_resampled():
    """Problems of one set are alike: taken for independent, they seem to say more."""
    outcome = _outcome([0, 2, 4] * 20, 4)
    assert outcome.groups == SETS * 20
    found = outcome.interval("accuracy")
    assert found == bootstrap(np.array([0, 0.5, 1] * 20), groups=SETS * 20)
    # One of three sets in 27 draws is drawn three times: the bounds are 0 and 1.
    assert (found.mean, found.low, found.high) == (0.5, 0, 1)


def test_some_of_the_problems():
    """Counts would go to other problems than they belong to."""
    whole = outcome_of(PROBLEMS, 5, [4, 0, 3])
    some = whole.of(np.array([True, False, True]))
    assert some.problems == (whole.problems[0], whole.problems[2])
    assert some.n == whole.n
    assert some.right.tolist() == [4, 3]


def test_the_first_answers_to_the_first_problems():
    """Rows of unequal size would be compared by answers of unequal keys."""
    first = outcome_of(PROBLEMS, 5, [4, 0, 3]).first_of(2, 3)
    assert (first.problems, first.n) == (tuple(PROBLEMS[:2]), 3)
    assert first.right.tolist() == [3, 0]
