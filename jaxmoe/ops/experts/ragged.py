"""The ragged path, for GPU and TPU: one grouped matrix product over sorted rows."""

import jax.numpy as jnp
from jax import lax

from jaxmoe.ops.activations import Activation
from jaxmoe.ops.bf16_bits import widen
from jaxmoe.ops.experts.bias import ExpertBias
from jaxmoe.ops.grouping import stable_order
from jaxmoe.ops.matmul import precision_for
from jaxmoe.ops.stack import OfLayer
from jaxmoe.typing import Array, Float, Int, Num

# Contract the last axis of both sides; the left rows are ragged, the right side's
# first axis is the group.
_DIMENSIONS = lax.RaggedDotDimensionNumbers(
    dot_dimension_numbers=(((1,), (2,)), ((), ())),
    lhs_ragged_dimensions=(0,),
    rhs_group_dimensions=(0,),
)


def apply_ragged(
    x: Float[Array, "N D"],
    experts: Int[Array, "N K"],
    weights: Float[Array, "N K"],
    gate_up: Num[Array, "E 2 F D"],
    down: Num[Array, "E D F"],
    activation: Activation,
    bias: ExpertBias | None,
) -> Float[Array, "N D"]:
    """See `jaxmoe.ops.experts.apply_experts`."""
    num_rows, width = experts.shape
    num_experts, _, hidden, model = gate_up.shape
    flat = experts.reshape(-1)
    group = jnp.where(flat < 0, num_experts, flat)
    order = stable_order(group, num_experts + 1)
    sizes = jnp.zeros(num_experts, jnp.int32).at[group].add(1, mode="drop")
    both = widen(gate_up, x.dtype).reshape(num_experts, 2 * hidden, model)
    gated = _grouped(x[order // width], both, sizes)
    if bias is not None:
        gated += _of_rows(bias.gate_up, group[order]).reshape(gated.shape)
    act = activation(gated[:, :hidden], gated[:, hidden:]).astype(x.dtype)
    out = _grouped(act, widen(down, x.dtype), sizes)
    if bias is not None:
        out += _of_rows(bias.down, group[order])
    # Back in (row, place) order, so that a row's sum does not depend on other rows.
    pairs = jnp.zeros_like(out).at[order].set(out)
    chosen = experts[:, :, None] >= 0
    pairs = pairs.reshape(num_rows, width, model) * weights[:, :, None]
    return jnp.where(chosen, pairs, 0.0).sum(axis=1).astype(x.dtype)


def _of_rows(bias: Array | OfLayer, group: Array) -> Array:
    """Each row's own, float32; 0 in rows of no group."""
    return widen(bias).at[group].get(mode="fill", fill_value=0)


def _grouped(rows: Array, weights: Array, sizes: Array) -> Array:
    return lax.ragged_dot_general(
        rows,
        weights,
        sizes,
        _DIMENSIONS,
        precision=precision_for(rows.dtype),
        preferred_element_type=jnp.float32,
    )
