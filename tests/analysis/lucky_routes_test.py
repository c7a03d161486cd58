"""Lucky routes: in order of what they were worth, of answers that one run alone has."""

from typing import Any

import numpy as np
import pytest

import jaxmoe
from jaxmoe import ExpertSample, TopK
from jaxmoe.analysis import lucky_routes as module
from jaxmoe.analysis.counterfactual_pass import Found
from jaxmoe.analysis.lucky_routes import lucky_routes, policy_of_run, solved_by_one
from jaxmoe.analysis.router_pass import Passage
from jaxmoe.evals.draw import as_fields
from jaxmoe.reports.lucky_files import lucky_table, write_lucky
from tests.evals.compare_test import RIGHT, run_of
from tests.tiny import CHOSEN, tiny_config

LAYERS = (1, 2)


@pytest.fixture
def found(monkeypatch):
    """Routes at two positions; utilities and likelihoods are made up."""
    moe = tiny_config().layers[1]
    config = tiny_config(layers=(tiny_config().layers[0], moe, moe))
    own = np.full((5, 3), -1.0)
    other = -np.arange(15.0).reshape(5, 3) + 3
    other[3, 1] = -np.inf
    monkeypatch.setattr(module, "route_logprobs", lambda *_: [own, other])
    routes = np.tile(np.arange(CHOSEN, dtype=np.int16), (2, 3, 1))
    others = np.tile(routes[:, None, None], (1, 2, 1, 1, 1))
    others[0, 0, 0, 1] = [3, 2, 1, 0]  # the same experts
    others[0, 1, 0, 2] = others[1, 0, 0, 1] = [9, 1, 2, 3]
    utility = np.array([[[-5.0], [-0.5]], [[-1.0], [-4.0]]])
    result = Found(utility, None, None, None, routes, others)
    asked: dict[str, Any] = {}

    def alternatives(model, one, positions, **options):
        asked.update(options, positions=positions)
        return result

    monkeypatch.setattr(module, "alternatives", alternatives)
    one = Passage(np.array([5, 6, 3, 7, 8], np.int32), 2)
    model = jaxmoe.Model(config, {})
    made = lucky_routes(model, one, own=ExpertSample(), other=TopK())
    assert (asked["positions"], asked["hold"]) == ([2, 3], True)
    assert asked["layers"] == LAYERS
    return made


def test_routes_are_ranked_where_they_differ(found):
    """A route that both take, or another token's, would be called lucky."""
    assert found.tokens.tolist() == [7, 8]
    assert found.differs.tolist() == [[False, True], [True, False]]
    first, second = found.ranked()
    assert first == (3, 1, 8, -1, -np.inf, 1) and second == (2, 2, 7, -1, -5, 0.5)
    assert [r.loss for r in found.ranked("surprise")] == [1, 0.5]
    with pytest.raises(ValueError, match="'luck'"):
        found.ranked("luck")


def test_problems_that_one_run_alone_solved():
    """A problem that both solved says nothing of the policy."""
    first = run_of([[RIGHT, "a"], ["a", RIGHT], ["a", "a"], [RIGHT, RIGHT]])
    second = run_of([["a", "b"], [RIGHT, "b"], ["a", "a"]], "other")
    assert solved_by_one(first, second) == ("p0",)


@pytest.mark.parametrize("policy", [TopK(3), ExpertSample(k_keep=np.array([2, 3]))])
def test_a_run_says_by_which_policy_it_was_drawn(policy):
    """Routes would be asked about under another policy than that of the run."""
    made = policy_of_run(run_of([["a"]], policy=as_fields(policy)))
    assert as_fields(made) == as_fields(policy)
    with pytest.raises(ValueError, match=r"drawn by Own\(\)"):
        policy_of_run(run_of([["a"]], policy="Own()"))


def test_files_have_the_largest_loss_first(found, tmp_path):
    """The first lines would not be those that matter."""
    write_lucky(tmp_path, [("problem =1", found)])
    lines = (tmp_path / "lucky.csv").read_text("utf-8").splitlines()
    assert [line.split(",")[1:3] for line in lines[1:]] == [["3", "1"], ["2", "2"]]
    assert "problem =1" in lucky_table([("problem =1", found)])
