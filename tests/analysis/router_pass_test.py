"""A pass over texts against router logits of the same texts, one by one."""

import dataclasses
from typing import Any

import jax
import jaxtyping
import numpy as np
import pytest

import jaxmoe
from jaxmoe import ExpertSample
from jaxmoe.analysis import router_pass
from jaxmoe.analysis.router_pass import (
    CLASSES,
    Passage,
    accumulate,
    draw,
    passage,
    require_alike,
)
from jaxmoe.config import DenseConfig, LayerConfig
from jaxmoe.demo.network import logits_of
from jaxmoe.reports.router_table import table
from jaxmoe.router.scores import Groups, SigmoidScores
from tests.tiny import CHOSEN, EXPERTS, VOCAB, prompt_of, tiny_config, tiny_model

LENGTHS, PROMPT = (9, 13, 11, 16, 6), 5


@pytest.fixture(scope="module")
def model():
    """A dense layer, then a mixture."""
    return tiny_model()


@pytest.fixture(scope="module")
def passages() -> list[Passage]:
    """More than fit into one batch, of one bucket and several lengths."""
    return [
        Passage(prompt_of(length, seed).astype(np.int32), PROMPT)
        for seed, length in enumerate(LENGTHS)
    ]


@pytest.fixture(scope="module")
def rows(model, passages):
    """Logits [N, E], experts [N, K] and whether generated, of all tokens."""
    # Tokens behind the end change nothing before it, so all may be equally long.
    tokens = np.zeros((len(passages), 16), np.int32)
    for row, one in zip(tokens, passages, strict=True):
        row[: len(one.tokens)] = one.tokens
    run = jax.jit(lambda p, t: logits_of(model.config, p, t, "auto")[1:])
    # Its L is of all layers or of those with experts, which are not as many here.
    jaxtyping.config.update("jaxtyping_disable", True)
    logits, experts = (np.asarray(a) for a in run(model.params, tokens))
    jaxtyping.config.update("jaxtyping_disable", False)
    place = np.tile(np.arange(16), len(passages))
    there = place < np.repeat(LENGTHS, 16)
    generated = place >= PROMPT
    return logits[0][there], experts[1][there], generated[there]


@pytest.fixture(scope="module")
def stats(model, passages):
    """In batches of four."""
    return accumulate(model, passages, rows=64)


def _run_again(model, passages, **options):
    return accumulate(model, passages, rows=64, **options)[1]


@pytest.mark.parametrize("name", CLASSES)
def test_statistics_are_of_the_tokens_of_each_class(stats, rows, name):
    """Padding, or tokens of another class or layer, would be counted."""
    logits, experts, generated = rows
    of = generated == (name == "generated")
    assert list(stats) == [1]  # the dense layer has no router
    found = stats[1][name]
    assert found.tokens == of.sum()
    p = np.exp(logits[of].astype(np.float64))
    p = -np.sort(-p / p.sum(axis=1, keepdims=True), axis=1)
    np.testing.assert_allclose(found.probability, p.mean(axis=0), rtol=1e-4)
    entropy = -(p * np.log(p)).sum(axis=1)
    expected = (entropy.mean(), entropy.std())
    assert found.entropy == pytest.approx(expected, rel=1e-3)
    load = np.bincount(experts[of].ravel(), minlength=EXPERTS)
    np.testing.assert_array_equal(found.load, load)


def test_batches_and_order_do_not_matter(model, passages, stats):
    """A passage would be seen by another of its batch, or the last one be left out."""
    shown = []
    again = _run_again(model, passages[::-1], progress=shown.append)
    assert shown == [4, 5]
    for name in CLASSES:
        one, other = again[name], stats[1][name]
        np.testing.assert_allclose(one.p_sum, other.p_sum, rtol=1e-4)
        np.testing.assert_array_equal(one.chosen, other.chosen)


