"""Kept tokens and their probabilities against transformers' logits warpers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.decode.sampler import TokenSampler

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
process = pytest.importorskip("transformers.generation.logits_process")
pytestmark = pytest.mark.parity

FILTERS = [
    {"top_k": 1},
    {"top_k": 20},
    {"top_k": 5000},
    {"top_p": 0.8},
    {"top_p": 0.1},
    {"top_p": 0.99},
    {"top_p": 0.0},
    {"min_p": 0.05},
    {"min_p": 1.0},
    {"top_k": 20, "top_p": 0.8, "temperature": 0.7},
    {"top_k": 50, "top_p": 0.98, "temperature": 1.3},
    {"top_k": 100, "top_p": 0.95, "min_p": 0.02, "temperature": 1.8},
]


def _theirs(logits, temperature=1.0, top_k=None, top_p=None, min_p=None):
    """Probabilities after the warpers, in generate's order."""
    warpers = process.LogitsProcessorList()
    warpers.append(process.TemperatureLogitsWarper(temperature))
    if top_k:
        warpers.append(process.TopKLogitsWarper(top_k))
    if top_p is not None:
        warpers.append(process.TopPLogitsWarper(top_p))
    if min_p:
        warpers.append(process.MinPLogitsWarper(min_p))
    # float64, so that a cumulative sum over a vocabulary keeps its digits.
    scores = warpers(None, torch.tensor(np.asarray(logits, np.float64))[None])
    return torch.softmax(scores, dim=-1)[0].numpy()


@jax.jit
def _kept(sampler, logits):
    scaled = (logits - logits.max()) / sampler.temperature
    weights = sampler.filtered(jnp.exp(scaled))
    return weights / weights.sum()


@jax.jit
def _draw(sampler, keys, logits):
    return jax.vmap(sampler.draw, (0, None))(keys, logits)


@pytest.mark.parametrize("filters", FILTERS, ids=str)
@pytest.mark.parametrize("size", [100, 151_936])
def test_kept_tokens_and_probabilities(filters, size):
    """Answers drawn at the paper's settings must come from the same distribution."""
    sampler = TokenSampler(**filters).resolve(size)
    for seed, scale in enumerate((1.0, 3.0, 8.0)):
        values = np.random.default_rng(seed).normal(size=size) * scale
        logits = jnp.asarray(values, jnp.float32)
        theirs, ours = _theirs(logits, **filters), np.asarray(_kept(sampler, logits))
        differ = (theirs > 0) != (ours > 0)
        # float32 may place tokens on the very border of top-p to its other side.
        assert theirs[differ].sum() + ours[differ].sum() < 2e-6
        assert differ.sum() <= (1e-4 * (theirs > 0).sum() if size > 100 else 0)
        np.testing.assert_allclose(ours[~differ], theirs[~differ], rtol=2e-4)


@pytest.mark.parametrize("size", [100, 151_936])
@pytest.mark.parametrize("filters", [f for f in FILTERS if "top_k" in f], ids=str)
def test_drawn_tokens_are_kept_tokens(filters, size):
    """The short way over a few candidates must stay within transformers' set."""
    values = np.random.default_rng(7).normal(size=size) * 3
    logits = jnp.asarray(values, jnp.float32)
    sampler = TokenSampler(**filters).resolve(size)
    keys = jax.random.split(jax.random.key(0), 64)
    tokens = _draw(sampler, keys, logits)
    assert (_theirs(logits, **filters)[np.asarray(tokens)] > 0).all()
