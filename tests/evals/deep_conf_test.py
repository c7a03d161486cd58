"""DeepConf: confidence of groups, and answers that end where it falls too low."""

import jax
import numpy as np
import pytest

import jaxmoe
from jaxmoe.evals.deep_conf import (
    DeepConf,
    deep_conf,
    group_confidence,
    threshold_of,
    token_confidence,
    unsure,
)
from tests.tiny import prompt_of, tiny_model

N, RULE = 12, DeepConf(warm_up=4, keep=0.5, group=6, top=3)
OPTIONS = {"max_new_tokens": 40, "stop_ids": (), "policy": jaxmoe.TopK()}


@pytest.fixture(scope="module")
def model() -> jaxmoe.Model:
    """One model, so that its programs are compiled once."""
    return tiny_model()


def test_confidence_by_hand():
    """Another sign, another mean, or a window too many would end other answers."""
    top = np.log(np.array([[0.5, 0.25], [0.9, 0.05], [0.4, 0.4]], np.float32))
    tokens = token_confidence(top)
    np.testing.assert_allclose(
        tokens, -np.log([0.5 * 0.25, 0.9 * 0.05, 0.4 * 0.4]) / 2, rtol=1e-6
    )
    np.testing.assert_allclose(
        group_confidence(tokens, 2), [tokens[:2].mean(), tokens[1:].mean()]
    )
    np.testing.assert_allclose(group_confidence(tokens, 5), [tokens.mean()])
    assert threshold_of(np.arange(11.0), 0.1) == pytest.approx(9.0)
    unknown = np.array([np.nan, np.inf])
    assert threshold_of(np.r_[np.arange(11.0), unknown], 0.1) == pytest.approx(9.0)
    assert threshold_of(unknown, 0.1) == -np.inf


@pytest.mark.thorough
def test_answers_are_cut_and_never_changed(model):
    """Promise 2: a threshold would change what an answer says, not where it ends; or
    let go on what is below it."""
    prompt, key = prompt_of(20), jax.random.key(2)
    found = deep_conf(model, prompt, key=key, n=N, rule=RULE, **OPTIONS)
    whole = jaxmoe.sample(
        model, prompt, key=key, n=N, slots=16, top_logprobs=3, **OPTIONS
    )
    for i, (answer, one) in enumerate(zip(found.answers, whole, strict=True)):
        length = len(answer.tokens)
        assert answer.sample == i
        assert np.array_equal(answer.tokens, one.tokens[:length])
        assert np.array_equal(answer.logprobs, one.logprobs[:length])
        assert one.top_logprobs is not None
        groups = group_confidence(token_confidence(one.top_logprobs), RULE.group)
        low = np.flatnonzero(groups < found.threshold)
        if i < RULE.warm_up or not len(low):
            assert length == len(one.tokens) and answer.finish == one.finish
        else:
            assert length == min(low[0] + RULE.group, len(one.tokens))
            assert found.complete[i] == (length == len(one.tokens))
        lowest = groups[: max(length - RULE.group + 1, 1)].min()
        assert found.confidences[i] == pytest.approx(lowest)
    assert 0 < found.complete[RULE.warm_up :].sum() < N - RULE.warm_up
    expected = threshold_of(found.confidences[: RULE.warm_up], RULE.keep)
    assert found.threshold == expected


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: DeepConf(keep=0), "keep.*found 0"),
        (lambda: DeepConf(group=0), "group.*found 0"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(make, said):
    """A percentile of no answers would be taken."""
    with pytest.raises(ValueError, match=said):
        make()


def test_all_answers_cannot_be_warm_up(model):
    """Nothing would be left to end."""
    with pytest.raises(ValueError, match="16 answers of the warm-up, found 16"):
        deep_conf(model, [1], key=0, n=16)


@pytest.mark.parametrize(
    ("prompt", "more", "said"),
    [
        ([[1], [2]], {}, "one prompt, found a list of 2"),
        ([1], {"top_logprobs": 5}, "5"),
    ],
)
@pytest.mark.usefixtures("untyped")
def test_what_it_cannot_take_is_refused(model, prompt, more, said):
    """A caller's wish would be lost, or answers of several prompts mixed."""
    with pytest.raises(ValueError, match=said):
        deep_conf(model, prompt, key=0, n=20, **more)


def test_the_rule_needs_the_most_likely_tokens(model):
    """An answer without them would never end."""
    with pytest.raises(ValueError, match=r"top_logprobs=20"):
        jaxmoe.sample(
            model, prompt_of(20), key=0, slots=16, stop_when=unsure(0.0, 1), **OPTIONS
        )
