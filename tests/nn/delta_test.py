"""Gated DeltaNet against its formulas in float64, and among other layers."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from jaxmoe.config import DeltaConfig, ModelConfig, NormConfig
from jaxmoe.nn.base import Mixer, Sequences, Step
from jaxmoe.nn.decoder import Decoder
from tests.tiny import CONTEXT, EXECUTION, tiny_config, tiny_params

MIXER = DeltaConfig(num_key_heads=2, num_value_heads=4, key_dim=8, value_dim=6)
G, R, A, W, K = 2, 2, 8, 6, 4
LENGTHS = (150, 2)
"""One over several chunks, one shorter than the convolution."""
STEPS = 5


def mixed_config(turns: int = 1, **changes) -> ModelConfig:
    """Layers in turns of three recurrent ones and one of attention."""
    dense, moe = tiny_config().layers
    layers = (*(replace(x, mixer=MIXER) for x in (dense, moe, moe)), moe)
    return tiny_config(layers=layers * turns, **changes)


CONFIG = mixed_config(norm=NormConfig(0.1))  # an eps that shows
PARAMS = tiny_params(CONFIG)


def reference(params: dict[str, np.ndarray], x: np.ndarray) -> np.ndarray:
    """The mixer over one sequence [T, D], one position and head at a time."""
    w = {n: np.asarray(a, np.float64) for n, a in params.items()}
    sigmoid = lambda a: 1 / (1 + np.exp(-a))  # noqa: E731
    silu = lambda a: a * sigmoid(a)  # noqa: E731
    state, before = np.zeros((G, R, A, W)), np.zeros((K - 1, G, 2 * A + R * W))
    taps = [w[f"conv_{n}"][:, :, 0] for n in "qkv"]
    taps = np.concatenate(taps, axis=1)
    rows = []
    for row in x:
        qkvz, ba = w["qkvz"] @ row, w["ba"] @ row
        inputs = np.concatenate([before, qkvz[None, :, : 2 * A + R * W]])
        before = inputs[1:]
        mixed = silu(np.einsum("jgm,gmj->gm", inputs, taps))
        heads = np.zeros((G, R, W))
        for g in range(G):
            q, k = mixed[g, :A], mixed[g, A : 2 * A]
            q = q / np.sqrt(q @ q + 1e-6) / np.sqrt(A)
            k = k / np.sqrt(k @ k + 1e-6)
            for r in range(R):
                v = mixed[g, 2 * A :].reshape(R, W)[r]
                z = qkvz[g, 2 * A + R * W :].reshape(R, W)[r]
                beta = sigmoid(ba[g, r])
                rate = np.log1p(np.exp(ba[g, R + r] + w["dt_bias"][g, r]))
                S = np.exp(-np.exp(w["a_log"][g, r]) * rate) * state[g, r]
                S = S + np.outer(k, beta * (v - S.T @ k))
                state[g, r], o = S, S.T @ q
                normed = o / np.sqrt(np.mean(o * o) + CONFIG.norm.eps)
                heads[g, r] = w["norm.scale"] * normed * silu(z)
        rows.append(w["out.weight"].reshape(len(row), -1) @ heads.reshape(-1))
    return np.stack(rows)


def mixer_of(params) -> Mixer:
    """That of the first layer, for use inside a jitted function."""
    return Decoder(CONFIG, params, EXECUTION).layers()[0].mixer


@partial(jax.jit, static_argnames="count")
def prefill(params, x, lengths, count):
    """The outputs and the state after some sequences, x [count T, D]."""
    size = x.shape[0] // count
    position = jnp.tile(jnp.arange(size), count)
    length = jnp.repeat(lengths, size)
    rows = Sequences(position, length, position < length, count, keep=True)
    return mixer_of(params).prefill(x, rows, CONTEXT)


@jax.jit
def decode(params, state, x):
    """The outputs of STEPS positions in each row, x [STEPS, S, D]."""

    def one(own, row):
        zero = jnp.zeros(row.shape[0], jnp.int32)
        step = Step(zero, zero, zero == 0, jnp.int32(1), zero[:1], None, 1)
        out, own = mixer_of(params).decode(row, 0, own, own, step, CONTEXT)
        return own, out

    return jax.lax.scan(one, jax.tree.map(lambda a: a[None], state), x)[1]


def test_prefill_and_steps_are_the_formulas():
    """A part of the mixer would be another one than that of the paper."""
    assert isinstance(mixer_of(PARAMS), Mixer)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, max(LENGTHS) + STEPS, CONFIG.d_model)).astype(np.float32)
    size = max(LENGTHS)
    given = x[:, :size].copy()
    given[1, LENGTHS[1] :] = np.nan  # padding may compute anything
    lengths = jnp.array(LENGTHS)
    out, state = prefill(PARAMS, jnp.asarray(given.reshape(2 * size, -1)), lengths, 2)
    out = np.asarray(out).reshape(2, size, -1)
    last = np.stack([x[i, n : n + STEPS] for i, n in enumerate(LENGTHS)], axis=1)
    own = {n.removeprefix("layers.0.mixer."): a for n, a in PARAMS.items()}
    after = decode(PARAMS, state, jnp.asarray(last))
    for i, length in enumerate(LENGTHS):
        expected = reference(own, x[i, : length + STEPS])
        scale = 2e-6 * abs(expected).max()
        np.testing.assert_allclose(out[i, :length], expected[:length], atol=scale)
        np.testing.assert_allclose(after[:, i], expected[length:], atol=scale)


def test_padding_does_not_show_in_the_state():
    """A prompt would leave another state behind where it is padded further."""
    x = np.random.default_rng(0).normal(size=(256, CONFIG.d_model)).astype(np.float32)
    states = [
        prefill(PARAMS, jnp.asarray(x[:size]), jnp.array([50]), 1)[1]
        for size in (64, 128, 256)
    ]
    for state in states[1:]:
        np.testing.assert_array_equal(state.memory, states[0].memory)
        np.testing.assert_array_equal(state.inputs, states[0].inputs)
