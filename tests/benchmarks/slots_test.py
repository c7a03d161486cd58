"""The bound that a load of skewed lengths is held against."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from jaxmoe.benchmarks.begun import dealt
from jaxmoe.benchmarks.slots import (
    _MIXED,
    Step,
    _bound,
    _counts,
    _prompts_at_work,
    perfect_refilling,
)
from jaxmoe.benchmarks.timing import Spread
from jaxmoe.decode.trace import SEGMENT


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


def test_blocks_are_counted():
    """A step of many prompts would be priced as one of few, and the engine blamed."""
    steps = perfect_refilling([3, 1, 1, 1, 1, 1], 2, 2)
    found = [(step.active, step.blocks) for step in steps]
    assert found == [(2, 1), (2, 2), (2, 2), (2, 1)]
    # 20 samples of one prompt are three blocks of at most eight.
    assert perfect_refilling([1] * 20, 32, 32) == [(20, 1, 3)]


def load_of(prompts: int, samples: int, slots: int) -> Any:
    """As much of a load as its bound asks for."""
    return SimpleNamespace(
        prompts=[None] * prompts, samples=samples, slots=slots, max_new_tokens=SEGMENT
    )


@pytest.mark.parametrize("mixed", [(64.0, 64.0, 64.0), (32.0, 16.0, 80.0)])
def test_the_bound_prices_blocks(mixed):
    """A second a step of 8 slots; two blocks instead of one take twice as long."""
    load = load_of(2, 8, 8)
    full = Spread((32.0, 32.0, 32.0))
    found = {str((count, 0)): full for count in _counts(8)}
    found |= {"prefill": Spread((5.0, 6.0, 7.0)), _MIXED: Spread(mixed)}
    more = max(0.0, np.median(mixed) - 32) / 32
    of_one, of_two = Step(8, 1, 1), Step(8, 1, 2)
    assert _bound(load, [of_one], found).values == (6, 7, 8)
    assert _bound(load, [of_one, of_two], found).values == tuple(
        prefill + 2 + more for prefill in (5, 6, 7)
    )


@pytest.mark.parametrize(
    ("prompts", "samples", "slots"),
    [(1, 8, 8), (2, 4, 64), (16, 8, 32), (16, 32, 8), (3, 1, 2)],
)
def test_loads_of_any_shape_have_a_bound(prompts, samples, slots):
    """Slots would be of prompts that are not there, or the price have no divisor."""
    load = load_of(prompts, samples, slots)
    for some in _prompts_at_work(load):
        assert 0 < some <= prompts
        assert set(dealt(slots, some)) == set(range(some))
    names = [str((count, 0)) for count in _counts(slots)]
    found = dict.fromkeys([*names, "prefill"], Spread((32.0,)))
    found[_MIXED] = Spread((40.0,))
    steps = perfect_refilling([3] * prompts * samples, slots, samples)
    (bound,) = _bound(load, steps, found).values
    assert 32 + len(steps) <= bound <= 32 + len(steps) * 40 / 32


def test_no_order_of_work_is_lost():
    """All tokens are drawn, and no slot rests while a sample waits."""
    lengths = np.random.default_rng(0).integers(0, 50, 100)
    steps = perfect_refilling(lengths.tolist(), 8, 4)
    active = [step.active for step in steps]
    assert max(step.longest for step in steps) == lengths.max()
    assert sum(active) == lengths.sum()
    assert active == sorted(active, reverse=True)
    assert len(active) <= lengths.sum() / 8 + lengths.max()
    assert all(step.active / 8 <= step.blocks <= step.active for step in steps)
