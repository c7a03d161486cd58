"""Attention in chunks against a plain softmax in float64."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.cache import CHUNK
from jaxmoe.grouping import cut_blocks
from jaxmoe.nn.attend import QKV, attend_causal, attend_prefix, attend_suffix

H, G, A = 4, 2, 8


def _normal(*shape, seed=0):
    values = np.random.default_rng(seed).normal(size=shape)
    return jnp.asarray(values, jnp.float32)


def _plain(q, k, v, position, window=None):
    """One query [H, A] at `position` over keys [T, G, A] at 0..T-1, in float64."""
    q, k, v = (np.asarray(a, np.float64) for a in (q, k, v))
    place = np.arange(k.shape[0])
    seen = place <= position
    if window is not None:
        seen &= place > position - window
    out = np.zeros_like(q)
    for h in range(H):
        g = h // (H // G)
        scores = k[seen, g] @ q[h] / np.sqrt(A)
        weights = np.exp(scores - scores.max())
        out[h] = weights @ v[seen, g] / weights.sum()
    return out


def _close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)


# -- within one sequence -------------------------------------------------------------

_causal = jax.jit(attend_causal, static_argnames="window")


@pytest.mark.parametrize("tokens", [1, 16, 128, 256, 384])
@pytest.mark.parametrize("window", [None, 5, 200])
def test_causal_is_a_plain_softmax(tokens, window):
    """Masks and running sums at every chunk's border."""
    q = _normal(tokens, H, A) * 3
    k, v = _normal(tokens, G, A, seed=1), _normal(tokens, G, A, seed=2)
    found = _causal(QKV(q, k, v), window=window)
    borders = {0, 1, tokens // 2, tokens - 1} | {c * CHUNK for c in range(3)}
    for t in {t + d for t in borders for d in (-1, 0)} & set(range(tokens)):
        _close(found[t], _plain(q[t], k, v, t, window))


def test_causal_does_not_look_ahead():
    """A later token, even a broken one, must not change earlier rows by a bit."""
    q, k, v = _normal(256, H, A), _normal(256, G, A), _normal(256, G, A, seed=2)
    found = _causal(QKV(q, k, v), window=None)
    later = jnp.arange(256)[:, None, None] >= 200
    changed = [jnp.where(later, 1e4, a) for a in (q, k, v)]
    again = _causal(QKV(*changed), window=None)
    np.testing.assert_array_equal(again[:200], found[:200])


def test_large_scores_do_not_overflow():
    """Without the running maximum, exp overflows at scores near 90."""
    q, k, v = _normal(256, H, A) * 300, _normal(256, G, A), _normal(256, G, A, seed=2)
    found = _causal(QKV(q, k, v), window=None)
    for t in (0, 130, 255):
        np.testing.assert_allclose(found[t], _plain(q[t], k, v, t), atol=2e-3)


# -- prefix and suffix ---------------------------------------------------------------

LENGTHS = [5, 128, 300]  # of three prompts
PROMPT = [2, 0, 1, 0, 2, 2, 0]  # of each slot
OWN = [0, 1, 127, 128, 129, 200, 3]  # positions that a slot has before the last


@partial(jax.jit, static_argnames=("block", "window"))
def _decode(q, prefix, suffix, length, prompt, own, block, window):
    """Prefix then suffix, as the step does it; block None: one prompt."""
    start = length[prompt]
    blocks = None if block is None else cut_blocks(prompt, length.shape[0], block)
    running = attend_prefix(
        q,
        *prefix,
        length=length,
        positions=start + own,
        blocks=blocks,
        block=block or 1,
        window=window,
    )
    return attend_suffix(
        running,
        q,
        *suffix,
        start=start,
        positions=start + own,
        longest=own.max() + 1,
        window=window,
    )


def _case(prompts=3, prefix_size=512, suffix_size=256, slots=7):
    """Slots of prompts whose caches are filled to the end, as if used before."""
    q = _normal(slots, H, A, seed=3) * 2
    prefix = tuple(_normal(prompts, G, 512, A, seed=s) for s in (4, 5))
    suffix = tuple(_normal(slots, G, 256, A, seed=s) for s in (6, 7))
    grow = lambda a, size: jnp.pad(  # noqa: E731
        a, ((0, 0), (0, 0), (0, size - a.shape[2]), (0, 0)), constant_values=3.0
    )
    prefix = tuple(grow(a, prefix_size) for a in prefix)
    return q, prefix, tuple(grow(a, suffix_size) for a in suffix)


def _expected(case, length, prompt, own, slot, window):
    q, prefix, suffix = case
    first = length[prompt[slot]]
    joined = [
        np.concatenate([p[prompt[slot], :, :first], s[slot, :, : own[slot] + 1]], 1)
        for p, s in zip(prefix, suffix, strict=True)
    ]
    k, v = (a.swapaxes(0, 1) for a in joined)
    return _plain(q[slot], k, v, first + own[slot], window)


@pytest.mark.parametrize(
    ("block", "window"), [(1, 3), (2, 150), (8, None), (8, 150), (8, 1000)]
)
def test_prefix_and_suffix_are_one_softmax(block, window):
    """Several prompts and slots, at chunk borders, against all keys side by side."""
    case = _case()
    numbers = [jnp.asarray(a) for a in (LENGTHS, PROMPT, OWN)]
    found = _decode(*case, *numbers, block, window)
    for slot in range(len(PROMPT)):
        _close(found[slot], _expected(case, LENGTHS, PROMPT, OWN, slot, window))


@pytest.mark.parametrize("length", [1, 127, 128, 129, 512])
@pytest.mark.parametrize("window", [None, 100])
def test_one_prompt_needs_no_blocks(length, window):
    """The path of one prompt, all slots in one product."""
    case = _case(prompts=1)
    numbers = [jnp.asarray(a) for a in ([length], [0] * 7, OWN)]
    found = _decode(*case, *numbers, None, window)
    for slot in range(len(PROMPT)):
        _close(found[slot], _expected(case, [length], [0] * 7, OWN, slot, window))


@pytest.mark.parametrize("block", [None, 8])
def test_allocated_size_does_not_show(block):
    """Growing a cache to its next bucket must not change a bit (promise 2)."""
    one = (1, [100], [0] * 7)
    prompts, lengths, prompt = (3, [5, 100, 128], PROMPT) if block else one
    own = [0, 1, 5, 100, 127, 20, 3]
    numbers = [jnp.asarray(a) for a in (lengths, prompt, own)]
    large = _case(prompts, 1024, 1024)
    cut = lambda arrays: tuple(a[:, :, :128] for a in arrays)  # noqa: E731
    small = (large[0], cut(large[1]), cut(large[2]))
    np.testing.assert_array_equal(
        _decode(*small, *numbers, block, None), _decode(*large, *numbers, block, None)
    )


@pytest.mark.parametrize("block", [None, 8])
def test_a_slot_does_not_feel_the_others(block):
    """Other samples' queries, caches and lengths must not change a bit (promise 2)."""
    prompts, lengths = (1, [200]) if block is None else (3, LENGTHS)
    prompt = np.zeros(7, int) if block is None else np.array(PROMPT)
    q, prefix, suffix = _case(prompts)
    own = np.array(OWN)
    found = _decode(
        q, prefix, suffix, *map(jnp.asarray, (lengths, prompt, own)), block, None
    )
    kept = 4
    others = np.arange(7) != kept
    hide = jnp.asarray(others)
    own[others] = [3, 255, 0, 9, 140, 2]
    if block is not None:
        prompt[others] = [0, 2, 1, 1, 1, 0]
    changed = _decode(
        jnp.where(hide[:, None, None], -q, q),
        prefix,
        tuple(jnp.where(hide[:, None, None, None], 7.0, a) for a in suffix),
        *map(jnp.asarray, (lengths, prompt, own)),
        block,
        None,
    )
    np.testing.assert_array_equal(changed[kept], found[kept])


@pytest.mark.parametrize("block", [None, 8])
def test_a_slot_does_not_feel_its_place(block):
    """A sample in another slot must keep its bits (promise 2)."""
    prompts, lengths = (1, [200]) if block is None else (3, LENGTHS)
    prompt = np.zeros(7, int) if block is None else np.array(PROMPT)
    q, prefix, suffix = _case(prompts)
    order = np.random.default_rng(0).permutation(7)
    run = lambda i: _decode(  # noqa: E731
        q[i],
        prefix,
        tuple(a[i] for a in suffix),
        *map(jnp.asarray, (lengths, prompt[i], np.array(OWN)[i])),
        block,
        None,
    )
    np.testing.assert_array_equal(run(order), run(np.arange(7))[order])


def test_an_empty_prefix_is_no_prefix():
    """`noisy_prefill` and slots without prompt attend over their own positions only."""
    case = _case(prompts=1)
    numbers = [jnp.asarray(a) for a in ([0], [0] * 7, OWN)]
    found = _decode(*case, *numbers, None, None)
    for slot in range(7):
        _close(found[slot], _expected(case, [0], [0] * 7, OWN, slot, None))
