import re
from dataclasses import replace

import jax
import numpy as np
import pytest

import jaxmoe
from jaxmoe.decode.loglikelihood import rolling_windows
from jaxmoe.decode.score_inputs import encode_pair
from jaxmoe.decode.scoring import ROWS, Whole, score_whole
from jaxmoe.router.policies import for_model
from jaxmoe.text.tokenizer import Tokenizer
from tests.tiny import SHAPES, VOCAB, prompt_of, tiny_model

pytestmark = pytest.mark.thorough

NOISY = jaxmoe.ExpertSample(k_keep=1)
KEY = jaxmoe.keys.sample_key(jax.random.key(3), 0)
# One token; two that share a context; another; one long beside its context.
PAIRS = [
    (prompt_of(16, 1), prompt_of(1, 5)),
    (prompt_of(16, 1), prompt_of(4, 6)),
    (prompt_of(15, 2), prompt_of(6, 7)),
    (prompt_of(5, 3), prompt_of(40, 8)),
]


@pytest.fixture(scope="module")
def model():
    """Float32, without a tokenizer."""
    return tiny_model()


def score(model, pairs, batch=4, **options):
    """Results under one program, whatever is tested."""
    options = {"policy": NOISY, "key": KEY, "top_logprobs": 3} | options
    return jaxmoe.loglikelihood(model, pairs, batch=batch, **options)


def reference(model, pair, noise_from=None):
    """float32 [T, V] log-probabilities at each position, from `forward`."""
    both = np.concatenate(pair)
    logits = jaxmoe.forward(
        model,
        both,
        policy=NOISY,
        key=KEY,
        noise_from=len(pair[0]) if noise_from is None else noise_from,
    )
    return np.asarray(jax.nn.log_softmax(logits)), both


@pytest.mark.parametrize(
    ("pairs", "options"), [(PAIRS, {}), (PAIRS[1:], {"prompt_logprobs": True})]
)
def test_scores_are_those_of_forward(model, pairs, options):
    """A likelihood would be another model's."""
    found = score(model, pairs, **options)
    for pair, one in zip(pairs, found, strict=True):
        every, both = reference(model, pair)
        start = len(pair[0]) - 1
        here, target = every[start:-1], pair[1]
        chosen = here[np.arange(len(target)), target]
        np.testing.assert_array_equal(one.tokens, target)
        np.testing.assert_allclose(one.logprobs, chosen, atol=3e-5)
        assert one.sum == pytest.approx(chosen.sum(), abs=1e-3)
        assert one.is_greedy == (here.argmax(axis=1) == target).all()
        rank = 1 + (here > chosen[:, None]).sum(axis=1)
        np.testing.assert_array_equal(one.ranks, rank)
        np.testing.assert_array_equal(one.top_ids, (-here).argsort(axis=1)[:, :3])
        np.testing.assert_allclose(
            one.top_logprobs, -np.sort(-here, axis=1)[:, :3], atol=3e-5
        )
        if options:
            before = every[np.arange(start), both[1 : start + 1]]
            np.testing.assert_allclose(one.prompt.logprobs, before, atol=3e-5)
            assert one.prompt.top_ids.shape == (start, 3)


def test_noise_reaches_the_context_where_asked_for(model):
    """A choice of one token would never see the policy."""
    pair = prompt_of(20, 1), prompt_of(1, 5)
    (one,) = score(model, [pair], noisy_prefill=True)
    noisy, plain = (reference(model, pair, noise_from=t)[0] for t in (0, 20))
    assert one.sum == pytest.approx(noisy[-2, pair[1][0]], abs=3e-5)
    assert abs(one.sum - plain[-2, pair[1][0]]) > 1e-3


def test_a_pair_does_not_depend_on_the_others(model):
    """Its result would change with the batch it is in."""
    together = score(model, PAIRS)
    mixed = score(model, [*PAIRS[::-1], PAIRS[1]])[:4][::-1]
    alone = [score(model, [pair])[0] for pair in PAIRS]
    for one, other, third in zip(together, mixed, alone, strict=True):
        np.testing.assert_array_equal(one.logprobs, other.logprobs)
        np.testing.assert_array_equal(one.logprobs, third.logprobs)


@pytest.mark.slow
def test_batches_change_no_more_than_rounding(model):
    """Results would be a matter of memory."""
    for batch in (1, 2, 8):
        pairs = zip(score(model, PAIRS), score(model, PAIRS, batch), strict=True)
        for one, other in pairs:
            np.testing.assert_allclose(one.logprobs, other.logprobs, atol=3e-5)


