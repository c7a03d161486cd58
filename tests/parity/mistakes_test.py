"""The comparison with transformers notices plausible mistakes of every family.

A test that passes says that `families_test.py` would have failed: the same checkpoint,
tokens and largest error of a logit.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import NamedTuple

import jax
import numpy as np
import pytest

import jaxmoe
from jaxmoe.families.registry import FAMILIES
from jaxmoe.nn.decoder import stack_params
from jaxmoe.nn.segments import stored_names
from jaxmoe.ops import delta_rule
from tests.parity.families_test import TOLERANCES, answered, write_checkpoint
from tests.parity.mistakes import CODE, MISTAKES, Params, recurrent, right_rule

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.slow

Case = tuple[str, int]
PLAINLY = 100
"""A mistake moves logits by so many times what is tolerated, or more."""

UNSEEN = {("deepseek_v2", 0, "eps of the layers' norms")}
"""What moves logits by less than is tolerated: that norms of latents have an eps of
their own is tested in families/deepseek_v2_test.py, and in nn/latent_test.py that they
use it."""


class Compared(NamedTuple):
    """A right model, the tokens it is given, and transformers' logits [T, V]."""

    model: jaxmoe.Model
    tokens: np.ndarray
    reference: np.ndarray

    def error(self, model: jaxmoe.Model) -> float:
        """Largest error of a logit, over the largest logit and what is tolerated."""
        logits = np.asarray(jaxmoe.forward(model, self.tokens))
        error = np.abs(logits - self.reference).max() / np.abs(self.reference).max()
        return float(error) / TOLERANCES.get(model.config.family, 1e-4)


@pytest.fixture(scope="module")
def compared(tmp_path_factory) -> Callable[[Case], Compared]:
    """A family's model of one of its test configurations, found right."""

    @cache
    def find(case: Case) -> Compared:
        name, number = case
        path = tmp_path_factory.mktemp(name) / "hf"
        values = dict(FAMILIES[name].test_configs[number])
        theirs = write_checkpoint(path, name, values)
        ours = jaxmoe.load(path)
        prompt = np.random.default_rng(0).integers(8, ours.config.vocab_size, 70)
        answer = answered(theirs, prompt, 64)
        with torch.no_grad():
            reference = theirs(answer).logits[0].numpy()
        found = Compared(ours, answer[0].numpy(), reference)
        assert found.error(ours) <= 1
        return found

    return find


def single_layers(params: Params) -> Params:
    """Weights layer by layer."""
    found: Params = {}
    for name, weight in params.items():
        names = stored_names(name)
        found |= {name: weight} if names == [name] else zip(names, weight, strict=True)
    return found


MISTAKEN = [
    pytest.param(case, what, id=f"{case[0]}-{case[1]}: {what}")
    for case, mistakes in MISTAKES.items()
    for what in mistakes
]


@pytest.mark.parametrize(("case", "what"), MISTAKEN)
def test_another_model_is_noticed(compared, case, what, record_property):
    """A family could be wrong in this, and be said to be equal."""
    found = compared(case)
    right = found.model
    config, params = MISTAKES[case][what](right.config, single_layers(right.params))
    wrong = replace(right, config=config, params=stack_params(config, params))
    moved = found.error(wrong)
    record_property("moved", moved)
    if (*case, what) in UNSEEN:
        assert moved <= 1, "it is seen, and need not be excused"
    else:
        assert moved >= PLAINLY


@pytest.fixture
def other_code(monkeypatch):
    """Puts a function in another's place; no compiled program outlives that."""

    def put(owner, name, function):
        jax.clear_caches()
        monkeypatch.setattr(owner, name, function)

    yield put
    monkeypatch.undo()
    jax.clear_caches()


WRITTEN = [
    pytest.param(case, what, id=f"{case[0]}-{case[1]}: {what}")
    for case, patches in CODE.items()
    for what in patches
]


@pytest.mark.parametrize(("case", "what"), WRITTEN)
def test_other_code_is_noticed(compared, other_code, case, what, record_property):
    """As above, of what no config and no weight says."""
    found = compared(case)
    other_code(*CODE[case][what])
    moved = found.error(found.model)
    record_property("moved", moved)
    assert moved >= PLAINLY


@pytest.mark.parametrize("name", ["qwen3_next", "qwen3_5_moe"])
def test_a_loop_over_positions_is_no_mistake(compared, other_code, name):
    """What is noticed of the delta rule would be the loop it is written as."""
    found = compared(next(case for case in CODE if case[0] == name))
    other_code(delta_rule, "chunk", recurrent(right_rule))
    assert found.error(found.model) <= 1


def test_every_family_that_is_compared_has_mistakes():
    """One would be left out, and nobody know what its comparison is worth."""
    writers = {name for name, family in FAMILIES.items() if not family.scores}
    assert {name for name, _ in MISTAKES} == writers
