"""Token samplers: which tokens are kept, and how the kept ones are drawn."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.config import GenerationConfig
from jaxmoe.decode.sampler import TokenSampler, is_stop, log_probability
from jaxmoe.random.keys import position_key, sample_keys
from tests.chi_square import excess

DRAWS = 10_000
FEW, SIZE = 50, 300
"""Draws and vocabulary of tests that do not need others: each is compiled anew."""


def _kept(logits, temperature=1.0, top_k=None, top_p=None, min_p=None) -> np.ndarray:
    """Probabilities after transformers' filters in their order, in float64.

    Where tokens tie at the border of top-p all of them stay.
    """
    scores = np.asarray(logits, np.float64) / temperature
    p = np.exp(scores - scores.max())
    if top_k:
        p[p < np.sort(p)[::-1][min(top_k, len(p)) - 1]] = 0
    if top_p is not None:
        # A token stays while the tokens more likely than it do not reach top_p.
        more_likely = np.array([p[p > w].sum() for w in p]) / p.sum()
        p[(more_likely >= top_p) & (p < p.max())] = 0
    if min_p is not None:
        p[p < min_p * p.max()] = 0
    return p / p.sum()


def _logits(size, seed=0, scale=2.0):
    values = np.random.default_rng(seed).normal(size=size) * scale
    return jnp.asarray(values, jnp.float32)


@jax.jit
def _weights(sampler, logits):
    weights = jnp.exp((logits - logits.max()) / sampler.temperature)
    if sampler.candidates is None:
        return sampler.filtered(weights)
    best, ids = jax.lax.top_k(weights, sampler.candidates)
    kept = sampler.filtered(best, ranked=True)
    return jnp.zeros_like(weights).at[ids].set(kept)


@pytest.fixture(autouse=True)
def _draws_may_be_repeated():
    """Most tests draw again from equal keys, to compare."""
    with jax.debug_key_reuse(False):
        yield


@pytest.fixture(scope="module")
def keys():
    """Position keys of many samples of one key, as the engine makes them."""
    draw = jax.jit(lambda: jax.vmap(position_key, (0, None))(_samples(), 17))
    return draw()


def _samples():
    return sample_keys(jax.random.key(5), DRAWS)


@partial(jax.jit, static_argnames="count")
def _draw(sampler, keys, logits, count=DRAWS):
    return jax.vmap(sampler.draw, (0, None))(keys[:count], logits)


def _tokens(sampler, keys, logits, count=DRAWS):
    sampler = sampler.resolve(logits.shape[0])
    return np.asarray(_draw(sampler, keys, logits, count))


# -- which tokens are kept -----------------------------------------------------------

FILTERS = [
    {"top_k": 1},
    {"top_k": 5},
    {"top_k": 10_000},
    {"top_p": 0.8},
    {"top_p": 0.999},
    {"top_p": 0.0},
    {"min_p": 0.05},
    {"min_p": 1.0},
    {"top_k": 20, "top_p": 0.8, "temperature": 0.7},
    {"top_k": 20, "top_p": 0.98, "min_p": 0.1, "temperature": 1.3},
    {"top_p": 0.5, "min_p": 0.3, "temperature": 3.0},
]


@pytest.mark.parametrize("filters", FILTERS, ids=str)
@pytest.mark.parametrize("size", [7, 700])
def test_kept_tokens_are_transformers(filters, size):
    """Another order of filters, or a border token more or less, changes answers."""
    sampler = TokenSampler(**filters).resolve(size)
    for seed in range(3):
        logits = _logits(size, seed)
        weights = np.asarray(_weights(sampler, logits), np.float64)
        expected = _kept(logits, **filters)
        np.testing.assert_array_equal(weights > 0, expected > 0)
        np.testing.assert_allclose(weights / weights.sum(), expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("filters", "kept"),
    [
        ({"top_k": 2}, [0, 1, 2]),  # 1 and 2 tie for the second place
        ({"top_k": 1}, [0]),
        ({"top_p": 0.5}, [0, 1, 2]),
        ({"top_p": 0.0}, [0]),
        ({"min_p": 0.49}, [0, 1, 2]),
        ({"min_p": 0.51}, [0]),
    ],
    ids=str,
)
def test_ties_at_the_border_stay_together(filters, kept):
    """Which of two equal tokens stays must not depend on the order of a sort."""
    logits = jnp.log(jnp.array([0.4, 0.2, 0.2, 0.1, 0.1]))
    weights = _weights(TokenSampler(**filters).resolve(5), logits)
    np.testing.assert_array_equal(np.flatnonzero(weights), kept)


@pytest.mark.parametrize(
    ("filters", "kept"),
    [
        ({"top_k": 2}, [3, 40, 41]),
        ({"top_k": 9, "top_p": 0.5}, [3, 40, 41]),
        ({"top_k": 9, "top_p": 0.3}, [3]),
        ({"top_k": 9, "min_p": 0.49}, [3, 40, 41]),
    ],
    ids=str,
)
def test_ties_among_candidates_stay_together(filters, kept):
    """The same, where only the best candidates are looked at."""
    p = (
        jnp.full(200, 1e-9)
        .at[jnp.array([3, 40, 41, 90])]
        .set(jnp.array([0.4, 0.2, 0.2, 0.1]))
    )
    sampler = TokenSampler(**filters).resolve(200)
    assert sampler.candidates is not None
    np.testing.assert_array_equal(np.flatnonzero(_weights(sampler, jnp.log(p))), kept)


@pytest.mark.parametrize("top_k", [None, 5])
def test_greedy_takes_the_first_of_equals(keys, top_k):
    """Zeros of either sign are equals, as `argmax` has them."""
    logits = jnp.full(SIZE, -1.0).at[jnp.array([7, 9])].set(jnp.array([-0.0, 0.0]))
    found = _tokens(TokenSampler(0, top_k=top_k), keys, logits, FEW)
    np.testing.assert_array_equal(found, [7] * FEW)


@pytest.mark.parametrize("value", [None, 0])
def test_filters_that_filter_nothing_are_off(value):
    """An off filter must cost nothing and compile nothing."""
    sampler = TokenSampler(1.0, value, 1.0, value).resolve(100)
    assert (sampler.top_k, sampler.top_p, sampler.min_p) == (None, None, None)
    assert sampler.candidates is None


def test_generation_config_is_taken_over():
    """A checkpoint's own defaults must arrive where they belong."""
    config = GenerationConfig(0.6, 20, 0.95, 0.01, 1.2)
    expected = TokenSampler(0.6, 20, 0.95, 0.01, repetition_penalty=1.2)
    assert TokenSampler.from_config(config) == expected