def test_an_answer_has_the_likelihood_it_was_drawn_with(model):
    """The same key would stand for other noise here than in `sample`."""
    prompt, key = prompt_of(16, 1), jax.random.key(5)
    out = jaxmoe.sample(model, prompt, key=key, n=4, policy=NOISY, **SHAPES)
    answers = [
        row[:length] for row, length in zip(out.tokens, out.lengths, strict=True)
    ]
    keys = [jaxmoe.keys.sample_key(key, i) for i in range(4)]
    found = score(model, [(prompt, answer) for answer in answers], key=keys)
    for one, drawn, length in zip(found, out.logprobs, out.lengths, strict=True):
        np.testing.assert_allclose(one.logprobs, drawn[:length], atol=1e-4)


@pytest.mark.usefixtures("untyped")
def test_no_array_of_all_logits_exists(model):
    """A prompt of 1024 tokens would need 622 MB at a vocabulary of 151936."""
    size = 2 * ROWS
    rows, none = np.zeros((1, size), np.int32), np.zeros(1, np.int32)
    given = Whole(rows, rows, none + size, none, np.zeros((1, 2), np.uint32), none)
    lowered = score_whole.lower(
        model.config,
        model.params,
        given,
        for_model(jaxmoe.TopK(), model.config),
        execution=model.execution,
    ).as_text()
    assert f"{ROWS}x{VOCAB}xf32" in lowered
    assert f"{size}x{VOCAB}xf32" not in lowered
    assert f"1x{size}x{VOCAB}xf32" not in lowered


def test_windows_cover_a_text_once(model):
    """Tokens would count twice, or see less than fits."""
    windows = list(rolling_windows(np.array([5, 6, 7, 8, 9]), 0, 2))
    found = [(list(before), list(after)) for before, after in windows]
    assert found == [([0], [5, 6]), ([6], [7, 8]), ([7, 8], [9])]
    text = prompt_of(20, 4)
    (whole,) = jaxmoe.loglikelihood_rolling(
        model, [text], max_length=8, policy=NOISY, key=KEY, top_logprobs=3, batch=4
    )
    parts = score(model, [*rolling_windows(text, model.config.stop_ids[0], 8)])
    assert len(parts) == 3
    np.testing.assert_array_equal(whole.tokens, text)
    assert whole.sum == pytest.approx(sum(part.sum for part in parts))


class Characters(Tokenizer):
    """Begins with 1; a space and what follows it are one token."""

    bos_id, eos_id = 1, 2  # type: ignore[assignment]

    def __init__(self):
        pass

    def encode(self, text, add_special_tokens=True):
        ids = [ord(part[-1]) + 99 * (len(part) - 1) for part in re.findall(" ?.", text)]
        return [self.bos_id] * add_special_tokens + ids


def test_spaces_at_the_border_belong_to_the_continuation(model):
    """Choices would be scored in pieces that no text is encoded in."""
    model = replace(model, tokenizer=Characters())
    ids = lambda *pair: [part.tolist() for part in encode_pair(model, *pair)]  # noqa: E731
    assert ids("ab ", "c") == ids("ab", " c") == [[1, 97, 98], [99 + 99]]
    assert ids("", "c") == ids(None, "c") == [[1], [99]]
    assert ids("ab", [5]) == [[1, 97, 98], [5]]
    assert ids([5, 6], "c") == [[5, 6], [99]]
    assert ids("\x01ab", "c") == [[1, 97, 98], [99]]  # it stands there already
    assert ids(" ", "c") == [[1], [99 + 99]]


@pytest.mark.usefixtures("untyped")
@pytest.mark.parametrize(
    ("pairs", "options", "named"),
    [
        ([([8], [])], {}, "continuation"),
        ([([8], [VOCAB])], {}, str(VOCAB)),
        ([([8] * 4097, [9])], {}, "4097"),
        ([[8]], {}, "continuation"),
        ([([8], [9])], {"policy": NOISY}, "key"),
        ([([8], [9])], {"policy": NOISY, "key": [1, 2]}, "2"),
        ([("text", [9])], {}, "tokenizer"),
        ([([8], [9])], {"top_logprobs": -1}, "top_logprobs"),
    ],
)
def test_bad_input_is_refused(model, pairs, options, named):
    """It would be scored as something else."""
    with pytest.raises((TypeError, ValueError), match=named):
        jaxmoe.loglikelihood(model, pairs, **options)
