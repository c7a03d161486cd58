"""Answers of samplers that adjust logits: from `sample`, `generate` and the engine."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoe
from jaxmoe import Engine, TokenSampler, TopK
from jaxmoe.benchmarks.calls import counted
from jaxmoe.decode.adjustments import Adjustments, History
from jaxmoe.decode.step import decode_segment
from tests.decode.adjusted import adjusted
from tests.tiny import STOP, answers, prompt_of, tiny_model

pytestmark = pytest.mark.thorough

EVERYTHING = TokenSampler(
    0.0,
    presence_penalty=0.6,
    frequency_penalty=0.4,
    repetition_penalty=1.3,
    logit_bias={20: 4.0, 21: 3.0, 50: -np.inf},
    min_tokens=9,
    bad_words=[[20, 21], [30]],
)
PROMPT = prompt_of(20)
SHARED = {"max_new_tokens": 14, "slots": 4, "policy": TopK()}
KEY = jax.random.key(1)


@pytest.fixture(scope="module")
def model() -> jaxmoe.Model:
    """One model, so that its programs are compiled once."""
    return tiny_model()


@pytest.fixture(scope="module")
def greedy(model) -> jaxmoe.Samples:
    """One answer with everything asked for."""
    return jaxmoe.sample(model, PROMPT, key=KEY, sampler=EVERYTHING, **SHARED)


def test_greedy_is_the_argmax_of_the_adjusted_logits(model, greedy):
    """Counts would lack the first token, or have the prompt's."""
    (answer,) = answers(greedy)
    logits = np.asarray(jaxmoe.forward(model, np.array([*PROMPT, *answer])))[
        len(PROMPT) - 1 :
    ]
    for step, token in enumerate(answer):
        z = adjusted(EVERYTHING, logits[step], PROMPT, answer[:step], (STOP,))
        assert token == z.argmax()
    assert len(answer) >= 9
    plain = logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)
    own = plain[np.arange(len(answer)), answer]
    np.testing.assert_allclose(greedy.logprobs[0], own, atol=1e-4)


@pytest.mark.slow
def test_generate_draws_the_same(model, greedy):
    """The pure function would forget the prompt, or the adjustments."""
    drawn = jaxmoe.generate(
        model.config,
        model.params,
        jnp.asarray([*PROMPT, 0, 0, 0], jnp.int32),
        len(PROMPT),
        jaxmoe.keys.sample_keys(KEY, 2),
        policy=TopK(),
        sampler=EVERYTHING,
        max_new_tokens=14,
        execution=model.execution,
    )
    for row in range(2):  # greedy: alike for every key
        count = int(drawn.count[row])
        assert drawn.tokens[row, :count].tolist() == answers(greedy)[0]


REQUESTS = [
    (TokenSampler(0.9, top_k=30), 12),
    (TokenSampler(1.2, repetition_penalty=1.5, frequency_penalty=0.5), 9),
    (TokenSampler(0.8, top_p=0.9), 14),
    (TokenSampler(1.0, presence_penalty=2.0, bad_words=[[9], [10, 11]]), 5),
    (TokenSampler(0.7, logit_bias={STOP: 9.0}, min_tokens=4), 13),
    (TokenSampler(0.0, logit_bias={33: 50.0}), 8),
    (TokenSampler(0), 3),
    (TokenSampler(1.1, frequency_penalty=-2.0), 7),
    (TokenSampler(0.9), 10),
    (TokenSampler(1.0, repetition_penalty=0.7), 11),
    (TokenSampler(1.0, min_p=0.1, bad_words=[[9, 9]]), 6),
]
"""More than there are slots, so that slots are used again."""


