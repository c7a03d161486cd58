import numpy as np
import pytest

from jaxmoe.benchmarks.begun import distinct_experts
from jaxmoe.benchmarks.weights import held_params
from jaxmoe.execution import default_layers
from jaxmoe.nn.decoder import abstract_params
from tests.tiny import tiny_config


def test_experts_shared_by_samples_are_read_once():
    """The floor would be too high, and every step look good beside it."""
    routes = np.array(
        [
            [[[-1, -1], [0, 1]], [[-1, -1], [4, 5]]],
            [[[-1, -1], [1, 2]], [[-1, -1], [4, 5]]],
            [[[-1, -1], [2, 0]], [[-1, -1], [7, -1]]],
        ],
        np.int16,
    )  # three samples, two steps, a dense layer and a mixture, two places
    assert distinct_experts(routes, layers=(1,)) == 3
    assert distinct_experts(routes[:1], layers=(1,)) == 2
    assert distinct_experts(routes, layers=()) == 0


@pytest.mark.parametrize(("backend", "dtype"), [("cpu", "uint16"), ("gpu", "bfloat16")])
def test_weights_are_declared_as_they_are_held(backend, dtype):
    """What is compiled without weights would not be what runs with them."""
    held = held_params(tiny_config(), backend)
    layers = default_layers(backend)
    assert held.keys() == abstract_params(tiny_config(), layers=layers).keys()
    assert {leaf.dtype.name for leaf in held.values()} == {dtype}
