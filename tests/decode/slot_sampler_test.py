"""A slot draws what its own sampler draws, in one program for all of them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.benchmarks.calls import counted
from jaxmoe.decode.sampler import TokenSampler
from jaxmoe.decode.slot_sampler import (
    CANDIDATES,
    GREEDY,
    SamplerNumbers,
    SlotSampler,
    numbers_of,
)
from jaxmoe.random.keys import position_key, sample_keys

SAMPLERS = [
    TokenSampler(0),
    TokenSampler(1.0),
    TokenSampler(0.7, top_k=20, top_p=0.8),
    TokenSampler(1.3, top_p=0.98),
    TokenSampler(0.6, min_p=0.1),
    TokenSampler(2.0, top_k=1),
    TokenSampler(1.0, top_k=CANDIDATES),  # more than is looked at first
    TokenSampler(1.0, top_k=600, top_p=0.5, min_p=0.01),
    TokenSampler(1.5, top_p=0.0),
    TokenSampler(1.0, top_k=3, min_p=1.0),
]
S = 64
VOCABULARIES = (
    pytest.param(50, marks=pytest.mark.optimised(False)),
    pytest.param(CANDIDATES, marks=pytest.mark.slow),
    2000,
)


@pytest.fixture(autouse=True)
def _draws_may_be_repeated():
    """Tests draw again from equal keys, to compare."""
    with jax.debug_key_reuse(False):
        yield


def _logits(vocab: int) -> jax.Array:
    """[S, V], some of them unlike any that a healthy model gives."""
    rows = np.random.default_rng(vocab).normal(size=(S, vocab)) * 3
    rows[3] = np.round(rows[3])  # ties, 0.0 and -0.0
    rows[7, 5:] = -np.inf
    rows[11, 20:40] = 9  # tied; past its candidates a sampler sees no ties
    rows[13, 4] = np.nan
    rows[17, 9] = np.inf
    return jnp.asarray(rows, jnp.float32)


def _keys() -> jax.Array:
    keys = sample_keys(jax.random.key(5), S)
    return jax.vmap(lambda k: position_key(k, 9))(keys)


def _filled(samplers: list[TokenSampler], vocab: int) -> SlotSampler:
    rows = [numbers_of(samplers[s % len(samplers)].resolve(vocab)) for s in range(S)]
    return SlotSampler(SamplerNumbers(*(np.stack(c) for c in zip(*rows, strict=True))))


@jax.jit
def _draw_each(sampler, keys, logits):
    return sampler.draw_each(keys, logits)


@jax.jit
def _draw_alike(sampler, keys, logits):
    return jax.vmap(sampler.draw)(keys, logits)


@pytest.mark.thorough
@pytest.mark.parametrize("vocab", VOCABULARIES)
@pytest.mark.optimised
def test_each_slot_draws_as_its_own_sampler(vocab):
    """What other slots hold must have no say, and no filter be lost."""
    logits, keys = _logits(vocab), _keys()
    mixed = np.asarray(_draw_each(_filled(SAMPLERS, vocab), keys, logits))
    for i, sampler in enumerate(SAMPLERS):
        rows = np.arange(i, S, len(SAMPLERS))
        alike = np.asarray(_draw_each(_filled([sampler], vocab), keys, logits))
        np.testing.assert_array_equal(mixed[rows], alike[rows])
        own = _draw_alike(sampler.resolve(vocab), keys, logits)
        np.testing.assert_array_equal(alike, np.asarray(own), err_msg=repr(sampler))
    assert ((mixed >= 0) & (mixed < vocab)).all()


@pytest.mark.thorough
@pytest.mark.optimised
def test_all_samplers_share_one_program():
    """Each new request would compile the decode step again."""
    logits, keys = _logits(2000), _keys()
    each = [_filled([sampler], 2000) for sampler in SAMPLERS]
    _draw_each(SlotSampler.empty(S), keys, logits)
    with counted() as compiled:
        for sampler in each:
            _draw_each(sampler, keys, logits)
    assert not compiled


@pytest.mark.optimised
def test_empty_slots_draw_nothing():
    """A slot at rest would cost others a look, or an answer be taken for none."""
    found = _draw_each(SlotSampler.empty(S), _keys(), _logits(2000))
    assert not np.asarray(found).any()
    of_answers = [numbers_of(s.resolve(2000)).candidates for s in SAMPLERS]
    assert GREEDY.candidates not in of_answers
