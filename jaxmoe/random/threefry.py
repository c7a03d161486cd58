"""Threefry-2x32 (Random123, SC 2011) with its rounds written out.

The numbers are those of jax's own `threefry2x32` keys (those of its default setting,
`jax_threefry_partitionable`, whatever it is set to). On CPU jax rolls the rounds up
into a loop, which XLA runs as dozens of small operations and takes half a second to
compile, for every place that draws; written out they are one. Registered as a key
implementation, so that `jax.random` works on it as on any other.
"""

import math
from functools import partial

import jax
import jax.extend
import jax.numpy as jnp
from jax import lax

from jaxmoe.typing import Array

NAME = "threefry2x32"
"""jax's own implementation, whose keys callers bring."""

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA


# Inlined where it is called inside another jit; alone it would else be a hundred
# operations, each started by Python.
@partial(jax.jit, inline=True)
def block(key: Array, high: Array, low: Array) -> tuple[Array, Array]:
    """Twenty rounds on the counters (high, low), uint32 of any equal shape.

    key: uint32 [2].
    """
    first, second = key[0], key[1]
    schedule = (first, second, first ^ second ^ jnp.uint32(_PARITY))
    x, y = high + first, low + second
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            x = x + y
            y = (y << jnp.uint32(rotation)) | (y >> jnp.uint32(32 - rotation))
            y = x ^ y
        x = x + schedule[(group + 1) % 3]
        y = y + schedule[(group + 2) % 3] + jnp.uint32(group + 1)
    return x, y


def _fold_in(key: Array, data: Array | int) -> Array:
    low = jnp.asarray(data).astype(jnp.uint32)
    words = jnp.stack(block(key, jnp.zeros_like(low), low))
    # Behind a barrier: XLA would write the rounds out wherever the key is used.
    return lax.optimization_barrier(words)


def _random_bits(key: Array, bit_width: int, shape: tuple[int, ...]) -> Array:
    """The element of flat index c is block(key, 0, c), its two words xored."""
    size = math.prod(shape)
    if bit_width != 32 or size >= 1 << 32:
        raise NotImplementedError(
            f"32 bits, fewer than 2^32; found {bit_width}, {size}"
        )
    low = jnp.arange(size, dtype=jnp.uint32).reshape(shape)
    x, y = block(key, jnp.zeros_like(low), low)
    return x ^ y


def _seed(seed: Array) -> Array:
    return jax.random.key_data(jax.random.key(seed, impl=NAME))


def _split(key: Array, shape: tuple[int, ...]) -> Array:
    theirs = jax.random.wrap_key_data(key, impl=NAME)
    return jax.random.key_data(jax.random.split(theirs, shape))


_UNROLLED = jax.extend.random.define_prng_impl(
    key_shape=(2,),
    seed=_seed,
    split=_split,
    random_bits=_random_bits,
    fold_in=_fold_in,
    name="threefry2x32_unrolled",
    tag="thu",
)


def unrolled(key: Array) -> Array:
    """The threefry key `key` as one whose draws are written out; the same numbers."""
    return jax.random.wrap_key_data(jax.random.key_data(key), impl=_UNROLLED)
