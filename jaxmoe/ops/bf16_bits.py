"""bfloat16 weights as bits, for processors without fast bfloat16 arithmetic.

On CPU, XLA turns a whole bfloat16 stack into float32 before a loop that reads one
slice of it, and its bfloat16 products are slow. Held as uint16, a slice is widened
after it is cut, exactly (bfloat16 is the upper half of float32), at half the traffic.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxmoe.ops.packed import Packed
from jaxmoe.ops.stack import OfLayer, whole
from jaxmoe.typing import Array


def is_bits(weight: Array | OfLayer | Packed) -> bool:
    """Whether `weight` holds bfloat16 values as their bits."""
    return not isinstance(weight, Packed) and weight.dtype == jnp.uint16


def widen(weight: Array | OfLayer | Packed, dtype=jnp.float32) -> Array:
    """`weight` as values of `dtype`; bits become exact float32 first."""
    if isinstance(weight, Packed):
        return weight.widen(dtype)
    weight = whole(weight)
    if is_bits(weight):
        bits = weight.astype(jnp.uint32) << 16
        weight = lax.bitcast_convert_type(bits, jnp.float32)
    return weight.astype(dtype)


def held_dtype(platform: str, dtype: Any) -> np.dtype:
    """The type in which weights of a type are read for `platform`: bits of bfloat16.

    float16 is read as it is, to be rounded to it, and widened by `hold_for`.
    """
    bits = platform == "cpu" and dtype == jnp.bfloat16
    return np.dtype(np.uint16 if bits else dtype)


def hold_for(platform: str, array: Array) -> Array:
    """`array` as weights are held on `platform`: on CPU bfloat16 as its bits.

    float16, which CPUs compute as slowly, becomes float32. The sharding stays, also
    where other processes hold some of the shards; every process has to call this.
    """
    if platform != "cpu":
        return array
    if array.dtype == jnp.bfloat16:
        return _by_shard(array, lambda values: values.view(np.uint16))
    if array.dtype == jnp.float16:
        return _by_shard(array, lambda values: values.astype(np.float32))
    return array


def _by_shard(array: Array, change: Callable[[np.ndarray], np.ndarray]) -> Array:
    """`array` with its shards changed on the host; only this process's are seen."""
    parts = [
        jax.device_put(change(np.asarray(shard.data)), shard.device)
        for shard in array.addressable_shards
    ]
    sharding = array.sharding
    return jax.make_array_from_single_device_arrays(array.shape, sharding, parts)
