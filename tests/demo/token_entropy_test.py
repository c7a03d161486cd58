"""How sure a model is of its tokens."""

import numpy as np
import pytest

from jaxmoe.demo.encoding import PROMPT_LENGTH, encode_whole
from jaxmoe.demo.network import first_params, logits_of
from jaxmoe.demo.token_entropy import token_entropy
from tests.demo.training_test import CONFIG

pytestmark = pytest.mark.thorough

TEXTS = ["2,5,8,12=27:12+8=20,5+2=7,20+7=27", "1,2,3,4=10:2+1=3,3+3=6,6+4=10"]


def test_entropy_is_that_of_the_answers_tokens():
    """Prompts, which nobody draws, would count; or the end of an answer would not."""
    params = first_params(CONFIG, 3)
    logits, _, _ = logits_of(CONFIG, params, encode_whole(TEXTS), "batched")
    wide = np.asarray(logits, np.float64)[:, PROMPT_LENGTH - 1 :]
    p = np.exp(wide) / np.exp(wide).sum(axis=-1, keepdims=True)
    expected = -(p * np.log(p)).sum(axis=-1).mean()
    found = token_entropy(CONFIG, params, [*TEXTS, "12"])
    assert found.nats == pytest.approx(expected, rel=1e-5)
    # What is left out is not counted.
    assert found.answers == len(TEXTS)


def test_one_token_alone_has_no_entropy():
    """A certain model would not be told from one that is not."""
    params = first_params(CONFIG, 3)
    sure = params | {"head.weight": params["head.weight"] * 1e4}
    assert token_entropy(CONFIG, sure, TEXTS).nats < 1e-2


def test_every_token_of_every_try_counts_alike():
    """Short answers would weigh as much as long ones, or long ones not count."""
    params = first_params(CONFIG, 3)
    params |= {"head.weight": params["head.weight"] * 8}
    texts = [TEXTS[0], f"{TEXTS[1]}:{TEXTS[0].partition(':')[2]}"]
    found = token_entropy(CONFIG, params, texts, tries=2)
    short = token_entropy(CONFIG, params, texts)
    long = token_entropy(CONFIG, params, texts[1:], tries=2)
    assert (found.answers, short.answers, long.answers) == (2, 1, 1)
    assert short.nats != pytest.approx(long.nats, rel=1e-3)
    expected = (short.nats + 2 * long.nats) / 3
    assert found.nats == pytest.approx(expected, rel=1e-6)
