"""Products by weights as they are stored, output rows by input columns.

Written so that XLA keeps to its fast forms of them.
"""

from jax import lax
from jax import numpy as jnp

from jaxmoe.typing import Array

FEW_ROWS = 128
"""Below so many rows a CPU is faster with the weight on the left: its library then
packs the few rows for its kernel instead of the whole weight."""

LARGE = 1 << 16
"""Values of a weight from which that pays for the transpose of the result."""


def precision_for(dtype) -> lax.Precision:
    """Full float32 products for float32, which accelerators would else shorten.

    The default there is TF32 on GPUs and one bfloat16 pass on TPUs.
    """
    exact = jnp.dtype(dtype) == jnp.float32
    return lax.Precision.HIGHEST if exact else lax.Precision.DEFAULT


def multiply(x: Array, weight: Array, *, weight_left: bool = False) -> Array:
    """x [N, D] times weight [O, D] transposed, float32 [N, O].

    weight_left: where rows are few, have the weight on the left, for CPUs.
    """
    few = x.shape[0] < FEW_ROWS and weight.size >= LARGE
    if few and weight_left:
        # Behind a barrier: XLA would fold the transpose back into the product.
        return lax.optimization_barrier(contract(weight, x, 1, 1)).T
    return contract(x, weight, 1, 1)


def contract(left: Array, right: Array, left_axis: int, right_axis: int) -> Array:
    """The product of two matrices over one axis of each, float32."""
    return lax.dot_general(
        left,
        right,
        (((left_axis,), (right_axis,)), ((), ())),
        precision=precision_for(left.dtype),
        preferred_element_type=jnp.float32,
    )