def _run(model: jaxmoe.Model, chosen: list[int]) -> dict[int, tuple]:
    """Tokens, log-probabilities and ending of some of the requests, run together."""
    parts: dict[int, list[jaxmoe.Delta]] = {}
    with Engine(model, slots=8, segment=8, prompts=4) as engine:
        for number in chosen:
            sampler, most = REQUESTS[number]
            engine.submit(
                prompt_of(6 + number, number),
                key=jax.random.key(number),
                samples=[number],
                policy=TopK(),
                sampler=sampler,
                max_new_tokens=most,
            )
        while engine.busy:
            for delta in engine.step():
                parts.setdefault(delta.sample, []).append(delta)
    return {
        number: (
            np.concatenate([d.tokens for d in found]).tolist(),
            np.concatenate([d.logprobs for d in found]).tolist(),
            found[-1].finish,
        )
        for number, found in parts.items()
    }


def test_an_answer_is_its_requests_alone(model):
    """A neighbour's penalties would reach an answer, or a refilled slot keep them."""
    everyone = [*range(len(REQUESTS))]
    together = _run(model, everyone)
    assert together == _run(model, everyone[::-1])
    for number in (0, 1, 3, 6):  # two without adjustments
        assert _run(model, [number])[number] == together[number]
    tokens = {number: found[0] for number, found in together.items()}
    assert tokens[4].index(STOP) == 4 == len(tokens[4]) - 1
    assert tokens[5] == [33] * 8
    assert len(set(tokens[1])) > len(tokens[1]) // 2 and 9 not in tokens[3]


def test_what_nobody_asks_for_costs_nothing(model):
    """Programs without adjustments would change, or be compiled again."""
    _run(model, [0, 1])
    with counted() as compiled:
        _run(model, [*range(len(REQUESTS))])
    assert not compiled


def _lowered(model: jaxmoe.Model, sampler: TokenSampler, monkeypatch) -> str:
    """The step's program as an engine calls it first."""
    found: list[str] = []

    def lower(*args, **kwargs):
        found.append(decode_segment.lower(*args, **kwargs).as_text())
        raise InterruptedError

    monkeypatch.setattr("jaxmoe.decode.engine.decode_segment", lower)
    with pytest.raises(InterruptedError):
        jaxmoe.sample(model, PROMPT, key=KEY, sampler=sampler, **SHARED)
    return found[0]


def test_neutral_values_lower_to_the_same_program(model, monkeypatch):
    """Who asks for nothing would pay for what he does not use."""
    neutral = TokenSampler(0.9, presence_penalty=0.0, repetition_penalty=1.0)
    plain = _lowered(model, TokenSampler(0.9), monkeypatch)
    assert _lowered(model, neutral, monkeypatch) == plain
    asked = _lowered(model, TokenSampler(0.9, presence_penalty=0.1), monkeypatch)
    inputs = [text.partition(") -> ")[0].count("%arg") for text in (plain, asked)]
    assert inputs[1] == inputs[0] + len(Adjustments._fields) + len(History._fields)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"sampler": TokenSampler(min_tokens=15)}, r"max_new_tokens = 14, found 15"),
        ({"sampler": TokenSampler(bad_words=["x"])}, "tokenizer"),
        ({"ignore_eos": 1}, "ignore_eos.*True or False"),
        ({"presence_penalty": 1.0}, r"TokenSampler\(presence_penalty"),
    ],
    ids=str,
)
@pytest.mark.usefixtures("untyped")
def test_what_does_not_fit_is_refused(model, options, said):
    """It would be passed over in silence."""
    with pytest.raises((TypeError, ValueError), match=said):
        jaxmoe.sample(model, PROMPT, key=KEY, **{**SHARED, **options})


def test_ignore_eos_goes_on(model):
    """An answer would end at the model's own stop token."""
    likely = TokenSampler(0.0, logit_bias={STOP: 50.0})
    once = jaxmoe.sample(model, PROMPT, key=KEY, sampler=likely, **SHARED)
    assert answers(once) == [[STOP]] and once.finish == ("stop",)
    options = {"sampler": likely, "ignore_eos": True}
    more = jaxmoe.sample(model, PROMPT, key=KEY, **SHARED, **options)
    assert answers(more) == [[STOP] * 14] and more.finish == ("length",)