# -- how they are drawn --------------------------------------------------------------


@pytest.mark.parametrize(
    "filters",
    [
        {},
        {"temperature": 0.5},
        {"temperature": 1.7},
        {"top_p": 0.8},
        {"top_k": 6, "temperature": 1.3},
        {"top_k": 20, "top_p": 0.9, "min_p": 0.02, "temperature": 0.9},
    ],
    ids=str,
)
@pytest.mark.parametrize("size", [1200])
def test_draws_follow_the_softmax(filters, size, keys):
    """Draws from another distribution, a wrong temperature above all.

    And this test would see it: a temperature 20 % off is rejected.
    """
    logits = _logits(size, seed=3)
    counts = np.bincount(_tokens(TokenSampler(**filters), keys, logits), minlength=size)
    assert excess(counts, _kept(logits, **filters)) < 1
    other = filters | {"temperature": filters.get("temperature", 1.0) * 1.2}
    if "top_p" in other or "min_p" in other:  # the same tokens, weighed otherwise
        kept = _kept(logits, **filters) > 0
        wrong = np.where(kept, _kept(logits, temperature=other["temperature"]), 0)
        assert excess(counts, wrong / wrong.sum()) > 1
    else:
        assert excess(counts, _kept(logits, **other)) > 1


@pytest.mark.thorough
@pytest.mark.parametrize("size", [pytest.param(3, marks=pytest.mark.slow), 512, 1100])
def test_every_token_can_be_drawn(size, keys):
    """Borders of the two-level search: no token past the end, none out of reach."""
    for winner in {0, 1, size // 2, size - 1, min(511, size - 1), min(512, size - 1)}:
        logits = jnp.full(size, -jnp.inf).at[winner].set(0.0)
        assert (_tokens(TokenSampler(), keys, logits, FEW) == winner).all()
    flat = _tokens(TokenSampler(), keys, jnp.zeros(size))
    assert flat.min() >= 0
    assert flat.max() < size
    bins = np.bincount(flat * 3 // size, minlength=3)
    sizes = np.bincount(np.arange(size) * 3 // size, minlength=3)
    assert excess(bins, sizes / size) < 1


@pytest.mark.parametrize("temperature", [0, 0.0, 1e-30, 1e-42])
@pytest.mark.parametrize("filters", [{}, {"top_k": 3, "top_p": 0.5, "min_p": 0.1}])
def test_temperature_0_is_argmax(temperature, filters, keys):
    """Greedy answers must be those of transformers, of equals the first."""
    for seed in range(5):
        logits = _logits(SIZE, seed)
        sampler = TokenSampler(temperature, **filters)
        tokens = _tokens(sampler, keys, logits, FEW)
        assert (tokens == int(jnp.argmax(logits))).all()
    if temperature == 0:
        tied = jnp.zeros(SIZE).at[jnp.array([40, 70])].set(3.0)
        assert (_tokens(TokenSampler(0), keys, tied, FEW) == 40).all()


@pytest.mark.thorough
@pytest.mark.parametrize(
    "filters", [{"top_k": 20}, {"top_k": 3, "top_p": 0.9}, {"top_k": 50, "min_p": 0.1}]
)
def test_candidates_draw_the_same_tokens(filters, keys):
    """Looking at the best few only must not change any answer."""
    logits = _logits(3000, seed=8)
    few = TokenSampler(1.2, **filters).resolve(3000)
    assert few.candidates is not None
    everything = TokenSampler(
        few.temperature, few.top_k, few.top_p, few.min_p, candidates=None
    )
    a, b = _draw(few, keys, logits), _draw(everything, keys, logits)
    # One uniform meets two roundings of the same border in at most a few of 10,000.
    assert (np.asarray(a) != np.asarray(b)).sum() <= 2


@pytest.mark.parametrize("filters", [{}, {"top_p": 0.9}, {"top_k": 5}], ids=str)
def test_ranks_that_swap_change_nothing(filters, keys):
    """Near-ties swap under other rounding; tokens lie in order of id, not of rank."""
    logits = _logits(500, seed=2).at[jnp.array([100, 300])].set(6.0)
    up = _tokens(TokenSampler(**filters), keys, logits.at[100].add(1e-6), 4000)
    down = _tokens(TokenSampler(**filters), keys, logits.at[300].add(1e-6), 4000)
    assert (up != down).sum() <= 2


@pytest.mark.parametrize("broken", [jnp.nan, jnp.inf])
@pytest.mark.parametrize("filters", [{}, {"top_k": 3}, {"top_p": 0.5}], ids=str)
def test_broken_logits_still_give_a_token(broken, filters, keys):
    """An id outside the vocabulary would crash the tokenizer far from the cause."""
    for logits in (jnp.full(SIZE, broken), jnp.zeros(SIZE).at[7].set(broken)):
        tokens = _tokens(TokenSampler(**filters), keys, logits, FEW)
        assert ((tokens >= 0) & (tokens < SIZE)).all()


@pytest.mark.thorough
def test_masked_tokens_are_never_drawn(keys):
    """Padding rows of a vocabulary hold -inf."""
    logits = _logits(64).at[::2].set(-jnp.inf)
    for sampler in (TokenSampler(), TokenSampler(1, 60), TokenSampler(1, None, 0.9999)):
        assert (_tokens(sampler, keys, logits) % 2 == 1).all()


# -- the rest ------------------------------------------------------------------------


def test_other_values_compile_nothing():
    """Promise 7: temperature, top_k, top_p and min_p are traced."""
    traces = []

    @jax.jit
    def draw(sampler, key, logits):
        traces.append(sampler)
        return sampler.draw(key, logits)

    for values in [
        (0.7, 20, 0.8, 0.1),
        (0, 3, 0.0, 1.0),
        (np.float64(2), np.int64(24), jnp.float32(0.5), 1),
    ]:
        sampler = TokenSampler(*values).resolve(500)
        draw(sampler, jax.random.key(0), jnp.zeros(500))
    assert len(traces) == 1


def test_traced_values_are_accepted(keys):
    """A user's own jit may compute all of them."""
    logits = _logits(SIZE, seed=4)

    @jax.jit
    def draw(temperature, top_k, top_p, min_p):
        sampler = TokenSampler(temperature, top_k, top_p, min_p).resolve(SIZE)
        return jax.vmap(sampler.draw, (0, None))(keys[:FEW], logits)

    eager = _tokens(TokenSampler(0.7, 20, 0.8, 0.1), keys, logits, FEW)
    assert (np.asarray(draw(0.7, 20, 0.8, 0.1)) != eager).sum() <= 1
    best = int(jnp.argmax(logits))
    assert (draw(0.0, 0, 1.0, 0.0) == best).all()


def test_a_traced_top_k_of_0_is_off(keys):
    """0 means all, also where it cannot be looked at."""
    logits = _logits(SIZE, seed=4)
    traced = jax.jit(
        lambda k: jax.vmap(TokenSampler(top_k=k).resolve(SIZE).draw, (0, None))(
            keys[:FEW], logits
        )
    )(0)
    plain = _tokens(TokenSampler(), keys, logits, FEW)
    assert (np.asarray(traced) != plain).sum() <= 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("temperature", v) for v in (-0.1, float("nan"), float("inf"), 1e300)],
        *[("top_k", v) for v in (-2, 2.5, float("nan"), float("inf"), 2**31)],
        *[("top_p", v) for v in (-0.1, 1.01, float("nan"))],
        *[("min_p", v) for v in (-0.1, 1.01, float("nan"))],
        *[(n, "0.5") for n in ("temperature", "top_k", "top_p", "min_p")],
        ("temperature", np.array([0.5, 0.7])),
        ("top_k", True),
    ],
    ids=str,
)
def test_bad_values_are_refused(name, value, untyped):
    """A wrong value must be named before any work is done."""
    with pytest.raises(ValueError, match=name):
        replace(TokenSampler(), **{name: value}).resolve(100)


def test_log_probability_is_the_models_own():
    """No temperature and no filter: answers are compared by it."""
    logits = _logits(50) * 10
    wide = np.asarray(logits, np.float64)
    exact = wide - wide.max() - np.log(np.exp(wide - wide.max()).sum())
    for token in (0, 25, 49):
        found = log_probability(logits, jnp.int32(token))
        np.testing.assert_allclose(found, exact[token], rtol=1e-5, atol=1e-5)


def test_stop_tokens():
    """Padding of the stop ids (-1) must stop nothing."""
    found = is_stop(
        jnp.array([3, 5, 0, 7]), jnp.broadcast_to(jnp.array([7, 3, -1, -1]), (4, 4))
    )
    np.testing.assert_array_equal(found, [True, False, False, True])
