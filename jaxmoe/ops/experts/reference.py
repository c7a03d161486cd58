"""The gather reference: slow, plain, and what the others are held against."""

import jax.numpy as jnp

from jaxmoe.ops.activations import Activation
from jaxmoe.ops.bf16_bits import widen
from jaxmoe.ops.experts.bias import ExpertBias
from jaxmoe.ops.matmul import precision_for
from jaxmoe.ops.packed import Packed
from jaxmoe.ops.stack import take
from jaxmoe.typing import Array, Float, Int, Num


def apply_reference(
    x: Float[Array, "N D"],
    experts: Int[Array, "N K"],
    weights: Float[Array, "N K"],
    gate_up: Num[Array, "E 2 F D"] | Packed,
    down: Num[Array, "E D F"] | Packed,
    activation: Activation,
    bias: ExpertBias | None,
) -> Float[Array, "N D"]:
    """See `jaxmoe.ops.experts.apply_experts`. Copies K experts for every row."""
    chosen = jnp.maximum(experts, 0)
    hidden = jnp.einsum(
        "nd,nkgfd->nkgf",
        x,
        widen(take(gate_up, chosen), x.dtype),
        precision=precision_for(x.dtype),
        preferred_element_type=jnp.float32,
    )
    if bias is not None:
        hidden += widen(bias.gate_up[chosen])
    hidden = activation(hidden[:, :, 0], hidden[:, :, 1]).astype(x.dtype)
    out = jnp.einsum(
        "nkf,nkdf->nkd",
        hidden,
        widen(take(down, chosen), x.dtype),
        precision=precision_for(x.dtype),
        preferred_element_type=jnp.float32,
    )
    if bias is not None:
        out += widen(bias.down[chosen])
    # An empty place must not let a NaN of expert 0 through: 0 * NaN is NaN.
    weighted = jnp.where(experts[:, :, None] >= 0, out * weights[:, :, None], 0.0)
    return weighted.sum(axis=1).astype(x.dtype)
