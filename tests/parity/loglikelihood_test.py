"""Log-likelihoods of transformers and jaxmoe, in batches of 64."""

import numpy as np
import pytest

import jaxmoe
from jaxmoe.checkpoints.bundled import BUNDLED

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")


def theirs(pairs):
    """Log-probabilities of each continuation, and whether greedy decoding gives it."""
    model = transformers.AutoModelForCausalLM.from_pretrained(
        BUNDLED["demo"], dtype=torch.float32
    ).eval()
    ids = np.zeros((len(pairs), max(len(a) + len(b) for a, b in pairs)), np.int64)
    for row, pair in zip(ids, pairs, strict=True):
        both = np.concatenate(pair)
        row[: len(both)] = both
    with torch.no_grad():
        every = torch.log_softmax(model(torch.from_numpy(ids)).logits, -1).numpy()
    for row, (before, after) in zip(every, pairs, strict=True):
        here = row[len(before) - 1 : len(before) + len(after) - 1]
        yield here[np.arange(len(after)), after], (here.argmax(-1) == after).all()


def test_likelihoods_are_those_of_transformers():
    """A benchmark's score would be another model's."""
    rng, model = np.random.default_rng(0), jaxmoe.load("demo")
    draw = lambda size: rng.integers(1, model.config.vocab_size, size)  # noqa: E731
    contexts = [draw(size) for size in rng.integers(1, 100, 16)]
    pairs = [(c, draw(size)) for c in contexts for size in (1, 3, 6)]
    pairs += [(c, draw(40)) for c in contexts]
    found = jaxmoe.loglikelihood(model, pairs)
    assert len(found) == 64
    for one, (logprobs, greedy) in zip(found, theirs(pairs), strict=True):
        np.testing.assert_allclose(one.logprobs, logprobs, atol=2e-4)
        assert one.is_greedy == greedy
