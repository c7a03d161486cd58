"""Runs that begin from a model, and on answers that it has drawn."""

from dataclasses import replace

import numpy as np
import pytest

import jaxmoe
from jaxmoe.demo.chains import chains_of
from jaxmoe.demo.model_files import ATTRIBUTES
from jaxmoe.demo.network import demo_config, first_params
from jaxmoe.demo.numbers_game import Problem
from jaxmoe.demo.recipe import Shapes
from jaxmoe.demo.training_start import Start, right_answers, weights_from
from jaxmoe.evals.store import RunDirectory
from jaxmoe.nn.decoder import stack_params
from tests.evals.compare_test import RIGHT, run_of

PROBLEM = Problem.parse("2,5,8,12=27:")
ANSWER = "12+8=20,5+2=7,20+7=27"


def test_weights_are_those_of_the_files():
    """Training would go on from other weights, or lay layers out as it cannot."""
    params, digest, shapes = weights_from("demo")
    model = jaxmoe.load("demo", dtype="float32")
    assert shapes == Shapes() and len(digest) > 20
    config = demo_config(ATTRIBUTES)
    wanted = first_params(config, 0)
    assert {n: p.shape for n, p in params.items()} == {
        n: p.shape for n, p in wanted.items()
    }
    for name, value in stack_params(config, params).items():
        np.testing.assert_array_equal(value, model.params[name])


def test_other_models_are_refused(tmp_path, monkeypatch):
    """Training would end in an error of shapes, an hour later or at once."""
    small = demo_config(ATTRIBUTES | {"num_hidden_layers": 2})
    model = jaxmoe.Model(small, first_params(small, 0))
    monkeypatch.setattr(jaxmoe, "load", lambda *_, **__: model)
    with pytest.raises(ValueError, match="has other layers"):
        weights_from(tmp_path)


def test_what_a_start_says_of_itself():
    """A killed run would go on from other weights or answers and not say so."""
    one, other = (
        chains_of([(PROBLEM, text)]) for text in (ANSWER, "8+12=20,5+2=7,20+7=27")
    )
    said = [Start(chains=c).describe() for c in (None, one, one, other)]
    assert said[0] == {} and said[1] == said[2] != said[3]
    assert Start(checkpoint="abc").describe() == {"start": "abc"}


def test_the_first_right_answer_to_each_problem(tmp_path):
    """A wrong answer would be learnt, or an easy problem count many times."""
    made = run_of([["a", RIGHT, RIGHT], ["b", "c", "d"]])
    prompts = [PROBLEM.prompt, "1,2,3,4=10:"]
    texts = {(0, 1): ANSWER, (0, 2): "5+2=7,12+8=20,20+7=27"}
    manifest = {**made.manifest, "prompts": prompts}
    with RunDirectory(tmp_path / "run", manifest) as folder:
        for j, row in enumerate(made.records):
            for i, record in enumerate(row):
                folder.add(replace(record, text=texts.get((j, i), record.text)))
    found = right_answers(tmp_path / "run")
    assert found.texts() == [ANSWER]
    assert (found.numbers.tolist(), found.target.tolist()) == ([[2, 5, 8, 12]], [27])
    wrong = run_of([["a"]])
    with RunDirectory(
        tmp_path / "wrong", {**wrong.manifest, "prompts": prompts[:1]}
    ) as folder:
        folder.add(wrong.records[0][0])
    with pytest.raises(ValueError, match="found none"):
        right_answers(tmp_path / "wrong")
