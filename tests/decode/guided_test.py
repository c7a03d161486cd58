"""Answers that follow a grammar, beside others that follow none."""

import json
import re
import time
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np
import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers

import jaxmoe
from jaxmoe import Engine, TokenSampler, TopK
from jaxmoe.text import grammar
from jaxmoe.text.grammar import Grammar, mask_width
from jaxmoe.text.tokenizer import Tokenizer
from tests.tiny import STOP, VOCAB, prompt_of, tiny_config, tiny_params

pytest.importorskip("llguidance")
pytestmark = [pytest.mark.extras, pytest.mark.thorough]

END = "<|end|>"
SHARED = {"max_new_tokens": 24, "slots": 4, "policy": TopK()}
KEY = jax.random.key(3)
SCHEMA = {
    "type": "object",
    "properties": {"id": {"type": "integer"}, "ok": {"type": "boolean"}},
    "required": ["id", "ok"],
    "additionalProperties": False,
}


@pytest.fixture(scope="module")
def model() -> jaxmoe.Model:
    """A model whose tokens are printable characters, and one that ends an answer."""
    letters = [*map(chr, range(33, 127)), "\u0120", "\u010a"]  # space and line feed
    vocab = {
        letter: i for i, letter in enumerate([*letters[:STOP], END, *letters[STOP:]])
    }
    assert len(vocab) == VOCAB
    backend = Backend(models.BPE(vocab=vocab, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([END])
    config = tiny_config()
    return jaxmoe.Model(config, tiny_params(config), Tokenizer(backend))


def test_every_answer_follows_its_grammar(model):
    """A token would be drawn that the grammar does not allow, or the end be missed."""
    regex = r"(yes|no), -?[0-9]{1,3}\."
    sampler = TokenSampler(1.5, regex=regex)
    found = jaxmoe.sample(model, prompt_of(20), key=KEY, n=9, sampler=sampler, **SHARED)
    assert all(re.fullmatch(regex, text) for text in found.text), found.text
    assert len(set(found.text)) > 4 and set(found.finish) == {"stop"}
    for answer in found:
        logits = jaxmoe.forward(model, np.r_[prompt_of(20), answer.tokens])[19:-1]
        own = jax.nn.log_softmax(logits)[np.arange(len(answer.tokens)), answer.tokens]
        np.testing.assert_allclose(answer.logprobs, own, atol=1e-4)


def test_greedy_takes_the_best_of_what_is_allowed(model):
    """A mask would be shifted by a token, or come a step too late."""
    sampler = TokenSampler(0, regex="[a-m]{12}")
    found = jaxmoe.sample(model, prompt_of(20), key=KEY, sampler=sampler, **SHARED)
    ids = model.encode("abcdefghijklm")
    tokens = found.tokens[0, :12]
    logits = np.asarray(jaxmoe.forward(model, np.r_[prompt_of(20), tokens]))[19:-1]
    assert tokens.tolist() == [ids[best] for best in logits[:, ids].argmax(axis=1)]
    assert found.tokens[0, 12] == STOP and found.lengths[0] == 13


SAMPLERS = [
    TokenSampler(1.2, json_schema=SCHEMA),
    TokenSampler(0.9),
    TokenSampler(1.0, regex="[0-9]+", repetition_penalty=1.5),
    TokenSampler(0.9, top_k=20, presence_penalty=1.0),
    TokenSampler(1.0, regex="a{2}"),
]


def _run(model: jaxmoe.Model, chosen: list[int]) -> dict[tuple[int, int], tuple]:
    """Tokens, log-probabilities and endings of some of the samplers' answers."""
    parts: dict[tuple[int, int], list[jaxmoe.Delta]] = {}
    with Engine(model, slots=4) as engine:
        numbers = {}
        for number in chosen:
            ticket = engine.submit(
                prompt_of(20),
                key=jax.random.key(number),
                n=2,
                policy=TopK(),
                sampler=SAMPLERS[number],
                max_new_tokens=24,
            )
            numbers[ticket] = number
        while engine.busy:
            for delta in engine.step():
                answer = numbers[delta.ticket], delta.sample
                parts.setdefault(answer, []).append(delta)
    return {
        answer: (
            np.concatenate([d.tokens for d in found]).tolist(),
            np.concatenate([d.logprobs for d in found]).tolist(),
            found[-1].finish,
        )
        for answer, found in parts.items()
    }


# Each kind of company is a program of its own; adjusted_answers_test.py has none.
@pytest.mark.parametrize(
    "numbers", [(0, 2), pytest.param((1, 3, 4), marks=pytest.mark.slow)]
)
def test_an_answer_is_its_requests_alone(model, numbers):
    """A neighbour's grammar would reach an answer, or a slot keep its last one."""
    together = _run(model, [*range(len(SAMPLERS))])
    for number in numbers:
        alone = _run(model, [number])
        assert all(together[answer] == alone[answer] for answer in alone)
    for i in range(2):
        tokens, _, finish = together[0, i]
        text = model.decode(tokens)
        assert finish == "length" or set(json.loads(text)) == {"id", "ok"}
        assert model.decode(together[4, i][0]) == "aa"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"regex": "a(b"}, r"regex cannot be followed.*unclosed"),
        ({"json_schema": {"type": "nonsense"}}, "json_schema.*nonsense"),
        ({"json_schema": "{"}, "json_schema must be a JSON object"),
        ({"json_schema": "[1]"}, "json_schema must be a JSON object"),
        ({"json_schema": SCHEMA, "regex": "a"}, "must stand alone"),
        ({"regex": "a", "min_tokens": 3}, "must stand alone.*min_tokens"),
        ({"regex": "a", "logit_bias": {5: -np.inf}}, "must stand alone.*logit_bias"),
        ({"regex": 5}, "regex must be a string"),
        ({"regex": "漢"}, "regex cannot be followed.*no token"),
    ],
    ids=str,
)
@pytest.mark.usefixtures("untyped")
def test_what_cannot_be_followed_is_refused(model, given, said):
    """A slot would be left without any token to draw."""
    with pytest.raises((TypeError, ValueError), match=said):
        jaxmoe.sample(
            model, prompt_of(20), key=KEY, sampler=TokenSampler(**given), **SHARED
        )


