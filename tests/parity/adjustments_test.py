"""Adjusted logits against transformers' processors, where both mean the same."""

import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe import TokenSampler
from jaxmoe.decode.adjustment_table import alike
from jaxmoe.decode.adjustments import adjust

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
process = pytest.importorskip("transformers.generation.logits_process")
pytestmark = pytest.mark.parity

VOCAB, END = 60, 4
WORDS = [[50], [51, 52], [53, 51, 52]]
PROMPT = [1, 2, 3, 20, 21, 2]
SAMPLERS = [
    TokenSampler(repetition_penalty=1.4),
    TokenSampler(repetition_penalty=0.5),
    TokenSampler(logit_bias={2: 3.0, 30: -7.5}),
    TokenSampler(bad_words=WORDS),
    TokenSampler(min_tokens=6),
    TokenSampler(
        repetition_penalty=1.2,
        logit_bias={2: 3.0, 30: -7.5, END: 9.0},
        bad_words=WORDS,
        min_tokens=6,
    ),
]


def _theirs(sampler: TokenSampler, logits, prompt, answer) -> np.ndarray:
    """After the processors, in generate's order."""
    processors = process.LogitsProcessorList()
    if sampler.logit_bias:
        bias = {(token,): b for token, b in sampler.logit_bias.items()}
        processors.append(process.SequenceBiasLogitsProcessor(bias))
    if sampler.repetition_penalty:
        penalty = process.RepetitionPenaltyLogitsProcessor(sampler.repetition_penalty)
        processors.append(penalty)
    if sampler.bad_words:
        words = [list(word) for word in sampler.bad_words]
        processors.append(process.NoBadWordsLogitsProcessor(words, eos_token_id=[END]))
    if sampler.min_tokens:
        least = process.MinNewTokensLengthLogitsProcessor(
            len(prompt), sampler.min_tokens, END
        )
        processors.append(least)
    ids = torch.tensor([*prompt, *answer])[None]
    return processors(ids, torch.tensor(logits)[None])[0].numpy()


def _ours(sampler: TokenSampler, logits, prompt, answer) -> np.ndarray:
    ids = jnp.asarray(prompt, jnp.int32)
    rows, history = alike(sampler.resolve(VOCAB), [END], ids, slots=1, vocab=VOCAB)
    for token in answer:
        history = history.note(jnp.asarray([token]), jnp.ones(1, bool))
    drawn = jnp.asarray([len(answer)], jnp.int32)
    return np.asarray(adjust(jnp.asarray(logits)[None], rows, history, drawn)[0])


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_logits_are_those_of_transformers(sampler):
    """Answers at a model card's settings would follow another distribution."""
    random = np.random.default_rng(1)
    for length in (0, 1, 5, 6, 9):
        answer = random.integers(50, 54, length).tolist()
        logits = (random.normal(size=VOCAB) * 5).astype(np.float32)
        expected = _theirs(sampler, logits, PROMPT, answer)
        found = _ours(sampler, logits, PROMPT, answer)
        np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_bad_words_begin_in_the_answer():
    """As in vLLM; transformers looks for them over the prompt's end too, and the docs
    would be wrong if it did not."""
    sampler, logits = TokenSampler(bad_words=[[2, 7]]), np.zeros(VOCAB, np.float32)
    assert np.isfinite(_ours(sampler, logits, PROMPT, [])).all()
    assert not np.isfinite(_theirs(sampler, logits, PROMPT, [])[7])
    assert not np.isfinite(_ours(sampler, logits, PROMPT, [2])[7])
