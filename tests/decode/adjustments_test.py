"""Penalties, biases and bans against NumPy, token by token."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe import TokenSampler
from jaxmoe.decode.adjustment_table import AdjustmentTable, Widths
from jaxmoe.decode.adjustments import History, adjust, forget, note_prompts
from tests.decode.adjusted import adjusted

VOCAB, STEPS = 40, 12
ENDS = (3, 9)
WORDS = [[5], [7, 8], [1, 2, 1], [6, 6, 6, 6, 2]]
SAMPLERS = [
    TokenSampler(),
    TokenSampler(presence_penalty=1.5),
    TokenSampler(frequency_penalty=-0.75),
    TokenSampler(repetition_penalty=1.7),
    TokenSampler(repetition_penalty=0.6),
    TokenSampler(logit_bias={0: 3.0, 39: -np.inf, 4: -100}),
    TokenSampler(min_tokens=5),
    TokenSampler(bad_words=WORDS),
    TokenSampler(
        presence_penalty=-2,
        frequency_penalty=2,
        repetition_penalty=1.3,
        logit_bias={1: 5.0, 2: 4.0, 3: 9.0},
        min_tokens=11,
        bad_words=WORDS,
    ),
    TokenSampler(),
]
S = len(SAMPLERS)


@jax.jit
def _step(logits, asked, history, drawn, tokens):
    found = adjust(logits, asked, history, drawn)
    return found, history.note(tokens, jnp.ones(S, bool))


def _prompts(random) -> list[np.ndarray]:
    """Of various lengths; none has the first or the last token."""
    return [random.integers(1, VOCAB - 1, 3 + 2 * s) for s in range(S)]


def _begun(prompts: list[np.ndarray], starts: int) -> History:
    """Slots that have had other answers before."""
    everyone = jnp.ones(S, bool)
    old = History.empty(S, VOCAB, starts).note(jnp.arange(S), everyone)
    old = note_prompts(old, jnp.arange(S)[:, None])
    rows = np.full((S, 32), -1, np.int32)
    for row, prompt in zip(rows, prompts, strict=True):
        row[: len(prompt)] = prompt
    return note_prompts(forget(old, everyone), jnp.asarray(rows))


def test_logits_are_those_of_numpy():
    """A penalty would count another token, twice, or of another slot or answer."""
    random = np.random.default_rng(0)
    table = AdjustmentTable(S)
    for slot, sampler in enumerate(SAMPLERS):
        table.set(slot, sampler.resolve(VOCAB), ENDS)
    prompts = _prompts(random)
    history = _begun(prompts, table.widths.starts)
    answers = np.zeros((S, 0), int)
    for step in range(STEPS):
        logits = random.normal(size=(S, VOCAB)).astype(np.float32) * 4
        tokens = random.integers(1, 9, S)  # few, so that they and words come again
        drawn = np.full(S, step, np.int32)
        found, history = _step(logits, table.rows, history, drawn, tokens)
        for slot, sampler in enumerate(SAMPLERS):
            own = prompts[slot].tolist(), answers[slot].tolist()
            expected = adjusted(sampler, logits[slot], *own, ENDS)
            np.testing.assert_allclose(found[slot], expected, rtol=1e-6, atol=1e-6)
            if not sampler.resolve(VOCAB).adjusts:
                assert np.array_equal(found[slot], logits[slot])
        answers = np.c_[answers, tokens]


def test_rows_grow_and_keep_what_they_hold():
    """A request with longer lists would change what other slots ask for."""
    table = AdjustmentTable(3)
    assert table.rows is None
    first = TokenSampler(logit_bias={5: 2.0}, bad_words=[[1, 2]], min_tokens=2)
    table.set(1, first.resolve(VOCAB), ENDS)
    assert table.rows is not None
    narrow = [np.array(column[1]) for column in table.rows]
    many = TokenSampler(
        logit_bias=dict.fromkeys(range(30), 1.0),
        bad_words=[[i, *range(8)] for i in range(20)],
        min_tokens=1,
    )
    table.set(2, many.resolve(VOCAB), range(12))
    assert table.widths == Widths(32, 16, 32, 8)
    for before, after in zip(narrow, (column[1] for column in table.rows), strict=True):
        kept = np.ravel(after)[np.ravel(after) != -1]
        np.testing.assert_array_equal(
            kept[kept != 0], before[(before != -1) & (before != 0)]
        )
    np.testing.assert_array_equal(table.rows.word_starts[1, 0, -1:], [1])
    table.set(1, None)
    assert table.rows is not None
    table.set(2, TokenSampler().resolve(VOCAB))
    assert table.rows is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"presence_penalty": 2.1}, r"presence_penalty.*-2\.\.2.*2\.1"),
        ({"frequency_penalty": float("nan")}, "frequency_penalty.*nan"),
        ({"repetition_penalty": 0}, "repetition_penalty.*above 0.*found 0"),
        ({"repetition_penalty": -1.0}, r"repetition_penalty.*above 0.*found -1"),
        ({"logit_bias": {VOCAB: 1.0}}, rf"logit_bias.*0\.\.{VOCAB - 1}.*{VOCAB}"),
        ({"logit_bias": {1: float("inf")}}, "logit_bias of 1.*inf"),
        ({"logit_bias": {1.5: 1.0}}, r"logit_bias.*1\.5"),
        ({"logit_bias": [1]}, "logit_bias.*mapping"),
        ({"min_tokens": -1}, "min_tokens.*-1"),
        ({"min_tokens": 1.5}, r"min_tokens.*1\.5"),
        ({"bad_words": [[1], []]}, "bad_words.*at least one"),
        ({"bad_words": [[-1]]}, "bad_words.*-1"),
        ({"bad_words": ["word"]}, "bad_words.*tokenizer.*word"),
        ({"bad_words": "word"}, "bad_words.*list"),
    ],
    ids=str,
)
def test_values_out_of_range_are_refused(given, said):
    """They would be drawn with, or fail far from where they were given."""
    with pytest.raises((TypeError, ValueError), match=said):
        TokenSampler(**given).resolve(VOCAB)


def test_what_asks_for_nothing_is_dropped():
    """Programs would have history and adjustments that change nothing."""
    neutral = TokenSampler(0.9, None, None, None, 0, 0.0, 1, {}, 0, ())
    assert neutral.resolve(VOCAB) == TokenSampler(0.9).resolve(VOCAB)
    assert not neutral.resolve(VOCAB).adjusts
    assert TokenSampler(min_tokens=1).resolve(VOCAB).adjusts


def test_runs_without_adjustments_keep_their_name():
    """A run drawn before there were such fields could not be gone on with."""
    plain = "TokenSampler(temperature=1.0, top_k=None, top_p=None, min_p=None, "
    assert repr(TokenSampler()) == plain + "candidates=None)"
    said = repr(TokenSampler(bad_words=[[1]], repetition_penalty=1.1))
    assert said == plain + ("repetition_penalty=1.1, bad_words=[[1]], candidates=None)")