def test_an_answer_that_cannot_go_on_is_cut_off_alone(model):
    """It would be taken for complete, or end the engine and all others with it."""
    stuck, free = TokenSampler(1.0, regex="a漢"), TokenSampler(1.0, regex="a{5}")
    with Engine(model, slots=4) as engine:
        options = {"key": KEY, "policy": TopK(), "max_new_tokens": 24}
        tickets = [
            engine.submit(prompt_of(20), sampler=sampler, n=1, **options)
            for sampler in (stuck, free)
        ]
        deltas = []
        while engine.busy:
            deltas += engine.step()
    found = {
        ticket: (
            "".join(
                model.decode(d.tokens.tolist()) for d in deltas if d.ticket is ticket
            ),
            [d.finish for d in deltas if d.ticket is ticket and d.finish],
        )
        for ticket in tickets
    }
    assert found[tickets[0]] == ("a", ["length"])
    assert found[tickets[1]] == ("aaaaa", ["stop"])


def test_a_token_that_is_not_allowed_ends_its_answer_alone(model):
    """NaN logits of one answer would end the engine."""
    one = Grammar(model.tokenizer, VOCAB, [STOP], regex="ab")
    guide, mask = one.begin(), np.zeros(mask_width(VOCAB), np.int32)
    assert guide.fill(mask)
    assert not guide.take(model.encode("b"))


def test_end_tokens_are_the_requests_own(model):
    """Each request with other end tokens would prepare the vocabulary anew."""
    (letter,) = model.encode("a")
    grammars = [
        Grammar(model.tokenizer, VOCAB, ends, regex="b|a")
        for ends in ([STOP], [letter, STOP], [STOP, letter], [letter])
    ]
    for one, ends in zip(grammars, ({STOP}, {letter, STOP}), strict=False):
        guide, mask = one.begin(), np.zeros(mask_width(VOCAB), np.int32)
        for text, allowed in (("b", {*model.encode("b")}), (None, ends)):
            assert guide.fill(mask)
            bits = np.unpackbits(mask.view(np.uint8), bitorder="little")
            extra = {letter} - ends if text else set()
            assert set(np.flatnonzero(bits).tolist()) == allowed | extra
            assert text is None or guide.take(model.encode(text))


def test_threads_prepare_a_vocabulary_once(model, monkeypatch):
    """One would find it gone that another has just put away, or wait for each anew."""
    prepared = []

    def slow(*given):
        prepared.append(given)
        time.sleep(0.01)

    monkeypatch.setattr(grammar, "_prepare", slow)
    tokenizer = Tokenizer(Backend.from_str(model.tokenizer.as_json()))
    with ThreadPoolExecutor(8) as pool:
        ends = [i % 2 for i in range(32)]
        list(pool.map(lambda end: grammar._words_of(tokenizer, VOCAB, end), ends))
    assert len(prepared) == 2


def test_a_tokenizer_that_cannot_be_followed_is_named():
    """The library's own message names nothing that a user knows."""
    words = Backend(models.WordLevel({END: 0, "a": 1}, unk_token=END))
    words.decoder = decoders.WordPiece()
    with pytest.raises(ValueError, match="ByteFallback.*or Fuse.*found.*WordPiece"):
        Grammar(Tokenizer(words), 2, [0], regex="a")


def test_tokens_that_are_joined_as_they_are_will_do():
    """The demo would be refused, or its tokens be taken for others."""
    tokenizer = jaxmoe.load("demo").require_tokenizer("a grammar")
    vocab = tokenizer.vocab_size
    guide = Grammar(tokenizer, vocab + 5, [0], regex=r"1[0-9]\+2=[0-9]{2}").begin()
    mask, text = np.zeros(mask_width(vocab + 5), np.int32), ""
    for allowed in ("1[0-9]?", r"\+", "2", "=", "[0-9]{1,2}"):
        assert guide.fill(mask)
        bits = np.unpackbits(mask.view(np.uint8), bitorder="little")
        ids = np.flatnonzero(bits).tolist()
        texts = [tokenizer.decode([i], skip_special_tokens=False) for i in range(vocab)]
        assert ids == [i for i, one in enumerate(texts) if re.fullmatch(allowed, one)]
        text += texts[ids[-1]]
        assert guide.take([ids[-1]])
    assert re.fullmatch(r"1[0-9]\+2=[0-9]{2}", text)
    assert guide.fill(mask) and mask[0] == 1 and not mask[1:].any()


def test_a_grammar_needs_an_end(model):
    """An answer that is complete could only go on."""
    options = {"sampler": TokenSampler(regex="a"), "ignore_eos": True, **SHARED}
    with pytest.raises(ValueError, match="a token that ends it"):
        jaxmoe.sample(model, prompt_of(20), key=KEY, **options)
