"""Answers with routes as lines: there and back, in either engine's text."""

import base64
import dataclasses
import json

import jax
import numpy as np
import pytest

from jaxmoe.analysis.passages import Passages
from jaxmoe.analysis.route_exchange import as_line, expert_weights, routes_in
from jaxmoe.analysis.router_pass import Passage
from jaxmoe.analysis.texts import read_rows
from jaxmoe.decode.sampler import TokenSampler
from jaxmoe.demo.network import logits_of
from jaxmoe.evals.route_codec import decode_weights
from jaxmoe.router.policies import TopK
from jaxmoe.sampling import place_routes
from tests.tiny import CHOSEN, tiny_model


def _passage() -> Passage:
    """Three tokens of a prompt, four of an answer."""
    routes = np.arange(4 * 2 * CHOSEN, dtype=np.int16).reshape(4, 2, CHOSEN) % 16
    placed = place_routes(3, 4, routes)[:-1]
    return Passage(np.array([9, 8, 9, 10, 11, 12], np.int32), 3, placed, 13)


@pytest.mark.parametrize("form", ["vllm", "sglang"])
def test_there_and_back(form, tmp_path):
    """A trainer would replay the experts of another token."""
    one = _passage()
    path = tmp_path / "routes.jsonl"
    path.write_text(json.dumps(as_line(one, form=form)), "utf-8")
    sampler = TokenSampler()
    (again,) = Passages(tiny_model(), read_rows(path), policy=TopK(), sampler=sampler)
    assert again.tokens.tolist() == one.tokens.tolist()
    assert (again.prompt_length, again.following) == (3, 13)
    assert one.routes is not None
    np.testing.assert_array_equal(again.routes, one.routes)


def test_a_text_of_sglang_is_its_values():
    """A trainer reads them by shape alone: a header would shift every expert."""
    line = as_line(_passage(), form="sglang")
    values = np.frombuffer(base64.b64decode(line["routed_experts"]), np.int32)
    assert line["routed_shape"] == [3 + 4 - 1, 2, CHOSEN]
    whole = values.reshape(line["routed_shape"])
    assert (whole[:2] == -1).all() and whole[2, 0].tolist() == [0, 1, 2, 3]


@pytest.mark.usefixtures("untyped")  # `logits_of` wants experts in every layer
@pytest.mark.parametrize("form", ["vllm", "sglang"])
def test_weights_are_those_of_the_rule(form):
    """A trainer would weigh experts by another token's scores, or by none."""
    model, one = tiny_model(), _passage()
    assert one.routes is not None
    routes = one.routes.copy()
    routes[:, 0] = -1  # the dense layer
    one = dataclasses.replace(one, routes=routes)
    found = expert_weights(model, one)
    run = jax.jit(lambda p: logits_of(model.config, p, one.tokens[None], "auto")[1])
    # Of the first token with a route: those before it are routed as here.
    row = np.asarray(run(model.params))[0, 2]
    p = np.exp(row[routes[2, 1]])
    np.testing.assert_allclose(found[2, 1], p / p.sum(), rtol=1e-4)
    assert (found[:2] == 0).all() and (found[:, 0] == 0).all()
    line = as_line(one, form=form, weights=found)
    shape = (6, 2, CHOSEN)
    np.testing.assert_array_equal(decode_weights(line["routed_weights"], shape), found)
    with pytest.raises(ValueError, match="float32"):
        decode_weights(line["routed_weights"][:40], shape)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prompt": "text"}, "give ids"),
        ({"routed_experts": 5}, "found int"),
        ({"routed_shape": [6, 2]}, "routed_shape"),
        ({"routed_shape": ["6", 2, 4]}, "routed_shape"),
        ({"routed_shape": [-1, 2, 4]}, "routed_shape.*above 0"),
        ({"text": "b"}, '"answer" and a "text"'),
    ],
)
def test_lines_that_do_not_fit(tmp_path, change, message):
    """A slip would be a traceback out of NumPy, and not say in which line."""
    path = tmp_path / "routes.jsonl"
    path.write_text(json.dumps(as_line(_passage()) | change), "utf-8")
    with pytest.raises(ValueError, match=f"line 1.*{message}"):
        read_rows(path)


@pytest.mark.parametrize(
    ("form", "message"),
    [("vllm", "base64 of a .npy file"), ("sglang", r"base64 of int32 of \(6, 2, 4\)")],
)
def test_a_text_that_was_cut_short(form, message):
    """What is wrong with a file would be said of values that it does not hold."""
    line = as_line(_passage(), form=form)
    find = routes_in(line | {"routed_experts": line["routed_experts"][:-8]})
    assert find is not None
    with pytest.raises(ValueError, match=message):
        find()
