"""How answers are drawn, in plain values: another way of drawing never looks equal."""

import json
from dataclasses import fields, replace

import numpy as np
import pytest

from jaxmoe import Biased, ExpertSample, TokenSampler, TopK
from jaxmoe.evals.draw import Draw, as_fields, in_words

DRAW = Draw(ExpertSample(), TokenSampler(0.9, top_k=30), 3, 10, slots=4)


def test_all_of_a_draw_is_described():
    """A run would go on with answers that were drawn in another way."""
    assert set(DRAW.describe()) >= {field.name for field in fields(Draw)}
    assert json.loads(json.dumps(DRAW.describe())) == DRAW.describe()


@pytest.mark.parametrize(
    "policy",
    [
        Biased(TopK(), np.array([[0, -np.inf, 1]])),
        TopK(),
        ExpertSample(tau=0.1),
        ExpertSample(tau=np.nextafter(0.1, 1)),
        ExpertSample(tau=np.linspace(0, 1, 2000)),
        ExpertSample(tau=np.linspace(0, 1, 2000) ** 1.0001),
        ExpertSample(k_keep=np.array([1, 2])),
    ],
    ids=range(7),
)
def test_other_numbers_are_another_run(policy):
    """Two policies would be taken for one where their last digits differ, or where an
    array is too long to be printed."""
    described = json.dumps(as_fields(policy))
    assert described != json.dumps(as_fields(ExpertSample()))
    near = ExpertSample(tau=np.linspace(0, 1, 2000) + 1e-12)
    assert described != json.dumps(as_fields(near))
    assert described == json.dumps(as_fields(replace(policy)))


@pytest.mark.parametrize(
    ("described", "text"),
    [
        (as_fields(ExpertSample(k_keep=5)), "ExpertSample(k_keep=5, tau=1.0)"),
        (as_fields(TopK()), "TopK()"),
        ("TopK()", "TopK()"),
        ("of another engine", "of another engine"),
    ],
)
def test_words(described, text):
    """A report would show braces, or fail on a run of an earlier version."""
    assert in_words(described) == text


def test_another_bias_is_another_run():
    """It is told by a digest, as JSON has no -inf."""
    found = [as_fields(Biased(TopK(), np.full(3, value))) for value in (0, 1, -np.inf)]
    assert len({json.dumps(one, allow_nan=False) for one in found}) == 3
