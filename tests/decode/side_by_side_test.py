import threading

import numpy as np
import pytest

import jaxmoe
from jaxmoe.decode import side_by_side as module
from jaxmoe.decode.side_by_side import programs_at_once, side_by_side
from jaxmoe.ops.experts import lanes
from tests.tiny import prompt_of, tiny_config, tiny_model

pytestmark = pytest.mark.thorough

THREADS = 3
# Several passes of each kind: contexts of two lengths, steps after them, whole pairs.
PAIRS = [(prompt_of(10 + 5 * i, i), prompt_of(1 + i % 3, 9 + i)) for i in range(12)]
PAIRS += [(prompt_of(5, i), prompt_of(40, 30 + i)) for i in range(6)]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Experts are small from the size on that they are for users."""
    monkeypatch.setattr(lanes, "LEAST_VALUES", 1 << 16)


@pytest.fixture(scope="module")
def model():
    """Of small experts."""
    return tiny_model()


@pytest.fixture
def threads(monkeypatch):
    """As on a machine of so many cores."""
    monkeypatch.setattr(module, "cores", lambda: THREADS)


@pytest.mark.usefixtures("threads")
def test_results_come_in_order_from_several_threads(model):
    """A score would be another pair's."""
    together = threading.Barrier(THREADS, timeout=30)

    def call(item):
        together.wait()  # broken unless as many run at once
        return 10 * item

    assert [*side_by_side(model, call, range(6))] == [10 * i for i in range(6)]


@pytest.mark.usefixtures("threads")
def test_a_failure_is_raised(model):
    """A pass that failed would be one without results."""
    with pytest.raises(ZeroDivisionError):
        [*side_by_side(model, lambda item: 1 // item, [1, 0, 1])]


def test_scores_do_not_depend_on_the_number_of_cores(model, monkeypatch):
    """A result would be a matter of the machine's load."""
    found = []
    for count in (1, THREADS):
        monkeypatch.setattr(module, "cores", lambda count=count: count)
        assert programs_at_once(model.config, model.execution) == count
        found.append(jaxmoe.loglikelihood(model, PAIRS, batch=4))
    for one, other in zip(*found, strict=True):
        np.testing.assert_array_equal(one.logprobs, other.logprobs)


@pytest.mark.usefixtures("threads")
def test_large_products_have_all_cores_each(model):
    """Passes would push each other's weights out of the caches."""
    large = tiny_config(d_model=2048)
    assert programs_at_once(large, model.execution) == 1
