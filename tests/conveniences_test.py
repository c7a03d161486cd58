"""What people try who come from elsewhere works, or says what to write."""

import jax
import numpy as np
import pytest

import jaxmoe
from jaxmoe import TokenSampler
from jaxmoe.random.keys import as_key
from jaxmoe.text import Tokenizer
from tests.tiny import SHAPES, VOCAB, prompt_of, tiny_model

pytestmark = [pytest.mark.usefixtures("untyped"), pytest.mark.thorough]
OPTIONS = {"n": 3, **SHAPES, "max_new_tokens": 6, "top_logprobs": 2}


class Words(Tokenizer):
    """A tokenizer of one word a token, with a chat template."""

    special_ids = frozenset()

    def __init__(self):
        """Without files."""

    def encode(self, text: str) -> list[int]:
        """A word's number is its length."""
        return [len(word) for word in text.split()]

    def decode(self, ids) -> str:
        """Every id is written out."""
        assert isinstance(ids, list)
        return " ".join(map(str, ids))

    def chat(self, messages, **_) -> list[int]:
        """All contents."""
        return self.encode(" ".join(m["content"] for m in messages))

    def check_stops(self, stops) -> None:
        """Any stop can be met."""

    def token_to_id(self, token: str) -> None:
        """There are no special tokens."""


@pytest.fixture(scope="module")
def model():
    """A tiny model that has text."""
    plain = tiny_model()
    return jaxmoe.Model(plain.config, plain.params, Words())


@pytest.fixture(scope="module")
def out(model):
    """Three answers."""
    return jaxmoe.sample(model, "a bb ccc", key=5, **OPTIONS)


def test_a_seed_is_a_key(model, out):
    """Every other library takes one."""
    same = jaxmoe.sample(model, "a bb ccc", key=jax.random.key(5), **OPTIONS)
    np.testing.assert_array_equal(same.tokens, out.tokens)
    many = jaxmoe.sample(model, ["a", "bb"], key=[np.int64(5), 6], **OPTIONS)
    alone = jaxmoe.sample(model, "bb", key=6, **OPTIONS)
    assert [a.tolist() for a in many[1].tokens] == [a.tolist() for a in alone.tokens]
    jaxmoe.forward(model, "a bb", policy=jaxmoe.ExpertSample(), key=3)


@pytest.mark.parametrize("seed", [-1, 1 << 32, 1 << 70])
def test_a_seed_that_jax_would_cut_is_refused(seed):
    """2**40 would draw what 0 draws."""
    with pytest.raises(ValueError, match=f"found {seed};"):
        as_key(seed)


@pytest.mark.parametrize("key", [True, 0.5, "0", None])
def test_what_is_no_seed_is_refused(key):
    """True is an int to Python."""
    with pytest.raises(TypeError, match="typed PRNG key"):
        as_key(key)


def test_a_chat_is_a_prompt(model, out):
    """Its template would have to be applied by hand."""
    chat = [{"role": "user", "content": "a bb"}, {"role": "user", "content": "ccc"}]
    one = jaxmoe.sample(model, chat, key=5, **OPTIONS)
    np.testing.assert_array_equal(one.tokens, out.tokens)
    several = jaxmoe.sample(model, [chat, "bb"], key=[5, 5], **OPTIONS)
    assert [a.finish for a in several[0]] == list(out.finish)
    assert jaxmoe.forward(model, chat).shape == (3, VOCAB)


def test_no_stop_is_none(model, out):
    """OpenAI's and vLLM's way to say so."""
    same = jaxmoe.sample(model, "a bb ccc", key=5, stop=None, **OPTIONS)
    np.testing.assert_array_equal(same.tokens, out.tokens)


@pytest.mark.parametrize("top_k", [None, 0, -1])
def test_no_top_k(top_k):
    """vLLM and SGLang write -1."""
    assert TokenSampler(1.0, top_k=top_k).resolve(VOCAB).top_k is None
    with pytest.raises(ValueError, match="found -2"):
        TokenSampler(1.0, top_k=-2).resolve(VOCAB)


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("temperature", r"sampler=jaxmoe.TokenSampler\(temperature=...\)"),
        ("top_p", "TokenSampler"),
        ("tau", "ExpertSample"),
        ("seed", "pass key="),
        ("max_tokens", "pass max_new_tokens="),
        ("stop_id", "pass stop_ids="),
        ("num_return_sequences", "pass n="),
        ("zzz", "one of key, n, policy"),
    ],
)
def test_options_of_others_are_named(model, option, says):
    """An unexpected keyword argument says nothing of what is expected."""
    for call in (jaxmoe.sample, jaxmoe.stream):
        with pytest.raises(TypeError, match=says):
            call(model, [9], key=0, **{option: 1})


def test_a_prompt_of_a_list_is_named(model):
    """Of a thousand prompts one is empty."""
    with pytest.raises(ValueError, match="prompt 1 of the list: .*found none"):
        jaxmoe.sample(model, ["a", ""], key=0)
    with pytest.raises(ValueError, match=r"lone surrogate.*place 1;"):
        jaxmoe.sample(model, "a\ud83db", key=0)


def test_samples_are_a_sequence(out):
    """Answers would have to be cut to their lengths by hand."""
    assert len(out) == 3
    for i, one in enumerate(out):
        length = out.lengths[i]
        assert one.tokens.tolist() == out.tokens[i, :length].tolist()
        assert one.routes.shape[0] == one.top_ids.shape[0] == length
        assert (one.text, one.finish) == (out.text[i], out.finish[i])
        assert one.certainties is None
    assert out[-1].text == out[2].text
    with pytest.raises(IndexError, match="found 3"):
        out[3]


def test_samples_show_their_text(model, out):
    """A screen of numbers says little."""
    assert out.text[0][:8] in repr(out)
    bare = jaxmoe.Model(model.config, model.params)
    many = jaxmoe.sample(bare, prompt_of(4), key=0, **OPTIONS | {"n": 6})
    assert "and 2 more" in repr(many)


def test_decode_takes_many(model, out):
    """A list of answers is decoded in one call."""
    assert model.decode([3, 4]) == "3 4"
    assert model.decode(np.array([3, 4])) == "3 4"
    assert model.decode(out.tokens[:, :2]) == [
        " ".join(map(str, row)) for row in out.tokens[:, :2].tolist()
    ]
    assert model.decode([]) == ""


@pytest.mark.parametrize("mesh", [2, "2x2", (1, 2)])
def test_what_is_no_mesh_is_refused(mesh):
    """The error would be of an attribute."""
    with pytest.raises(TypeError, match="jax.make_mesh"):
        jaxmoe.load("demo", mesh=mesh)
