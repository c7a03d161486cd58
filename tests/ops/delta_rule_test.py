"""The gated delta rule against the recurrence, in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.ops import delta_rule
from jaxmoe.ops.delta_rule import CHUNK, Position

G, R, A, W = 2, 3, 8, 5
LENGTH = 2 * CHUNK + 22


def positions(length: int, seed: int = 0) -> Position:
    """Random ones; decays from none to nearly all, and a key that comes back."""
    rng = np.random.default_rng(seed)
    q, k = rng.normal(size=(2, length, G, A))
    k[length // 2] = k[0]
    norm = lambda x: x / np.linalg.norm(x, axis=-1, keepdims=True)  # noqa: E731
    found = Position(
        norm(q) * A**-0.5,
        norm(k),
        rng.normal(size=(length, G, R, W)),
        -np.exp(rng.uniform(-6, 1, (length, G, R))),
        rng.uniform(0, 1, (length, G, R)),
    )
    return Position(*(jnp.asarray(a, jnp.float32) for a in found))


def reference(x: Position) -> tuple[np.ndarray, np.ndarray]:
    """Outputs and memory, position by position and head by head."""
    q, k, v, decay, beta = (np.asarray(a, np.float64) for a in x)
    out, memory = np.zeros(v.shape), np.zeros((G * R, A, W))
    for t in range(len(q)):
        for g in range(G):
            for r in range(R):
                S = np.exp(decay[t, g, r]) * memory[g * R + r]
                u = beta[t, g, r] * (v[t, g, r] - S.T @ k[t, g])
                S = S + np.outer(k[t, g], u)
                out[t, g, r], memory[g * R + r] = S.T @ q[t, g], S
    return out, memory


def steps(x: Position) -> tuple[jax.Array, jax.Array]:
    """As `reference`, by `step` with one row."""

    def one(memory, position):
        out, memory = delta_rule.step(position, memory)
        return memory, out[0]

    x = jax.tree.map(lambda a: a[:, None], x)
    memory, out = jax.lax.scan(one, jnp.zeros((1, G * R, A, W)), x)
    return out, memory[0]


def chunks(x: Position) -> tuple[jax.Array, jax.Array]:
    """As `reference`, by `chunk`."""
    memory, outs = jnp.zeros((G * R, A, W)), []
    for start in range(0, LENGTH, CHUNK):
        part = jax.tree.map(lambda a, at=start: a[at : at + CHUNK], x)
        out, memory = delta_rule.chunk(part, memory)
        outs.append(out)
    return jnp.concatenate(outs), memory


@pytest.mark.parametrize("form", [steps, chunks])
def test_both_forms_are_the_recurrence(form):
    """A step or a chunk would decay too early or late, or carry on another memory."""
    x = positions(LENGTH)
    out, memory = jax.jit(form)(x)
    expected, last = reference(x)
    np.testing.assert_allclose(out, expected, atol=2e-6)
    np.testing.assert_allclose(memory, last, atol=2e-6)


@pytest.mark.parametrize("size", [0.0, 1e-4, 1e-3, 1.0])
def test_small_keys_are_no_units(size):
    """Another eps would show in keys near zero alone."""
    x = np.random.default_rng(0).normal(size=(3, A)) * size
    expected = x / np.sqrt((x * x).sum(axis=-1, keepdims=True) + 1e-6)
    found = delta_rule.unit(jnp.asarray(x, jnp.float32))
    np.testing.assert_allclose(found, expected, rtol=1e-5)


@pytest.mark.optimised
def test_rows_are_apart():
    """A slot's answer would change with its neighbours."""
    x = positions(6)
    memory = np.random.default_rng(0).normal(size=(6, G * R, A, W)).astype(np.float32)
    out, after = jax.jit(delta_rule.step)(x, memory)
    turned = jax.tree.map(lambda a: a[::-1], (x, memory))
    again = jax.jit(delta_rule.step)(*turned)
    np.testing.assert_array_equal(again[0][::-1], out)
    np.testing.assert_array_equal(again[1][::-1], after)


def test_strong_decays_stay_finite():
    """Sums of decays would overflow where they are subtracted, and give NaN."""
    x = positions(LENGTH)._replace(decay=jnp.full((LENGTH, G, R), -1e3, jnp.float32))
    out, memory = jax.jit(chunks)(x)
    expected, last = reference(x)
    np.testing.assert_allclose(out, expected, atol=2e-6)
    np.testing.assert_allclose(memory, last, atol=2e-6)
