"""The key schedule, written out by hand, and the keys that are refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.random import keys

fold_in = jax.random.fold_in


def _data(key) -> tuple[int, ...]:
    return tuple(np.asarray(jax.random.key_data(key)).reshape(-1).tolist())


@pytest.mark.parametrize("seed", [0, 1, 2**31])
@pytest.mark.parametrize("index", [0, 1, 7, 10_000])
def test_schedule_is_the_documented_one(seed, index):
    """A published (key, i, t, l) must give the same draw in every later version."""
    key = jax.random.key(seed)
    assert _data(keys.prompt_key(key, index)) == _data(fold_in(key, index))
    assert _data(keys.sample_key(key, index)) == _data(fold_in(key, index))
    assert _data(keys.position_key(key, index)) == _data(fold_in(key, index))
    assert _data(keys.token_key(key)) == _data(fold_in(key, 0))
    expected = fold_in(fold_in(key, 1), index)
    assert _data(keys.route_key(key, index)) == _data(expected)


def test_schedule_from_the_callers_key_down():
    """The whole chain for (i, t, l) = (3, 41, 5): its order and its constants."""
    key = jax.random.key(42)
    position = keys.position_key(keys.sample_key(key, 3), 41)
    token = fold_in(fold_in(fold_in(key, 3), 41), 0)
    route = fold_in(fold_in(fold_in(fold_in(key, 3), 41), 1), 5)
    assert _data(keys.token_key(position)) == _data(token)
    assert _data(keys.route_key(position, 5)) == _data(route)


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 130)])
@pytest.mark.parametrize("draw", [jax.random.uniform, jax.random.gumbel])
def test_draws_are_jaxs_own(shape, draw):
    """Numbers of the rounds written out, alone and in a batch, against jax's."""
    key = jax.random.key(2**31 + 5)
    theirs = draw(fold_in(fold_in(key, 41), 0), shape)
    position = keys.position_key(key, 41)
    np.testing.assert_array_equal(draw(keys.token_key(position), shape), theirs)
    several = jax.vmap(lambda t: draw(keys.position_key(key, t), shape))
    found = jax.jit(several)(jnp.arange(3) - 1)
    for place, position in enumerate([2**32 - 1, 0, 1]):
        expected = draw(fold_in(key, np.uint32(position)), shape)
        np.testing.assert_array_equal(found[place], expected)


def test_schedule_bits_are_pinned():
    """Were fold_in itself to change, saved answers could no longer be drawn again."""
    position = keys.position_key(keys.sample_key(jax.random.key(42), 3), 41)
    assert _data(keys.token_key(position)) == (864868547, 3874530990)
    assert _data(keys.route_key(position, 5)) == (1403844652, 2949545703)


