"""Latent attention against its formulas in float64, in both forms."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.config import LatentConfig, NormConfig, RopeConfig
from jaxmoe.nn.base import Mixer, Sequences, Step
from jaxmoe.nn.decoder import Decoder
from jaxmoe.nn.latent import LatentAttention, Latents
from jaxmoe.ops.attention import CHUNK
from jaxmoe.ops.rope import inverse_frequencies
from tests.tiny import CONTEXT, EXECUTION, tiny_config, tiny_params

H, K, N, R, V, Q = 4, 20, 16, 8, 12, 24
"""Heads, latent, plain and turned part of a key, value, latent of queries."""
YARN = RopeConfig(kind="yarn", factor=4.0, original_length=64, pairs="neighbours")
MIXERS = {
    "plain queries": LatentConfig(H, K, None, N, R, V, scale=0.3, rope=YARN),
    "latent queries": LatentConfig(
        H, K, Q, N, R, V, scale=0.3, rope=RopeConfig(), norm=NormConfig(eps=0.1)
    ),
}
LENGTHS = (CHUNK + 12, 3)
"""One over several chunks, one shorter than any."""
SIZE, STEPS = 2 * CHUNK, 20
"""Positions allocated; steps, more than slots read at a time of their own."""


def config_of(mixer: LatentConfig):
    """A model of one dense layer."""
    dense, _ = tiny_config().layers
    return tiny_config(layers=(replace(dense, mixer=mixer),))


def mixer_of(mixer: LatentConfig, params) -> LatentAttention:
    """That of the only layer, for use inside a jitted function."""
    return Decoder(config_of(mixer), params, EXECUTION).layers()[0].mixer


# -- the formulas, in float64 ----------------------------------------------------------


def _normed(x, scale, eps):
    return scale * x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + eps)


def _turned(rope: RopeConfig, x):
    """Pairs as complex numbers, x [T, ..., R]."""
    frequencies = np.asarray(inverse_frequencies(rope, R, jnp.int32(1)), np.float64)
    angle = np.arange(len(x))[:, None] * frequencies
    angle = angle.reshape(len(x), *(1,) * (x.ndim - 2), R // 2)
    if rope.pairs == "halves":
        pair = x[..., : R // 2] + 1j * x[..., R // 2 :]
    else:
        pair = x[..., 0::2] + 1j * x[..., 1::2]
    turned = rope.attention_factor * pair * np.exp(1j * angle)
    return np.concatenate([turned.real, turned.imag], axis=-1)


def _weights(scores):
    """Softmax over keys [T, H, T] that are not ahead."""
    seen = np.tri(len(scores), dtype=bool)[:, None]
    scores = np.where(seen, scores, -np.inf)
    exp = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return exp / exp.sum(axis=-1, keepdims=True)


def reference(c: LatentConfig, params, x):
    """The mixer over one sequence [T, D]: expanded, and with latents alone."""
    mine = {n: a for n, a in params.items() if ".mixer." in n}
    w = {n.split("mixer.")[1]: np.asarray(a, np.float64) for n, a in mine.items()}
    if c.query_latent_dim is None:
        q = np.einsum("had,td->tha", w["q"], x)
    else:
        latent = _normed(x @ w["q_down"].T, w["q_norm.scale"], c.norm.eps)
        q = np.einsum("haq,tq->tha", w["q_up"], latent)
    down = x @ w["kv_down"].T
    latent = _normed(down[:, :K], w["kv_norm.scale"], c.norm.eps)
    key, value = w["kv_up"][:, :N], w["kv_up"][:, N:]
    turned = np.einsum(
        "thr,sr->ths", _turned(c.rope, q[..., N:]), _turned(c.rope, down[:, K:])
    )
    plain = np.einsum("tha,hak,sk->ths", q[..., :N], key, latent)
    values = np.einsum("hvk,sk->shv", value, latent)
    found = np.einsum("ths,shv->thv", _weights(c.scale * (plain + turned)), values)
    absorbed = np.einsum("tha,hak->thk", q[..., :N], key)
    scores = np.einsum("thk,sk->ths", absorbed, latent) + turned
    mixed = np.einsum("ths,sk->thk", _weights(c.scale * scores), latent)
    again = np.einsum("hvk,thk->thv", value, mixed)
    out = w["o.weight"].reshape(x.shape[1], -1)
    return found.reshape(len(x), -1) @ out.T, again.reshape(len(x), -1) @ out.T


# -- the mixer -------------------------------------------------------------------------


@partial(jax.jit, static_argnames=("mixer", "count"))
def prefill(mixer, params, x, lengths, count):
    """The outputs and the state after some sequences, x [count T, D]."""
    size = x.shape[0] // count
    position = jnp.tile(jnp.arange(size), count)
    length = jnp.repeat(lengths, size)
    rows = Sequences(position, length, position < length, count, keep=True)
    return mixer_of(mixer, params).prefill(x, rows, CONTEXT)


@partial(jax.jit, static_argnames="mixer")
def decode(mixer, params, prefix, length, x):
    """The outputs of STEPS positions after one prompt, x [STEPS, D]."""
    own = {"layers": 1, "rows": 1, "size": CHUNK, "dtype": jnp.float32}
    own = Latents.empty(mixer, layout=EXECUTION.layout, **own)
    begin = length[None]

    def one(own, at):
        index, row = at
        step = Step(
            begin + index, begin, begin >= 0, index + 1, begin, blocks=None, block=1
        )
        out, own = mixer_of(mixer, params).decode(
            row[None], 0, prefix, own, step, CONTEXT
        )
        return own, out[0]

    return jax.lax.scan(one, own, (jnp.arange(STEPS), x))[1]


@pytest.mark.parametrize("mixer", MIXERS.values(), ids=MIXERS)
def test_prefill_and_steps_are_the_formulas(mixer):
    """A part of the mixer would be another one than that of the paper."""
    params = tiny_params(config_of(mixer))
    assert isinstance(mixer_of(mixer, params), Mixer)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, SIZE, 32)).astype(np.float32)
    given = x.copy()
    for i, length in enumerate(LENGTHS):
        given[i, length:] = np.nan  # padding may compute anything
    lengths = jnp.array(LENGTHS)
    out, state = prefill(mixer, params, given.reshape(2 * SIZE, -1), lengths, 2)
    out = np.asarray(out).reshape(2, SIZE, -1)
    for i, length in enumerate(LENGTHS):
        expanded, absorbed = reference(mixer, params, x[i, : length + STEPS])
        np.testing.assert_allclose(expanded, absorbed, atol=1e-12)
        prefix = jax.tree.map(lambda a, i=i: a[None, i : i + 1], state)
        after = decode(mixer, params, prefix, lengths[i], x[i, length : length + STEPS])
        atol = 2e-6 * abs(expanded).max()
        np.testing.assert_allclose(out[i, :length], expanded[:length], atol=atol)
        np.testing.assert_allclose(after, expanded[length:], atol=atol)
