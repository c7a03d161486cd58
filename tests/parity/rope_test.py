"""Rotary embedding against transformers' Qwen3MoeRotaryEmbedding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.families.config_json import from_hf
from jaxmoe.ops import rope as rope_lib

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")
modeling = pytest.importorskip("transformers.models.qwen3_moe.modeling_qwen3_moe")
pytestmark = pytest.mark.parity

MAX = 64
LONG = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32}
STATIC = {
    "plain": {"rope_type": "default", "rope_theta": 1e6},
    "no theta": {"rope_type": "default"},
    "linear": {"rope_type": "linear", "factor": 3.0},
    "yarn": LONG | {"rope_theta": 1e6},
    "yarn, large": LONG | {"original_max_position_embeddings": 32768},
    "yarn, attention factor": LONG | {"attention_factor": 1.25},
    "yarn, mscale": LONG | {"mscale": 1.0, "mscale_all_dim": 0.7},
    "yarn, half an mscale": LONG | {"mscale": 0.8},
    "yarn, betas": LONG | {"beta_fast": 16.0, "beta_slow": 2.0},
    "yarn, untruncated": LONG | {"truncate": False},
    "yarn, no length": {"rope_type": "yarn", "factor": 2.0},
    "yarn, null factor": LONG | {"factor": None},
    "yarn, null extras": LONG
    | {"beta_fast": None, "beta_slow": None, "attention_factor": None, "mscale": None},
}


def _pair(parameters, head_dim=128, **more):
    """transformers' module, and our rope, of one configuration."""
    config = {
        "model_type": "qwen3_moe",
        "vocab_size": 64,
        "hidden_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": head_dim,
        "moe_intermediate_size": 16,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "max_position_embeddings": MAX,
        "rope_parameters": dict(parameters),
        **more,
    }
    ours = from_hf(config).layers[0].mixer.rope
    config["rope_parameters"] = dict(parameters)
    theirs = modeling.Qwen3MoeRotaryEmbedding(modeling.Qwen3MoeConfig(**config))
    return theirs, ours


def _theirs(module, positions):
    x = torch.zeros(1, dtype=torch.float32)
    cos, sin = module(x, torch.tensor(np.asarray(positions))[None])
    half = cos.shape[-1] // 2
    np.testing.assert_array_equal(cos[0, :, :half], cos[0, :, half:])
    return cos[0, :, :half].numpy(), sin[0, :, :half].numpy()


def _ours(rope, positions, lengths, head_dim=128):
    positions = jnp.asarray(positions, jnp.int32)
    lengths = jnp.asarray(lengths, jnp.int32)
    rotation = jax.jit(rope_lib.rotation, static_argnums=(0, 1))
    return rotation(rope, head_dim, positions, lengths)


@pytest.mark.parametrize("head_dim", [128, 64, 8])
@pytest.mark.parametrize("name", STATIC)
def test_static_kinds(name, head_dim):
    """Frequencies within one rounding, and angles as exact as those, up to 1M."""
    module, rope = _pair(STATIC[name], head_dim)
    ours = rope_lib.inverse_frequencies(rope, head_dim, jnp.int32(1))
    theirs = module.inv_freq.numpy()
    np.testing.assert_allclose(ours, theirs, rtol=2.5e-7)
    assert (np.asarray(ours) != theirs).sum() <= 2
    np.testing.assert_allclose(rope.attention_factor, module.attention_scaling)
    positions = np.array([0, 1, 2, 63, 64, 65, 4097, 40959, 131071, 999_999])
    exact = np.asarray(ours) == theirs
    for a, b in zip(
        _ours(rope, positions, positions + 1, head_dim),
        _theirs(module, positions),
        strict=True,
    ):
        np.testing.assert_allclose(a[:, exact], b[:, exact], atol=1e-6)
        np.testing.assert_allclose(a[:6], b[:6], atol=1e-5)


@pytest.mark.parametrize("factor", [1.0, 2.0, 8.0, 3.3, 4])
@pytest.mark.parametrize("length", [1, MAX - 1, MAX, MAX + 1, 100, 1000])
def test_dynamic_prefill(length, factor):
    """One pass over a prompt shorter than, at, and beyond the limit."""
    module, rope = _pair({"rope_type": "dynamic", "factor": factor, "rope_theta": 1e6})
    positions = np.arange(length)
    for a, b in zip(
        _ours(rope, positions, np.full(length, length)),
        _theirs(module, positions),
        strict=True,
    ):
        np.testing.assert_allclose(a, b, atol=2e-6 + 2e-7 * length)


def test_dynamic_decode_step_by_step():
    """transformers grows its base with each token past the limit; so do we."""
    module, rope = _pair({"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4})
    prompt = np.arange(MAX - 10)
    _theirs(module, prompt)
    steps = np.arange(len(prompt), len(prompt) + 40)
    ours = _ours(rope, steps, steps + 1)
    theirs = [_theirs(module, [step]) for step in steps]
    for i, ours_i in enumerate(ours):
        expected = np.concatenate([step[i] for step in theirs])
        np.testing.assert_allclose(ours_i, expected, atol=2e-5)


def test_dynamic_next_prompt_starts_afresh():
    """A short prompt after a long one is plain again, in transformers and here."""
    module, rope = _pair({"rope_type": "dynamic", "factor": 2.0})
    _theirs(module, np.arange(MAX + 30))
    positions = np.arange(20)
    ours = _ours(rope, positions, np.full(20, 20))
    for a, b in zip(ours, _theirs(module, positions), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_rotate_is_apply_rotary_pos_emb(dtype):
    """The half-split layout, and the precision of each type."""
    module, rope = _pair(STATIC["plain"], 16)
    rng = np.random.default_rng(0)
    x = rng.standard_normal((12, 3, 16)).astype(np.float32)
    positions = np.arange(100, 112)
    cos, sin = _ours(rope, positions, positions + 1, 16)
    ours = rope_lib.rotate(jnp.asarray(x, dtype), cos, sin)
    x_torch = torch.tensor(x).to(getattr(torch, dtype))[None].transpose(1, 2)
    cos, sin = module(x_torch, torch.tensor(positions)[None])
    theirs, _ = modeling.apply_rotary_pos_emb(x_torch, x_torch, cos, sin)
    theirs = theirs[0].transpose(0, 1).float().numpy()
    atol = 1e-6 if dtype == "float32" else 0.03
    np.testing.assert_allclose(ours.astype(jnp.float32), theirs, atol=atol)
