"""Answers to problems, counted: canned ones, so that every number is known."""

from dataclasses import replace

import numpy as np
import pytest

from jaxmoe import ExpertSample, TokenSampler
from jaxmoe.demo import game_runs
from jaxmoe.demo.encoding import ANSWER_LENGTH
from jaxmoe.demo.game_runs import MAX_NEW_TOKENS, Outcome, play, summary
from jaxmoe.demo.numbers_game import Problem
from jaxmoe.evals.metrics import bootstrap
from jaxmoe.evals.runs import Draw
from tests.tiny import tiny_model

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
DRAW = Draw(ExpertSample(), TokenSampler(0.7), n=5, max_new_tokens=1, seed=4, slots=8)


@pytest.fixture
def asked(monkeypatch) -> dict:
    """Gives out the canned answers, and notes what was asked for."""
    heard = {}

    def canned(model, prompts, draw, path=None, *, about=None, progress=None):
        heard.update(prompts=prompts, draw=draw, path=path, about=about)
        progress(len(prompts))
        return ANSWERS

    monkeypatch.setattr(game_runs, "draw_answers", canned)
    return heard


def test_answers_are_counted(asked, tmp_path):
    """An answer would count for another problem, or twice as another sum."""
    heard, about = [], {"checkpoint": "a"}
    path = tmp_path / "run.jsonl"
    outcome = play(
        tiny_model(), PROBLEMS, DRAW, path, about=about, progress=heard.append
    )
    assert (outcome.problems, outcome.n) == (tuple(PROBLEMS), 5)
    assert outcome.right.tolist() == [4, 0, 0]
    assert outcome.distinct.tolist() == [2, 0, 0]
    assert outcome.all_distinct.tolist() == [4, 4, 1]
    assert heard == [3]
    assert asked["prompts"] == ["2,5,8,12=27:", "2,5,8,12=1:", "2,5,8,12=97:"]
    assert asked["draw"] == replace(DRAW, max_new_tokens=MAX_NEW_TOKENS)
    assert (asked["path"], asked["about"]) == (path, about)


def test_an_answer_has_room():
    """Right answers would be cut short, or too long ones pass for right."""
    assert MAX_NEW_TOKENS > ANSWER_LENGTH


def _outcome(right, n: int) -> Outcome:
    """An outcome in which every right answer is a sum of its own."""
    right = np.array(right)
    problems = [Problem((1, 2, 3, 4), 1 + j) for j in range(len(right))]
    return Outcome(tuple(problems), n, right, right, np.full(len(right), n))


def test_shares_of_right_answers():
    """Accuracy or pass@n would be of another number of answers."""
    outcome = _outcome([0, 1, 2, 4], 4)
    assert outcome.accuracy().tolist() == [0, 0.25, 0.5, 1]
    np.testing.assert_allclose(outcome.pass_at(1), outcome.accuracy())
    # Of 2 of 4 answers both are wrong with 2 / 4 * 1 / 3 where 2 are right.
    np.testing.assert_allclose(outcome.pass_at(2), [0, 0.5, 1 - 1 / 6, 1])
    assert outcome.pass_at(4).tolist() == [0, 1, 1, 1]


@pytest.mark.parametrize(
    ("n", "budgets"),
    [(1, [1]), (2, [1, 2]), (5, [1, 2, 4]), (64, [1, 2, 4, 8, 16, 32, 64])],
)
def test_budgets(n, budgets):
    """A budget would be asked for that was not drawn, or the largest be left out."""
    assert _outcome([0, 1], n).budgets() == budgets


def test_some_of_the_problems():
    """Counts would go to other problems than they belong to."""
    whole = play_of_known()
    some = whole.of(np.array([True, False, True]))
    assert some.problems == (whole.problems[0], whole.problems[2])
    assert some.n == whole.n
    assert some.right.tolist() == [4, 1]
    assert some.distinct.tolist() == [2, 1]
    assert some.all_distinct.tolist() == [4, 3]


def play_of_known() -> Outcome:
    """Three problems with different counts of everything."""
    counts = [[4, 0, 1], [2, 0, 1], [4, 5, 3]]
    return Outcome(tuple(PROBLEMS), 5, *map(np.array, counts))


def test_summary():
    """A band would be made up of other problems, or a row be of another measure."""
    outcome = play_of_known()
    bands = dict(zip(PROBLEMS, ["hard", "easy", "hard"], strict=True))
    bands[Problem((1, 1, 1, 1), 4)] = "not asked"
    rows = summary(outcome, bands)
    assert list(rows) == [
        *("accuracy", "pass@1", "pass@2", "pass@4"),
        *("accuracy, easy", "accuracy, hard"),
    ]
    assert rows["accuracy"] == rows["pass@1"] == bootstrap(np.array([0.8, 0, 0.2]))
    assert rows["pass@4"].mean == pytest.approx((1 + 0 + 0.8) / 3)
    assert rows["accuracy, easy"].mean == 0
    assert rows["accuracy, hard"].mean == pytest.approx(0.5)
    assert list(summary(outcome)) == list(rows)[:4]
