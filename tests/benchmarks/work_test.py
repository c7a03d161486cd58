"""The work of a step, counted by hand on a model of two layers, one of them dense."""

import pytest

from jaxmoe.benchmarks import work
from jaxmoe.nn.decoder import abstract_params
from tests.tiny import every_part, tiny_config

D, HEADS, GROUPS, WIDTH, HIDDEN, DENSE, EXPERTS, CHOSEN, VOCAB = (
    *(32, 4, 2, 16, 24),
    *(40, 16, 4, 97),
)
ATTENTION = D * WIDTH * (HEADS + 2 * GROUPS + HEADS)
MATRICES = 2 * ATTENTION + 3 * D * DENSE + EXPERTS * D + VOCAB * D
NORMS = 2 * (2 * D + 2 * WIDTH) + D
EXPERT = 3 * D * HIDDEN
POSITION = 2 * 2 * GROUPS * WIDTH


def test_sizes():
    """A weight would be left out of the floor, or counted twice."""
    size = work.sizes(tiny_config())
    assert size.matrices == MATRICES
    assert size.always == MATRICES + NORMS
    assert size.expert == EXPERT


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("change", [lambda config: config, every_part])
def test_sizes_add_up_to_the_model(tied, change):
    """With tied embeddings the table would not be read, or read twice; experts' biases
    would be read of all experts, and shared experts not at all."""
    config = change(tiny_config(tie_embeddings=tied))
    size = work.sizes(config)
    whole = sum(leaf.size for leaf in abstract_params(config).values())
    table = 0 if tied else VOCAB * D
    assert whole == size.always + EXPERTS * size.expert + table


def test_step():
    """The floor would forget that samples share weights and prompt, not caches."""
    found = work.step(
        tiny_config(),
        n=3,
        prompt=10,
        own=2.5,
        distinct=6.5,
        weight_bytes=2,
        cache_dtype="float32",
    )
    weights = MATRICES + NORMS + 6.5 * EXPERT + 3 * D
    cached = POSITION * (10 + 3 * 2.5 + 3)
    assert found.bytes == 2 * weights + 4 * cached
    products = MATRICES + CHOSEN * EXPERT
    attention = 2 * (2 * HEADS * WIDTH) * (10 + 2.5 + 1)
    assert found.operations == 2 * 3 * (products + attention)


def test_prefill():
    """Every token would pay for the output head, or see tokens after it."""
    a_token = MATRICES - VOCAB * D + CHOSEN * EXPERT
    pairs = 1 + 2 + 3 + 4
    attention = 2 * (2 * HEADS * WIDTH) * pairs
    expected = 2 * (4 * a_token + VOCAB * D + attention)
    assert work.prefill_operations(tiny_config(), 4) == expected
