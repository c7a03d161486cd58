"""Runs that begin from a model, and on answers that it has drawn."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import jaxmoe
from jaxmoe import demo
from jaxmoe.demo.chains import chains_of
from jaxmoe.demo.model_files import ATTRIBUTES
from jaxmoe.demo.network import demo_config, first_params
from jaxmoe.demo.numbers_game import Problem
from jaxmoe.demo.recipe import Shapes
from jaxmoe.demo.training_start import Start, right_answers, weights_from
from jaxmoe.evals.run import Run
from jaxmoe.evals.store import RunDirectory
from jaxmoe.nn.decoder import stack_params
from tests.evals.compare_test import RIGHT, run_of

PROBLEM = Problem.parse("2,5,8,13=28:")
ANSWER = "13+8=21,5+2=7,21+7=28"


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
        chains_of([(PROBLEM, text)]) for text in (ANSWER, "8+13=21,5+2=7,21+7=28")
    )
    said = [Start(chains=c).describe() for c in (None, one, one, other)]
    assert said[0] == {} and said[1] == said[2] != said[3]
    assert Start(checkpoint="abc").describe() == {"start": "abc"}


def keep(run: Run, path: Path, prompts: list[str], texts: dict | None = None) -> Path:
    """The run in a directory, of these problems; texts: (problem, sample) -> answer."""
    with RunDirectory(path, {**run.manifest, "prompts": prompts}) as folder:
        for j, row in enumerate(run.records):
            for i, record in enumerate(row):
                text = (texts or {}).get((j, i), record.text)
                folder.add(replace(record, text=text))
    return path


def test_the_first_right_answer_to_each_problem(tmp_path):
    """A wrong answer would be learnt, or an easy problem count many times."""
    made = run_of([["a", RIGHT, RIGHT], ["b", "c", "d"]])
    prompts = [PROBLEM.prompt, "1,2,3,4=10:"]
    texts = {(0, 1): ANSWER, (0, 2): "5+2=7,13+8=21,21+7=28"}
    found = right_answers(keep(made, tmp_path / "run", prompts, texts))
    assert found.texts() == [ANSWER]
    assert (found.numbers.tolist(), found.target.tolist()) == ([[2, 5, 8, 13]], [28])
    wrong = keep(run_of([["a"]]), tmp_path / "wrong", prompts[:1])
    with pytest.raises(ValueError, match="found none"):
        right_answers(wrong)


@pytest.mark.parametrize("other", [demo.problems("test")[0].prompt, "1,1,1,14=14:"])
def test_problems_that_are_asked_later_are_not_trained_on(tmp_path, other):
    """A model would be tested on what it has learnt: the test split is the default."""
    made = run_of([[RIGHT], [RIGHT]])
    texts = {(0, 0): ANSWER, (1, 0): ANSWER}
    path = keep(made, tmp_path / "run", [PROBLEM.prompt, other], texts)
    with pytest.raises(ValueError, match=f"found 1 of other sets, e.g. {other};"):
        right_answers(path)
