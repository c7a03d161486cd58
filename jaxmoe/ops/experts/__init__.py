"""Applying chosen experts: one call, several implementations.

`apply_experts` computes, for every row n, sum over j of weights[n, j] times expert
experts[n, j] of x[n], where an expert is down(activation(gate(x), up(x))). Rows of all
samples stand flat beside each other, so that they share one read of an expert, and no
row is ever dropped, however skewed the routing.
"""

from importlib.util import find_spec
from typing import Any, Literal

import jax

from jaxmoe.ops.activations import SWIGLU, Activation
from jaxmoe.ops.experts.batched import apply_batched
from jaxmoe.ops.experts.bias import ExpertBias
from jaxmoe.ops.experts.blocks import apply_blocks
from jaxmoe.ops.experts.lanes import apply_lanes
from jaxmoe.ops.experts.ragged import apply_ragged
from jaxmoe.ops.experts.reference import apply_reference
from jaxmoe.ops.packed import Packed
from jaxmoe.ops.stack import OfLayer, whole
from jaxmoe.typing import Array, Float, Int, Num

Implementation = Literal[
    "auto", "reference", "batched", "blocks", "lanes", "ragged", "pallas"
]

_TRITON = "jax.experimental.pallas.triton"


def _apply_pallas(*args: Any) -> Array:
    device = jax.devices()[0]
    if device.platform != "cpu" and not runs_kernels(device):
        raise ValueError(
            "implementation='pallas' needs CUDA of compute capability 8.0 or later "
            f"and {_TRITON}, or a CPU to be interpreted on; found "
            f"{device.device_kind}, jax {jax.__version__}; use 'ragged'"
        )
    # Imported when asked for: jax 0.11 announces the end of this backend.
    from jaxmoe.ops.experts.pallas import apply_pallas

    return apply_pallas(*args)


_IMPLEMENTATIONS = {
    "reference": apply_reference,
    "batched": apply_batched,
    "blocks": apply_blocks,
    "lanes": apply_lanes,
    "ragged": apply_ragged,
    "pallas": _apply_pallas,
}

_FLOATS_ONLY = ("ragged", "pallas")
"""They would have to widen the experts of a layer all at once."""


def runs_kernels(device: Any) -> bool:
    """Whether Triton compiles for `device`: CUDA, compute capability 8.0 or later."""
    capability = str(getattr(device, "compute_capability", ""))
    major = capability.partition(".")[0]  # "9" of "9.0"; AMD's are named, as "gfx942"
    return major.isdigit() and int(major) >= 8 and find_spec(_TRITON) is not None


def apply_experts(
    x: Float[Array, "N D"],
    experts: Int[Array, "N K"],
    weights: Float[Array, "N K"],
    gate_up: Num[Array, "E 2 F D"] | OfLayer | Packed,
    down: Num[Array, "E D F"] | OfLayer | Packed,
    *,
    implementation: str,
    activation: Activation = SWIGLU,
    bias: ExpertBias | None = None,
) -> Float[Array, "N D"]:
    """Weighted sum of the chosen experts of each row.

    experts: -1 for a place that stays empty (its weight is not looked at).
    gate_up, down: any float type, uint16 holding bfloat16 bits, or packed.
    implementation: "batched" and "ragged" have gradients; "blocks" and "lanes" read one
      expert at a time.
    activation: static. bias: of experts that have one.

    Raises:
      ValueError: an implementation that does not exist, not on this device, or not for
        packed weights.
    """
    if implementation not in _IMPLEMENTATIONS:
        raise ValueError(
            f"implementation must be one of {', '.join(_IMPLEMENTATIONS)}; "
            f"found {implementation!r}"
        )
    packed = [w for w in (gate_up, down) if isinstance(w, Packed)]
    if packed and implementation in _FLOATS_ONLY:
        raise ValueError(
            f"implementation={implementation!r} reads experts that are floats, found "
            f"{type(packed[0]).__name__}; use 'blocks' or 'lanes', or 'auto'"
        )
    if implementation not in ("blocks", "lanes"):
        gate_up, down = whole(gate_up), whole(down)
        bias = None if bias is None else bias.whole()
    apply = _IMPLEMENTATIONS[implementation]
    with jax.named_scope("experts"):
        return apply(x, experts, weights, gate_up, down, activation, bias)


__all__ = ["ExpertBias", "Implementation", "apply_experts", "runs_kernels"]
