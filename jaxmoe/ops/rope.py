"""Rotary position embedding: pairs of coordinates turned by position * frequency.

Pair i of a head is (x[i], x[i + A/2]), or (x[2i], x[2i + 1]), turned by
position * theta^(-2i/A) (RoFormer, arXiv 2104.09864, equation 34), with frequencies
changed by the scalings of `RopeConfig`. Where only the first coordinates of a head are
turned, A is their number. Everything is float32, in transformers' order of operations.
"""

import math

import jax.numpy as jnp
import numpy as np

from jaxmoe.config import RopeConfig, RopePairs
from jaxmoe.typing import Array, Float, Int


def inverse_frequencies(
    rope: RopeConfig, head_dim: int, length: Int[Array, "..."]
) -> Float[Array, "... A2"]:
    """Radians per position of each pair.

    Args:
      rope: the kind of embedding and its scaling.
      head_dim: A, the coordinates of a head that are turned.
      length: tokens in the sequence of the pass: the whole prompt in a prefill,
        position + 1 in a step. Only dynamic scaling reads it, and only once it
        exceeds `rope.original_length`; what was cached keeps the turn it was given.

    Returns:
      float32, [A/2], and for dynamic scaling [..., A/2] with the shape of `length`.
    """
    if rope.kind == "dynamic":
        return _dynamic(rope, head_dim, length)
    if rope.kind == "yarn":
        return jnp.asarray(_yarn(rope, head_dim))
    frequencies = 1 / _wavelengths(rope.theta, head_dim)
    if rope.kind == "linear":
        frequencies /= np.float32(rope.factor)
    return jnp.asarray(frequencies)


def rotation(
    rope: RopeConfig,
    head_dim: int,
    positions: Int[Array, "T"],
    lengths: Int[Array, "T"],
) -> tuple[Float[Array, "T A2"], Float[Array, "T A2"]]:
    """Cosine and sine of every token's angles, times `rope.attention_factor`.

    Args:
      rope: the kind of embedding and its scaling.
      head_dim: the coordinates of a head, of which `rope` may turn some only.
      positions: absolute position of each token, below 2^24 (float32 is exact).
      lengths: for each token, as `length` of `inverse_frequencies`.
    """
    turned = rope.turned(head_dim)
    frequencies = inverse_frequencies(rope, turned, lengths)
    shape = (positions.shape[0], turned // 2)
    angles = positions.astype(jnp.float32)[:, None] * jnp.broadcast_to(
        frequencies, shape
    )
    scale = jnp.float32(rope.attention_factor)
    return jnp.cos(angles) * scale, jnp.sin(angles) * scale


def rotate(
    x: Float[Array, "T H A"],
    cos: Float[Array, "T R2"],
    sin: Float[Array, "T R2"],
    pairs: RopePairs = "halves",
) -> Float[Array, "T H A"]:
    """Turns each pair by its angle, in float32, into x's type.

    The pairs are of the first R coordinates; what follows stays as it is.
    """
    width = 2 * cos.shape[-1]
    if width < x.shape[-1]:
        turned = rotate(x[..., :width], cos, sin, pairs)
        return jnp.concatenate([turned, x[..., width:]], axis=-1)
    wide = x.astype(jnp.float32)
    if pairs == "halves":
        first, second = jnp.split(wide, 2, axis=-1)
    else:
        first, second = wide[..., 0::2], wide[..., 1::2]
    cos, sin = cos[:, None, :], sin[:, None, :]
    turned = (first * cos - second * sin, second * cos + first * sin)
    if pairs == "halves":
        return jnp.concatenate(turned, axis=-1).astype(x.dtype)
    return jnp.stack(turned, axis=-1).reshape(x.shape).astype(x.dtype)


def _exponents(head_dim: int) -> np.ndarray:
    """2i / A of each pair, float32 [A/2]."""
    return np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)


def _wavelengths(theta: float, head_dim: int) -> np.ndarray:
    """theta^(2i/A), float32 [A/2]: positions per radian."""
    # Powers taken in float64 round to float32 as torch's do; NumPy's float32 powers
    # are often an ulp off.
    base = np.float64(np.float32(theta))
    return np.power(base, _exponents(head_dim).astype(np.float64)).astype(np.float32)


def _dynamic(
    rope: RopeConfig, head_dim: int, length: Int[Array, "..."]
) -> Float[Array, "... A2"]:
    """Dynamic NTK: theta grows with the length n beyond `original_length` n0.

    theta' = theta * (factor * n / n0 - (factor - 1)) ^ (A / (A - 2))
    """
    limit = rope.original_length
    n = jnp.maximum(length, limit).astype(jnp.float32)[..., None]
    stretch = rope.factor * n / limit - (rope.factor - 1)
    theta = rope.theta * stretch ** (head_dim / (head_dim - 2))
    lead = (1,) * length.ndim
    exponents = jnp.asarray(_exponents(head_dim)).reshape(*lead, -1)
    plain = jnp.asarray(1 / _wavelengths(rope.theta, head_dim)).reshape(*lead, -1)
    return jnp.where((length > limit)[..., None], 1.0 / theta**exponents, plain)


def _yarn(rope: RopeConfig, head_dim: int) -> np.ndarray:
    """YaRN (arXiv 2309.00071, section 3.2): float32 [A/2].

    Pairs that turn more than `beta_fast` times within `original_length` keep their
    frequency, those that turn less than `beta_slow` times have it divided by
    `factor`, with a linear ramp over the pairs between.
    """

    def pair_with(turns: float) -> float:
        lengths = math.log(rope.original_length / (turns * 2 * math.pi))
        return head_dim * lengths / (2 * math.log(rope.theta))

    low, high = pair_with(rope.beta_fast), pair_with(rope.beta_slow)
    if rope.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    if low == high:
        high += 0.001  # a step instead of a ramp
    pairs = np.arange(head_dim // 2, dtype=np.float32)
    ramp = np.clip((pairs - np.float32(low)) / np.float32(high - low), 0, 1)
    wavelengths = _wavelengths(rope.theta, head_dim)
    kept = 1 - ramp
    scaled = 1 / (np.float32(rope.factor) * wavelengths)
    return scaled * (1 - kept) + 1 / wavelengths * kept
