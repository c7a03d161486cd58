"""Tokens made in bulk against tokens of text."""

import random

import numpy as np
import pytest

from jaxmoe.demo.chains import all_chains, number_sets
from jaxmoe.demo.encoding import (
    ANSWER_LENGTH,
    END,
    ID,
    PROMPT_LENGTH,
    VOCAB,
    encode,
    encode_by_tries,
    encode_chains,
    encode_whole,
    learnt,
)
from jaxmoe.demo.numbers_game import MAX_RESULT, Problem


@pytest.fixture(scope="module")
def chains():
    """All answers of some sets of numbers."""
    return all_chains(random.Random(0).sample(number_sets(), 25))


def test_bulk_tokens_are_those_of_the_text(chains):
    """The model would be trained on other tokens than it is asked with."""
    rows = np.random.default_rng(0).integers(len(chains.target), size=1000)
    tokens = encode_chains(chains, rows[:, None])
    assert tokens.dtype == np.int32
    assert tokens.shape == (1000, PROMPT_LENGTH + ANSWER_LENGTH)
    texts = chains.texts()
    for row, found in zip(rows, tokens.tolist(), strict=True):
        numbers, target = chains.numbers[row].tolist(), int(chains.target[row])
        problem = Problem(tuple(numbers), target)
        prompt, answer = encode(problem.prompt), encode(texts[row])
        assert found == [*prompt, *answer, ID[END]], (problem, texts[row])
        assert (len(prompt), len(answer) + 1) == (PROMPT_LENGTH, ANSWER_LENGTH)


def test_bulk_tokens_of_several_tries(chains):
    """A try would be another than the text says, or end where the next one begins."""
    rows = np.array([[5, 9, 2], [7, 0, 3]])
    tokens = encode_chains(chains, rows)
    texts = chains.texts()
    for row, found in zip(rows, tokens.tolist(), strict=True):
        numbers, target = chains.numbers[row[-1]].tolist(), int(chains.target[row[-1]])
        prompt = Problem(tuple(numbers), target).prompt
        answer = ":".join(texts[one] for one in row)
        assert found == [*encode(prompt + answer), ID[END]]


def test_what_is_learnt_of_tries_that_failed(chains):
    """A model would learn to fail, or not that its sums have to be so."""
    tokens = encode_chains(chains, np.array([[5, 9, 2]]))[0, PROMPT_LENGTH:]
    kept = [VOCAB[token] for token in tokens[learnt(3)]]
    texts = chains.texts()
    results = [step.split("=")[1] for one in (5, 9) for step in texts[one].split(",")]
    last = [VOCAB[token] for token in encode(texts[2])]
    assert kept == [*results[:3], ":", *results[3:], ":", *last, END]
    assert learnt(1).all() and learnt(1).shape == (ANSWER_LENGTH,)


def test_largest_numbers_have_tokens():
    """A sum near the limit would wrap around in 8 bits, or have no token."""
    chains = all_chains([(13, 13, 13, 13), (1, 10, 10, 13)])
    tokens = encode_chains(chains, np.arange(len(chains.target))[:, None])
    texts = [VOCAB[token] for token in np.unique(tokens)]
    largest = max(int(text) for text in texts if text.isdecimal())
    assert largest == chains.steps[:, :, 3].max() > 160
    assert encode(f"{MAX_RESULT}") == [len(VOCAB) - 1]


def test_ids_are_distinct():
    """Two symbols would look the same to the model."""
    assert len(set(VOCAB)) == len(VOCAB)
    assert [ID[text] for text in VOCAB] == list(range(len(VOCAB)))
    assert all(ID[str(x)] == ID["0"] + x for x in range(MAX_RESULT + 1))


def test_the_tokens_of_a_problem():
    """The example of the numbers game, written out."""
    assert [VOCAB[token] for token in encode("2,5,8,12=27:")] == [
        "2", ",", "5", ",", "8", ",", "12", "=", "27", ":",
    ]  # fmt: skip
    assert [VOCAB[token] for token in encode("12-8=4")] == ["12", "-", "8", "=", "4"]


def test_whole_answers_are_kept(chains):
    """A cut-off answer, or text that is none, would be padded with something."""
    rows = np.arange(3)
    wanted = encode_chains(chains, rows[:, None])[:, :-1]
    texts = ["".join(VOCAB[token] for token in row) for row in wanted]
    found = encode_whole([texts[0], texts[1][:-1] + "0" * 9, texts[1], "12", texts[2]])
    np.testing.assert_array_equal(found, wanted)
    with pytest.raises(ValueError, match="found none"):
        encode_whole(["12", texts[0] + ",1"])


def test_answers_of_several_tries_are_kept(chains):
    """Long answers would not count, or those that were cut off would."""
    rows = [np.array([[0]]), np.array([[4, 1], [2, 3]]), np.array([[1, 2, 3]])]
    wanted = [encode_chains(chains, some)[:, :-1] for some in rows]
    texts = ["".join(VOCAB[token] for token in row) for some in wanted for row in some]
    found = encode_by_tries([texts[3], texts[1], texts[1][:-4], *texts[::2]], 2)
    assert [some.shape[0] for some in found] == [1, 2]  # three tries are too many
    np.testing.assert_array_equal(found[0], wanted[0])
    np.testing.assert_array_equal(found[1], wanted[1])
