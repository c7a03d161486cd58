"""Answers end at stop strings and special tokens, whatever decodes beside them."""

from dataclasses import replace
from types import SimpleNamespace

import jax
import numpy as np
import pytest

import jaxmoe
from tests.tiny import SHAPES, VOCAB, answers, prompt_of, tiny_model

SPECIAL = 51


class Letters:
    """A tokenizer of one letter a token; one token is special and has no text."""

    special_ids = frozenset([SPECIAL])

    def decode(self, ids) -> str:
        """One letter for each token."""
        return "".join("" if i == SPECIAL else chr(0x4E00 + i) for i in ids)

    def check_stops(self, stops) -> None:
        """Any stop can be met."""

    def token_to_id(self, token: str) -> int | None:
        """The special token's id by its name."""
        return SPECIAL if token == "<|end|>" else None


@pytest.fixture(scope="module")
def model():
    """A model whose every token is a letter."""
    plain = tiny_model()
    return SimpleNamespace(
        config=plain.config,
        params=plain.params,
        tokenizer=Letters(),
        layout=None,
        execution=plain.execution,
        require_tokenizer=lambda purpose: Letters(),
    )


def draw(model, **options) -> jaxmoe.Samples:
    """Eleven answers through eight slots."""
    given = {"key": jax.random.key(0), "n": 11, **SHAPES, "max_new_tokens": 70}
    return jaxmoe.sample(model, prompt_of(20), **{**given, **options})


@pytest.mark.thorough
@pytest.mark.usefixtures("untyped")
def test_stop_string_cuts_where_it_is_complete(model):
    """An answer would go on past its stop, keep it in its text, or change before it."""
    free = draw(model)
    letters = Letters()
    # Two neighbouring tokens of one answer, which hold wherever they stand.
    stop = letters.decode(answers(free)[3][40:42])
    stopped = draw(model, stop=stop)
    for before, after, text, finish in zip(
        answers(free), answers(stopped), stopped.text, stopped.finish, strict=True
    ):
        whole = letters.decode(before)
        if stop in whole:
            lengths = range(1, len(before) + 1)
            length = next(j for j in lengths if stop in letters.decode(before[:j]))
            assert after == before[:length]
            assert text == whole[: whole.index(stop)]
            assert finish == "stop"
        else:
            assert after == before
    assert stopped.lengths[3] < free.lengths[3]


@pytest.mark.thorough
@pytest.mark.usefixtures("untyped")
def test_stops_within_the_fewest_tokens_are_overlooked(model):
    """`min_tokens` would hold for stop tokens alone, or leave no stop at all."""
    least = {"sampler": replace(SHAPES["sampler"], min_tokens=20)}
    free, letters = draw(model, **least), Letters()
    # From an answer's 5th token on, and over the border, which counts.
    early = letters.decode(answers(free)[3][5:6])
    border = letters.decode(answers(free)[4][19:21])
    stopped = draw(model, stop=(early, border), include_stop=True, **least)
    assert stopped.lengths.min() >= 20
    assert stopped.lengths[4] == 21
    for before, after, text, finish in zip(
        answers(free), answers(stopped), stopped.text, stopped.finish, strict=True
    ):
        ends = [
            j
            for j in range(21, len(before) + 1)
            if early in letters.decode(before[20:j])
            or border in letters.decode(before[19:j])
        ]
        assert after == before[: min(ends, default=len(before))]
        if ends:
            assert finish == "stop"
            assert text == letters.decode(after)


@pytest.mark.usefixtures("untyped")
def test_special_token_as_a_stop_string(model):
    """A special token never shows in text, and would never stop an answer."""
    free = answers(draw(model))
    stopped = draw(model, stop="<|end|>")
    assert any(SPECIAL in tokens for tokens in free)
    for before, after in zip(free, answers(stopped), strict=True):
        cut = before.index(SPECIAL) + 1 if SPECIAL in before else len(before)
        assert after == before[:cut]


@pytest.mark.usefixtures("untyped")
def test_nan_is_reported(model):
    """A model that computes NaN would draw nonsense in silence."""
    head = np.array(model.params["head.weight"])
    head[VOCAB // 2] = np.nan
    broken = SimpleNamespace(**{**vars(model), "params": dict(model.params)})
    broken.params["head.weight"] = jax.numpy.asarray(head)
    with pytest.warns(RuntimeWarning, match="computed NaN"):
        draw(broken)
