"""Matrix products by weights as they are stored: output rows, input columns."""

from jax import lax
from jax import numpy as jnp

from jaxmoe.typing import Array


def precision_for(dtype) -> lax.Precision:
    """Full float32 products for float32, which accelerators would else shorten.

    The default there is TF32 on GPUs and one bfloat16 pass on TPUs.
    """
    exact = jnp.dtype(dtype) == jnp.float32
    return lax.Precision.HIGHEST if exact else lax.Precision.DEFAULT


def multiply(x: Array, weight: Array) -> Array:
    """x [N, D] times weight [O, D] transposed, float32 [N, O]."""
    return lax.dot_general(
        x,
        weight,
        (((1,), (1,)), ((), ())),
        precision=precision_for(x.dtype),
        preferred_element_type=jnp.float32,
    )
