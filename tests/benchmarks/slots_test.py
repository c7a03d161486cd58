"""The bound that a load of skewed lengths is held against."""

import numpy as np
import pytest

from jaxmoe.benchmarks.slots import perfect_refilling


@pytest.mark.parametrize(
    ("lengths", "slots", "active"),
    [
        ([3, 1, 1], 2, [2, 2, 1]),
        ([2, 2, 2], 1, [1] * 6),
        ([4, 1, 0, 2], 2, [2, 2, 2, 1]),  # a sample that ended with its prompt
        ([1], 4, [1]),
    ],
)
def test_perfect_refilling(lengths, slots, active):
    """The engine would be held against more than can be had, or less."""
    assert [step.active for step in perfect_refilling(lengths, slots, 2)] == active


def test_prompts_at_work_are_counted():
    """A step of many prompts would be priced as one of few, and the engine blamed."""
    steps = perfect_refilling([3, 1, 1, 1, 1, 1], 2, 2)
    found = [(step.active, step.prompts) for step in steps]
    assert found == [(2, 1), (2, 2), (2, 2), (2, 1)]


def test_no_order_of_work_is_lost():
    """All tokens are drawn, and no slot rests while a sample waits."""
    lengths = np.random.default_rng(0).integers(0, 50, 100)
    steps = perfect_refilling(lengths.tolist(), 8, 4)
    active = [step.active for step in steps]
    assert max(step.longest for step in steps) == lengths.max()
    assert sum(active) == lengths.sum()
    assert active == sorted(active, reverse=True)
    assert len(active) <= lengths.sum() / 8 + lengths.max()
    assert all(step.active / 4 <= step.prompts <= step.active for step in steps)
