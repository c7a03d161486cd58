"""How a model is run: its mesh and its kernels, chosen once.

The only file that asks for a platform: kernels follow the devices that hold the
weights, and everything above takes an `Execution` as a static argument.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import jax
from jax.core import Tracer

from jaxmoe.ops.experts import Implementation
from jaxmoe.sharding.layout import Layout, single_device_layout

Layers = Literal["scan", "unroll"]
AttentionForm = Literal["chunked", "whole", "dense"]

STACKED = ":"
"""In the name of a weight: it holds several layers, as `layers.0:48.mixer.q.weight`."""


@dataclass(frozen=True)
class Execution:
    """Mesh and kernels; hashable, a static argument of every program.

    layout: how weights and slots lie on devices; one device is a mesh of one.
    attention: "chunked" reads only what is filled of a cache, in a loop, for CPUs;
      "whole" is few large operations; "dense" is whole sequences with gradients.
    experts: an implementation of `jaxmoe.ops.experts`.
    layers: "scan" loops over layers of one kind, whose weights are stacked; "unroll"
      writes every layer out.
    weight_left: products of few rows have the weight on the left (`ops.matmul`).
    """

    layout: Layout
    attention: AttentionForm
    experts: str
    layers: Layers
    weight_left: bool

    def using(self, implementation: Implementation) -> "Execution":
        """With another implementation of the experts; "auto" leaves it.

        Raises:
          ValueError: no such implementation.
        """
        known = get_args(Implementation)
        if implementation not in known:
            raise ValueError(
                f"implementation must be one of {', '.join(known)}; found "
                f"{implementation!r}"
            )
        if implementation == "auto":
            return self
        return replace(self, experts=implementation)


def default_layers(platform: str) -> Layers:
    """How layers are run on a platform, and so how `load` lays their weights out.

    On CPU a scan compiles in a tenth of the time and runs as fast. On accelerators it
    has not been measured; some copy a layer's slice before a library call.
    """
    return "scan" if platform == "cpu" else "unroll"


def execution_on(
    platform: str,
    layout: Layout,
    *,
    layers: Layers = "unroll",
) -> Execution:
    """The kernels of a platform: on CPU the block loop and attention in chunks.

    On CPU `lax.ragged_dot` is a masked dense product over all experts. "pallas" is
    for who asks for it, until its kernels have been run on a GPU.
    """
    cpu = platform == "cpu"
    return Execution(
        layout=layout,
        attention="chunked" if cpu else "whole",
        experts="blocks" if cpu else "ragged",
        layers=layers,
        weight_left=cpu,
    )


def execution_for(
    params: Mapping[str, Any],
    layout: Layout | None = None,
    *,
    implementation: Implementation = "auto",
) -> Execution:
    """How the model of these weights is run.

    Args:
      params: the weights; under a jit of one's own, or where they are abstract, they
        have no devices, and the default device counts.
      layout: how they lie on several devices; None for one.
      implementation: of the experts; "auto" for the platform's.
    """
    layout = layout or single_device_layout(_device_of(next(iter(params.values()))))
    layers: Layers = "scan" if any(STACKED in name for name in params) else "unroll"
    found = execution_on(platform_of(layout), layout, layers=layers)
    return found.using(implementation)


def platform_of(layout: Layout) -> str:
    """The platform of the layout's devices; of the default one where it has none."""
    mesh = layout.mesh
    devices = (
        mesh.devices.flat if isinstance(mesh, jax.sharding.Mesh) else jax.devices()
    )
    return devices[0].platform


def _device_of(weight: Any) -> Any:
    if isinstance(weight, jax.Array) and not isinstance(weight, Tracer):
        return min(weight.devices(), key=lambda device: device.id)
    return jax.devices()[0]
