"""Attention, chunk by chunk and whole, against a plain softmax in float64."""

from functools import partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.ops.attention import FORMS, whole
from jaxmoe.ops.attention.chunked import CHUNK, QKV
from jaxmoe.ops.grouping import cut_blocks

H, G, A = 4, 2, 8
LOOPS, WHOLE = FORMS["chunked"], FORMS["whole"]
both_forms = pytest.mark.parametrize("form", [LOOPS, WHOLE], ids=["loops", "whole"])


def _for_forms(names, cases, whole):
    """Parametrise loops over all `cases`, and the whole form over those of `whole`."""
    # The first and the last repeat the others with other sizes.
    marks = {0: pytest.mark.slow, len(cases) - 1: pytest.mark.slow}
    cases = [
        pytest.param(LOOPS, *c, id="-".join(map(str, c)), marks=marks.get(i, ()))
        for i, c in enumerate(cases)
    ]
    cases += [
        pytest.param(WHOLE, *c, id="-".join(map(str, ("whole", *c)))) for c in whole
    ]
    return pytest.mark.parametrize(f"form, {names}", cases)


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


@partial(jax.jit, static_argnames=("form", "window"))
def _causal(form, qkv, *, window):
    return form.causal(qkv, window=window)


@_for_forms(
    "tokens, window",
    [*product([1, 16, 128, 256, 384], [None, 5, 200]), (768, None), (768, 200)],
    whole=[(1, None), (256, None), (384, 5), (384, 200)],
)
def test_causal_is_a_plain_softmax(form, tokens, window):
    """Masks and running sums at every chunk's border."""
    q = _normal(tokens, H, A) * 3
    k, v = _normal(tokens, G, A, seed=1), _normal(tokens, G, A, seed=2)
    found = _causal(form, QKV(q, k, v), window=window)
    borders = {0, 1, tokens // 2, tokens - 1} | {c * CHUNK for c in range(6)}
    for t in {t + d for t in borders for d in (-1, 0)} & set(range(tokens)):
        _close(found[t], _plain(q[t], k, v, t, window))


@both_forms
@pytest.mark.optimised
def test_causal_does_not_look_ahead(form):
    """A later token, even a broken one, must not change earlier rows by a bit."""
    q, k, v = _normal(256, H, A), _normal(256, G, A), _normal(256, G, A, seed=2)
    found = _causal(form, QKV(q, k, v), window=None)
    later = jnp.arange(256)[:, None, None] >= 200
    changed = [jnp.where(later, 1e4, a) for a in (q, k, v)]
    again = _causal(form, QKV(*changed), window=None)
    np.testing.assert_array_equal(again[:200], found[:200])


@both_forms
def test_large_scores_do_not_overflow(form):
    """Without the running maximum, exp overflows at scores near 90."""
    q, k, v = _normal(256, H, A) * 300, _normal(256, G, A), _normal(256, G, A, seed=2)
    found = _causal(form, QKV(q, k, v), window=None)
    for t in (0, 130, 255):
        np.testing.assert_allclose(found[t], _plain(q[t], k, v, t), atol=2e-3)


@pytest.mark.parametrize(("queries", "size"), [(0.1, 1), (100, 96), (1000, 384)])
def test_blocks_of_queries_are_equal(monkeypatch, queries, size):
    """A block that does not divide the sequence would lose its last queries."""
    monkeypatch.setattr(whole, "SCORES_AT_ONCE", int(queries * 384 * H))
    assert whole._queries_at_once(384, H) == size


def test_a_long_sequence_goes_by_blocks_of_queries(monkeypatch):
    """How much of a long prompt is held at a time must not show in its numbers."""
    q, k, v = (_normal(384, n, A, seed=seed) for seed, n in enumerate((H, G, G)))
    expected = _causal(WHOLE, QKV(q, k, v), window=200)
    monkeypatch.setattr(whole, "SCORES_AT_ONCE", 100 * 384 * H)
    anew = jax.jit(lambda qkv: WHOLE.causal(qkv, window=200))
    _close(anew(QKV(q, k, v)), expected)


# -- prefix and suffix ---------------------------------------------------------------

LENGTHS = [5, 128, 300]  # of three prompts
PROMPT = [2, 0, 1, 0, 2, 2, 0]  # of each slot
OWN = [0, 15, 16, 127, 128, 192, 3]  # positions that a slot has before the last


@partial(jax.jit, static_argnames=("form", "block", "window"))
def _decode(form, q, prefix, suffix, length, prompt, own, block, window):
    """Prefix then suffix, as the step does it; block None: one prompt."""
    blocks = None if block is None else cut_blocks(prompt, length.shape[0], block)
    args = (q, prefix, suffix, length, prompt, own, blocks)
    return _attend(form, *args, block=block, window=window)


def _attend(
    form,
    q,
    prefix,
    suffix,
    length,
    prompt,
    own,
    blocks,
    *,
    block,
    window,
    scale=None,
    sinks=None,
):
    start = length[prompt]
    running = form.prefix(
        q,
        *prefix,
        length=length,
        positions=start + own,
        blocks=blocks,
        block=block or 1,
        window=window,
        scale=scale,
    )
    return form.suffix(
        running,
        q,
        *suffix,
        start=start,
        positions=start + own,
        longest=own.max() + 1,
        window=window,
        scale=scale,
        sinks=sinks,
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


@_for_forms(
    "block, window",
    [(1, 3), (2, 150), (8, None), (8, 150), (8, 1000)],
    whole=[(2, 150), (8, None)],
)
def test_prefix_and_suffix_are_one_softmax(form, block, window):
    """Several prompts and slots, at chunk borders, against all keys side by side."""
    case = _case()
    numbers = [jnp.asarray(a) for a in (LENGTHS, PROMPT, OWN)]
    found = _decode(form, *case, *numbers, block, window)
    for slot in range(len(PROMPT)):
        _close(found[slot], _expected(case, LENGTHS, PROMPT, OWN, slot, window))


@pytest.mark.thorough
@both_forms
@pytest.mark.parametrize("length", [1, 127, 128, 129, 512])
@pytest.mark.parametrize("window", [None, 100])
def test_one_prompt_needs_no_blocks(form, length, window):
    """The path of one prompt, all slots in one product."""
    case = _case(prompts=1)
    numbers = [jnp.asarray(a) for a in ([length], [0] * 7, OWN)]
    found = _decode(form, *case, *numbers, None, window)
    for slot in range(len(PROMPT)):
        _close(found[slot], _expected(case, [length], [0] * 7, OWN, slot, window))


@pytest.mark.thorough
@both_forms
@pytest.mark.parametrize("block", [None, 8])
@pytest.mark.optimised
def test_allocated_size_does_not_show(form, block):
    """Growing a cache to its next bucket must not change a bit (promise 2).

    The whole form from four chunks on: for one, the compiler for CPU has another exp.
    """
    chunks = 1 if form is LOOPS else 4
    one = (1, [100], [0] * 7)
    prompts, lengths, prompt = (3, [5, 100, 128], PROMPT) if block else one
    own = [0, 1, 5, 100, 127, 20, 3]
    scaled = [jnp.asarray(a) * chunks for a in (lengths, own)]
    numbers = [scaled[0], jnp.asarray(prompt), scaled[1]]
    large = _case(prompts, 1024, 1024)
    cut = lambda arrays: tuple(a[:, :, : chunks * CHUNK] for a in arrays)  # noqa: E731
    small = (large[0], cut(large[1]), cut(large[2]))
    np.testing.assert_array_equal(
        _decode(form, *small, *numbers, block, None),
        _decode(form, *large, *numbers, block, None),
    )


@both_forms
@pytest.mark.parametrize("block", [None, 8])
@pytest.mark.optimised
def test_a_slot_does_not_feel_the_others(form, block):
    """Other samples' queries, caches and lengths must not change a bit (promise 2)."""
    prompts, lengths = (1, [200]) if block is None else (3, LENGTHS)
    prompt = np.zeros(7, int) if block is None else np.array(PROMPT)
    q, prefix, suffix = _case(prompts)
    own = np.array(OWN)
    numbers = map(jnp.asarray, (lengths, prompt, own))
    found = _decode(form, q, prefix, suffix, *numbers, block, None)
    kept = 4
    others = np.arange(7) != kept
    hide = jnp.asarray(others)
    own[others] = [3, 255, 0, 9, 140, 2]
    if block is not None:
        prompt[others] = [0, 2, 1, 1, 1, 0]
    changed = _decode(
        form,
        jnp.where(hide[:, None, None], -q, q),
        prefix,
        tuple(jnp.where(hide[:, None, None, None], 7.0, a) for a in suffix),
        *map(jnp.asarray, (lengths, prompt, own)),
        block,
        None,
    )
    np.testing.assert_array_equal(changed[kept], found[kept])


@both_forms
@pytest.mark.parametrize("block", [None, 8])
@pytest.mark.optimised
def test_a_slot_does_not_feel_its_place(form, block):
    """A sample in another slot must keep its bits (promise 2)."""
    prompts, lengths = (1, [200]) if block is None else (3, LENGTHS)
    prompt = np.zeros(7, int) if block is None else np.array(PROMPT)
    q, prefix, suffix = _case(prompts)
    order = np.random.default_rng(0).permutation(7)
    run = lambda i: _decode(  # noqa: E731
        form,
        q[i],
        prefix,
        tuple(a[i] for a in suffix),
        *map(jnp.asarray, (lengths, prompt[i], np.array(OWN)[i])),
        block,
        None,
    )
    np.testing.assert_array_equal(run(order), run(np.arange(7))[order])


@both_forms
def test_an_empty_prefix_is_no_prefix(form):
    """`noisy_prefill` and slots without prompt attend over their own positions only."""
    case = _case(prompts=1)
    numbers = [jnp.asarray(a) for a in ([0], [0] * 7, OWN)]
    found = _decode(form, *case, *numbers, None, None)
    for slot in range(7):
        _close(found[slot], _expected(case, [0], [0] * 7, OWN, slot, None))


# -- scale, sinks, values of another width ---------------------------------------------


def _whole_softmax(q, k, v, position, *, window, scale, sinks):
    """One query [H, A] over keys [T, G, A] and values [T, G, V], in float64."""
    q, k, v, sinks = (np.asarray(a, np.float64) for a in (q, k, v, sinks))
    seen = np.arange(max(0, position + 1 - window), position + 1)
    out = np.zeros((H, v.shape[-1]))
    for h in range(H):
        weights = np.exp(scale * (k[seen, h // (H // G)] @ q[h]))
        total = weights.sum() + np.exp(sinks[h])
        out[h] = weights @ v[seen, h // (H // G)] / total
    return out


@pytest.mark.parametrize("wide", [5, 12])
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_causal_with_sinks_scale_and_other_values(form, wide):
    """Sinks counted once a chunk, or values cut to the width of keys."""
    q, k = _normal(256, H, A), _normal(256, G, A, seed=1)
    v, sinks = _normal(256, G, wide, seed=2), 3 * _normal(H, seed=3)
    more = {"window": 200, "scale": 0.7}
    run = jax.jit(lambda qkv, sinks: form.causal(qkv, sinks=sinks, **more))
    found = run(QKV(q, k, v), sinks)
    assert found.shape == (256, H, wide)
    for t in (0, 127, 128, 255):
        _close(found[t], _whole_softmax(q[t], k, v, t, sinks=sinks, **more))


@pytest.mark.thorough
def test_the_form_with_gradients_has_those_of_sinks():
    """Training would leave sinks as they are."""
    q, k, v = (_normal(8, n, A, seed=seed) for seed, n in enumerate((H, G, G)))

    def total(sinks, form):
        out = FORMS[form].causal(QKV(q, k, v), window=None, sinks=sinks)
        return (out**2).sum()

    sinks, small = _normal(H, seed=3), 1e-2
    gradient = jax.grad(total)(sinks, "dense")
    for h in range(H):
        step = small * jnp.eye(H)[h]
        slope = (total(sinks + step, "chunked") - total(sinks - step, "chunked")) / 2
        np.testing.assert_allclose(gradient[h], slope / small, rtol=1e-2)


@pytest.mark.thorough
@both_forms
@pytest.mark.parametrize("block", [None, 2])
@pytest.mark.parametrize("wide", [5, 12])
def test_decoding_with_sinks_scale_and_other_values(form, block, wide):
    """Sinks counted with the prompt and again with the answer, or not in blocks."""
    prompts, lengths = (1, [200]) if block is None else (3, LENGTHS)
    prompt = [0] * 7 if block is None else PROMPT
    q, prefix, suffix = _case(prompts)
    prefix = prefix[0], _normal(prompts, G, 512, wide, seed=5)
    suffix = suffix[0], _normal(7, G, 256, wide, seed=7)
    length, prompt, own = (jnp.asarray(a) for a in (lengths, prompt, OWN))
    blocks = None if block is None else cut_blocks(prompt, prompts, block)
    sinks, more = 3 * _normal(H, seed=8), {"window": 150, "scale": 0.2}
    found = jax.jit(
        lambda q, prefix, suffix, sinks: _attend(
            form,
            *(q, prefix, suffix, length, prompt, own, blocks),
            block=block,
            sinks=sinks,
            **more,
        )
    )(q, prefix, suffix, sinks)
    for slot in range(7):
        first = lengths[prompt[slot]]
        k, v = (
            np.concatenate([p[prompt[slot], :, :first], s[slot, :, : OWN[slot] + 1]], 1)
            for p, s in zip(prefix, suffix, strict=True)
        )
        at = (q[slot], k.swapaxes(0, 1), v.swapaxes(0, 1), first + OWN[slot])
        _close(found[slot], _whole_softmax(*at, sinks=sinks, **more))


# -- the whole form ------------------------------------------------------------------


@pytest.mark.parametrize("block", [None, 8])
def test_loops_equal_whole(block):
    """A model must not answer otherwise on another machine; nor a slot at rest."""
    prompts, lengths = (1, [200]) if block is None else (3, LENGTHS)
    prompt = [0] * 7 if block is None else [2, 0, -1, 0, 2, -1, 0]
    numbers = [jnp.asarray(a) for a in (lengths, prompt, OWN)]
    loops, whole = (
        _decode(form, *_case(prompts), *numbers, block, None) for form in (LOOPS, WHOLE)
    )
    _close(whole, loops)


@pytest.mark.parametrize("block", [None, 8])
@pytest.mark.optimised
def test_nan_past_the_end_is_not_felt(block):
    """What an earlier prompt or sample left behind must not reach a later one.

    Keys anywhere past the end, values in chunks that are past it: the last chunk in
    use holds zeros there.
    """
    prompts, lengths = (1, [200]) if block is None else (3, LENGTHS)
    prompt = np.zeros(7, int) if block is None else np.array(PROMPT)
    q, prefix, suffix = _case(prompts)
    numbers = [jnp.asarray(a) for a in (lengths, prompt, OWN)]
    found = _decode(WHOLE, q, prefix, suffix, *numbers, block, None)

    def poison(cache, count):
        k, v = (np.array(a) for a in cache)
        for row, end in enumerate(count):
            k[row, :, end:] = np.nan
            v[row, :, -(-end // CHUNK) * CHUNK :] = np.inf
        return jnp.asarray(k), jnp.asarray(v)

    own = np.array(OWN) + 1
    poisoned = poison(prefix, lengths), poison(suffix, own)
    again = _decode(WHOLE, q, *poisoned, *numbers, block, None)
    np.testing.assert_array_equal(again, found)


@pytest.mark.parametrize("fitting", [1, 4])
def test_copies_of_a_prefix_go_by_batches(monkeypatch, fitting):
    """How many copies fit at a time, six or fewer, must not show in the numbers."""
    numbers = [jnp.asarray(a) for a in (LENGTHS, PROMPT, OWN)]
    expected = _decode(WHOLE, *_case(), *numbers, 2, 150)
    one = 2 * G * 512 * A * 4
    monkeypatch.setattr(whole, "COPY_AT_ONCE", fitting * one)
    anew = jax.jit(lambda *args: _decode.__wrapped__(WHOLE, *args, 2, 150))
    _close(anew(*_case(), *numbers), expected)


@pytest.mark.parametrize("block", [None, 2])
def test_whole_does_not_loop(block):
    """A loop of kernels costs a GPU more than the attention in it."""
    q, prefix, suffix = _case(1 if block is None else 3)
    length = jnp.asarray([200] if block is None else LENGTHS)
    prompt = jnp.asarray([0] * 7 if block is None else PROMPT)
    own = jnp.asarray(OWN)
    blocks = None if block is None else cut_blocks(prompt, 3, block)

    def text(form):
        run = partial(_attend, form, block=block, window=None)
        args = (q, prefix, suffix, length, prompt, own, blocks)
        return jax.jit(run).lower(*args).as_text()

    assert "while" in text(LOOPS)
    assert "while" not in text(WHOLE)