def test_routes_are_taken_where_given(model, passages, stats):
    """Loads would be those of top-k instead of what computed the answer."""
    one = passages[3]
    routes = np.full((len(one.tokens), 2, CHOSEN), -1, np.int16)
    routes[PROMPT:, 1] = [15, 14, 13, 12]
    given = [*passages[:3], dataclasses.replace(one, routes=routes), passages[4]]
    found = _run_again(model, given)
    changed = len(one.tokens) - PROMPT
    both = found["generated"].chosen[12:, 12:]
    assert (both >= changed).all() and both.sum() > stats[1]["generated"].chosen[
        12:, 12:
    ].sum()
    np.testing.assert_array_equal(found["prompt"].load, stats[1]["prompt"].load)


def test_drawn_answers_have_the_routes_of_their_tokens(model, monkeypatch):
    """Each token would be counted with the experts of the one before it."""
    rows = [prompt_of(4, 0), prompt_of(5, 1)]
    tokens = np.arange(12, dtype=np.int32).reshape(2, 6)
    lengths = np.array([6, 3], np.int32)
    routes = np.arange(2 * 6 * 2 * CHOSEN).reshape(2, 6, 2, CHOSEN).astype(np.int16)
    made = jaxmoe.Samples(tokens, lengths, np.zeros((2, 6)), ("length",) * 2, routes)
    asked = []

    def sample(model, prompts, **options):
        asked.append((prompts, options))
        return [made] * len(prompts)

    monkeypatch.setattr(router_pass, "sample", sample)
    drawn = draw(model, rows, key="key", n=2)
    ((prompts, options),) = asked
    np.testing.assert_array_equal(np.concatenate(prompts), np.concatenate(rows))
    assert options == {"key": "key", "policy": None, "return_routes": True, "n": 2}
    places = [(prompt, i) for prompt in rows for i in range(2)]
    for one, (prompt, i) in zip(drawn, places, strict=True):
        answer = tokens[i, : lengths[i] - 1].tolist()
        assert one.tokens.tolist() == [*prompt, *answer]
        assert one.prompt_length == len(prompt)
        assert one.routes is not None and (one.routes[: len(prompt) - 1] == -1).all()
        np.testing.assert_array_equal(
            one.routes[len(prompt) :], routes[i, 1 : lengths[i]]
        )


@pytest.mark.slow
def test_drawn_answers_are_replayed(model):
    """The statistics would be of other experts than those that drew the answer."""
    policy = ExpertSample(k_keep=1, r=EXPERTS, tau=3.0)
    prompts = [prompt_of(4, seed) for seed in range(2)]
    options = {"n": 2, "max_new_tokens": 6, "policy": policy, "stop_ids": ()}
    key = jax.random.key(3, impl="threefry2x32")
    drawn = draw(model, prompts, key=key, **options)
    samples: Any = jaxmoe.sample(model, prompts, key=key, return_routes=True, **options)
    assert [len(one.tokens) for one in drawn] == [9] * 4
    assert drawn[2].tokens.tolist() == [*prompts[1], *samples[1].tokens[0, :5]]
    found = _run_again(model, drawn, policy=policy)
    # Row j > 0 of an answer's routes is the pass over its token j - 1.
    taken = np.concatenate([s.routes[:, 1:, 1].ravel() for s in samples])
    load = np.bincount(taken, minlength=EXPERTS)
    np.testing.assert_array_equal(found["generated"].load, load)
    assert found["prompt"].tokens == 16


def test_prompts_alone_have_one_class(model, passages):
    """A class without tokens would be shown with means of nothing."""
    given = [dataclasses.replace(p, prompt_length=len(p.tokens)) for p in passages]
    found = _run_again(model, given)
    assert list(found) == ["prompt"]
    assert found["prompt"].tokens == sum(LENGTHS)


# -- input -------------------------------------------------------------------------


def with_groups(model, groups: Groups | None) -> jaxmoe.Model:
    """The model with another rule: sigmoids, and groups of experts."""
    dense, moe = model.config.layers
    scoring = SigmoidScores(True, weight_type="float32", groups=groups)
    ff = dataclasses.replace(moe.feed_forward, scoring=scoring)
    layers = (dense, dataclasses.replace(moe, feed_forward=ff))
    config = dataclasses.replace(model.config, layers=layers)
    return dataclasses.replace(model, config=config)


