"""Depthwise causal convolution: each channel, over its own last positions."""

import functools
import operator

import jax.numpy as jnp

from jaxmoe.typing import Array, Float


def causal_conv(
    x: Float[Array, "T2 *M"], weight: Float[Array, "*M J"]
) -> Float[Array, "T *M"]:
    """y[t] = sum over j of weight[:, j] * x[t + j], in float32.

    Args:
      x: inputs, the J - 1 before the first position among them: zeros where there are
        none.
      weight: of every channel, the latest position last.

    Returns:
      T = T2 - J + 1 positions.
    """
    size = weight.shape[-1]
    length = x.shape[0] - size + 1
    wide, weight = x.astype(jnp.float32), weight.astype(jnp.float32)
    terms = (weight[None, ..., j] * wide[j : j + length] for j in range(size))
    return functools.reduce(operator.add, terms)