@pytest.mark.parametrize("n", [1, 2, 5, 64])
def test_sample_keys_do_not_depend_on_n(n):
    """Sample i of n = 4 and of n = 64 must be the same sample."""
    many = keys.sample_keys(jax.random.key(9), n)
    assert many.shape == (n,)
    for i in {0, n // 2, n - 1}:
        assert _data(many[i]) == _data(keys.sample_key(jax.random.key(9), i))


@pytest.mark.parametrize("index", [5, jnp.int32(5), jnp.int16(5)], ids=repr)
def test_integer_type_of_an_index_does_not_matter(index):
    """Engine (int32 arrays) and replay (Python int) must derive equal keys."""
    key = jax.random.key(0)
    for derive in (keys.sample_key, keys.position_key, keys.route_key):
        assert _data(derive(key, index)) == _data(derive(key, 5))


@pytest.mark.parametrize(("layers", "experts"), [(1, 1), (48, 128)])
def test_route_noise_rows_are_single_draws(layers, experts):
    """One call for all layers must give the bits of each layer's own draw."""
    noise = keys.route_noise(jax.random.key(3), layers, experts)
    assert noise.shape == (layers, experts)
    for l in {0, layers // 2, layers - 1}:
        alone = jax.random.gumbel(keys.route_key(jax.random.key(3), l), (experts,))
        np.testing.assert_array_equal(noise[l], alone)


def test_route_noise_is_the_same_under_vmap_and_jit():
    """Otherwise a sample would change with the batch it is drawn in."""
    many = keys.sample_keys(jax.random.key(4), 4)
    draw = lambda key: keys.route_noise(key, 3, 8)  # noqa: E731
    together = jax.jit(jax.vmap(draw))(many)
    for i in range(4):
        alone = draw(keys.sample_key(jax.random.key(4), i))
        np.testing.assert_array_equal(together[i], alone)


def test_noise_of_a_layer_does_not_depend_on_their_number():
    """A choice can be replayed without knowing how deep the model is."""
    few = keys.route_noise(jax.random.key(5), 1, 8)
    more = keys.route_noise(jax.random.key(5), 3, 8)
    np.testing.assert_array_equal(few, more[:1])


def test_streams_never_meet():
    """Two places of the schedule with one key would draw the same number twice."""

    @jax.jit
    def streams(i, t):
        position = keys.position_key(keys.sample_key(jax.random.key(0), i), t)
        layers = [keys.route_key(position, l) for l in range(6)]
        every = [keys.token_key(position), *layers]
        return jnp.stack([jax.random.key_data(key) for key in every])

    drawn = [streams(i, t) for i in range(4) for t in range(20)]
    assert len({key.tobytes() for key in np.concatenate(drawn)}) == 4 * 20 * 7


@pytest.fixture(scope="module")
def draws():
    """Gumbels of 8 samples, 32 positions, 1 token stream and 4 layers, 32 of each."""

    def one(i, t):
        key = keys.position_key(keys.sample_key(jax.random.key(7), i), t)
        token = jax.random.gumbel(keys.token_key(key), (1, 32))
        return jnp.concatenate([token, keys.route_noise(key, 4, 32)])

    grid = jax.vmap(jax.vmap(one, (None, 0)), (0, None))
    return np.asarray(jax.jit(grid)(jnp.arange(8), jnp.arange(32)))


@pytest.mark.parametrize("axis", [0, 1, 2], ids=["sample", "position", "purpose"])
def test_noise_is_uncorrelated_along(axis, draws):
    """Overlapping streams (seed + i, say) would show as equal or related noise.

    Along "purpose" the first is the token's: likely tokens with unlikely experts.
    """
    rows = np.moveaxis(draws, axis, 0).reshape(draws.shape[axis], -1)
    correlation = np.corrcoef(rows)
    others = correlation[~np.eye(len(rows), dtype=bool)]
    assert abs(others).max() < 5 / np.sqrt(rows.shape[1])


# -- keys that are refused -----------------------------------------------------------


def test_a_typed_threefry_key_is_accepted():
    """What the README passes must pass, also after `fold_in` and `split`."""
    keys.check_key(jax.random.key(0))
    keys.check_key(jax.random.key(0, impl="threefry2x32"))
    keys.check_key(keys.sample_key(jax.random.key(0), 3))
    keys.check_key(jax.random.split(jax.random.key(0))[0])


@pytest.mark.parametrize(
    "wrong",
    [None, 0, 42, "key", 1.5, np.zeros(2, np.uint32), (0, 1)],
    ids=repr,
)
def test_what_is_no_key_is_refused(wrong):
    """A seed in place of a key must say how to make a key."""
    with pytest.raises(TypeError, match=r"jax\.random\.key\(0\)"):
        keys.check_key(wrong)


def test_a_raw_key_is_refused_with_the_way_to_wrap_it():
    """`jax.random.PRNGKey` is still common; its user needs one line of help."""
    raw = jax.random.PRNGKey(0)
    with pytest.raises(TypeError, match=r"uint32\[2\].*wrap_key_data") as error:
        keys.check_key(raw)
    assert "jax.random.key(0)" in str(error.value)
    keys.check_key(jax.random.wrap_key_data(raw))


@pytest.mark.parametrize("implementation", ["rbg", "unsafe_rbg"])
def test_other_implementations_are_refused(implementation):
    """rbg draws other numbers under vmap: samples would depend on their batch."""
    with pytest.raises(ValueError, match=f"found {implementation}.*threefry2x32"):
        keys.check_key(jax.random.key(0, impl=implementation))


def test_an_array_of_keys_is_refused():
    """An array would be folded as one batch and give n streams for one sample."""
    for shape in [(1,), (3,), (2, 2)]:
        many = jax.random.split(jax.random.key(0), shape)
        with pytest.raises(ValueError, match="array of shape"):
            keys.check_key(many)


def test_a_traced_key_is_checked_by_type_alone():
    """`sample`'s device function runs inside a user's own jit."""

    @jax.jit
    def derive(key):
        keys.check_key(key)
        return jax.random.key_data(keys.sample_key(key, 1))

    derive(jax.random.key(0))
    with pytest.raises(TypeError):
        derive(jax.random.PRNGKey(0))