@pytest.mark.thorough
def test_groups_leave_the_experts_that_a_token_may_have(model, passages):
    """A report would show experts that no policy can draw, or none at all."""
    every = accumulate(with_groups(model, Groups(4, 4, 2)), passages[:2])[1]["prompt"]
    plain = accumulate(with_groups(model, None), passages[:2])[1]["prompt"]
    assert every.ranks == plain.ranks == EXPERTS
    np.testing.assert_allclose(every.p_sum, plain.p_sum, rtol=1e-6)
    found = accumulate(with_groups(model, Groups(4, 2, 2)), passages[:2])[1]["prompt"]
    assert (found.ranks, found.num_experts) == (EXPERTS // 2, EXPERTS)
    assert found.mass[-1] == pytest.approx(1, abs=1e-5)
    assert found.load.sum() == found.tokens * CHOSEN
    assert found.entropy[0] < np.log(found.ranks) < plain.entropy[0] + 1
    text = table({1: {"prompt": found}}, CHOSEN)
    assert "8 of 16" in text and "8 of 16" not in table({1: {"prompt": plain}}, CHOSEN)


def test_passage_joins_prompt_and_answer(model):
    """The first token of an answer would count as the prompt's."""
    one = passage(model, [8, 9, 10], [11, 12])
    assert (one.tokens.tolist(), one.prompt_length) == ([8, 9, 10, 11, 12], 3)
    alone = passage(model, [8, 9, 10])
    assert (alone.tokens.tolist(), alone.prompt_length) == ([8, 9, 10], 3)


@pytest.mark.parametrize(
    "prompt, answer, message",
    [
        ([], [1], "at least one token"),
        ([1], [VOCAB], f"found {VOCAB}"),
        ([1] * 4000, [2] * 97, "found a prompt of 4097"),
        ([1], "text", "needs a tokenizer"),
    ],
)
def test_passage_refuses_what_does_not_fit(model, prompt, answer, message):
    """A model would be run on what it cannot read, and fail after minutes."""
    with pytest.raises(ValueError, match=message):
        passage(model, prompt, answer)


def test_refuses_nothing_to_measure(model):
    """A report without a number would be written."""
    with pytest.raises(ValueError, match="found no passages"):
        accumulate(model, [])
    dense = LayerConfig(model.config.layers[0].mixer, DenseConfig(40))
    without = dataclasses.replace(model, config=tiny_config(layers=(dense,)))
    with pytest.raises(ValueError, match="a model without experts"):
        accumulate(without, [Passage(np.array([1], np.int32), 1)])


@pytest.mark.parametrize("length", [0, 3])
def test_refuses_prompts_longer_than_the_passage(model, length):
    """Tokens that are not there would count as generated, or none as prompt."""
    with pytest.raises(ValueError, match=rf"in 1\.\.2 .* found {length}"):
        accumulate(model, [Passage(np.array([1, 2], np.int32), length)])


def test_refuses_routes_of_another_policy(model):
    """Experts would be read from the wrong places."""
    routes = np.zeros((2, 2, CHOSEN + 1), np.int16)
    with pytest.raises(ValueError, match="recorded with this policy"):
        accumulate(model, [Passage(np.array([1, 2], np.int32), 1, routes)])


def test_checkpoints_that_cannot_be_compared():
    """Layer 1 of one would be shown beside another layer of the other."""
    one = tiny_config()
    require_alike(one, tiny_config())
    dense, moe = one.layers
    fewer = dataclasses.replace(moe.feed_forward, num_experts=8)
    small = dataclasses.replace(moe, feed_forward=fewer)
    for layers, found in (
        ((dense, moe, moe), r"layers with experts .* found 1 and 2"),
        ((moe, dense), r"at \(1,\) and \(0,\)"),
        ((dense, small), "experts in both checkpoints, found 16 and 8"),
    ):
        with pytest.raises(ValueError, match=found):
            require_alike(one, tiny_config(layers=layers))
    with pytest.raises(ValueError, match="vocabulary"):
        require_alike(one, tiny_config(vocab_size=50))
