"""How hard problems are to be, by a rule that was stated before."""

import pytest

from jaxmoe import TopK
from jaxmoe.demo.held_out import HeldOut
from jaxmoe.demo.numbers_game import Problem
from jaxmoe.demo.pilot import chosen, measured, pilot_draw
from jaxmoe.evals.metrics import Interval
from tests.outcomes import outcome_of


def _means(**kinds):
    return {
        (kind, answers): Interval(mean, 0, 1)
        for kind, means in kinds.items()
        for answers, mean in means.items()
    }


@pytest.mark.parametrize(
    ("means", "expected"),
    [
        ({"familiar": {1: 0.7, 2: 0.85, 3: 0.95}}, {"familiar": 2}),
        ({"familiar": {1: 0.95}, "new": {1: 0.75, 2: 0.9}}, {"new": 1}),
        ({"familiar": {1: 0.5, 2: 0.59}, "new": {1: 0.91}}, {}),
        ({"new": {1: 0.61}, "familiar": {1: 0.89}}, {"familiar": 1, "new": 1}),
    ],
)
def test_the_rule(means, expected):
    """Problems would be chosen by something else than what the design says."""
    assert chosen(_means(**means)) == expected


def test_answers_are_counted_by_kind_and_number_of_answers():
    """A band would be called hard by the answers to another one."""
    asked = [
        HeldOut(Problem((1, 2, 3, 4 + j), 5), kind, answers)
        for j, (kind, answers) in enumerate([("new", 1), ("familiar", 1), ("new", 1)])
    ]
    outcome = outcome_of([held_out.problem for held_out in asked], 64, [0, 3, 64])
    found = measured(outcome, asked)
    assert {cell: interval.mean for cell, interval in found.items()} == {
        ("familiar", 1): 1.0,
        ("new", 1): 0.5,
    }


def test_the_pilot_draws_no_routes():
    """The study's question would be looked at before it is asked."""
    assert pilot_draw().policy == TopK()
