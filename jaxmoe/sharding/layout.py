"""A mesh and the rules by which things lie on it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import jax
import numpy as np
from jax.sharding import (
    AbstractMesh,
    AxisType,
    Mesh,
    NamedSharding,
    PartitionSpec,
    SingleDeviceSharding,
)

from jaxmoe.sharding.rules import Preset, Rules, check_rules, rules_for

BATCH = "batch"
"""The mesh axis over which examples are spread in training."""


def batch_mesh(devices: Sequence[Any]) -> Mesh:
    """A mesh of the one axis `BATCH`."""
    return Mesh(np.array(devices), (BATCH,))


@dataclass(frozen=True)
class Layout:
    """A mesh and the rules by which things lie on it; hashable, a static argument."""

    mesh: Mesh | AbstractMesh
    rules: Rules

    def size(self, axes: Sequence[str]) -> int:
        """Devices along these mesh axes."""
        return math.prod(self.mesh.shape[axis] for axis in axes)

    def spec(self, *logical: str | None) -> PartitionSpec:
        """How an array lies whose dimensions have these logical axes."""
        return PartitionSpec(*(self.rules.of(name) or None for name in logical))

    def sharding(self, *logical: str | None) -> NamedSharding:
        """As `spec`, with the mesh."""
        return NamedSharding(self.mesh, self.spec(*logical))

    @property
    def single(self) -> SingleDeviceSharding | None:
        """The only device, as arrays are bound to it; None of several."""
        if self.mesh.size > 1 or not isinstance(self.mesh, Mesh):
            return None
        return SingleDeviceSharding(self.mesh.devices.flat[0])

    def shardings(self, specs: Any) -> Any:
        """A tree of specs as shardings."""
        place = lambda spec: NamedSharding(self.mesh, spec)  # noqa: E731
        return jax.tree.map(
            place, specs, is_leaf=lambda leaf: isinstance(leaf, PartitionSpec)
        )

    def placed(self, specs: Any) -> Any:
        """As `shardings`, for what a program gives back; None on one device.

        There results stay where the weights are: bound to the device as these are, so
        that no second call compiles anew.
        """
        return None if self.mesh.size == 1 else self.shardings(specs)

    def cached_heads(self, kv_heads: int) -> int:
        """Key-value heads of a cache: one a device at least, some then repeated."""
        return max(kv_heads, self.size(self.rules.heads))

    def spans_processes(self) -> bool:
        """Whether its devices belong to more than one process."""
        devices = self.mesh.devices.flat if isinstance(self.mesh, Mesh) else ()
        return len({device.process_index for device in devices}) > 1

    def describe(self) -> dict[str, Any]:
        """Shape and rules in plain values, for a record of what was run."""
        named = {f.name: list(getattr(self.rules, f.name)) for f in fields(self.rules)}
        return {"shape": dict(self.mesh.shape), "rules": named}

    def slots(self, wanted: int) -> int:
        """The fewest slots, `wanted` or more, that all devices share equally."""
        parts = self.size(self.rules.slots)
        return -(-wanted // parts) * parts


def single_device_layout(device: Any) -> Layout:
    """The mesh of one device, where nothing is divided."""
    return Layout(Mesh(np.array([device]), ("data",)), Rules())


def layout_for(
    mesh: Mesh | AbstractMesh,
    rules: Rules | Preset,
    sizes: Mapping[str, Sequence[int]],
) -> Layout:
    """The layout of a model on a mesh.

    Args:
      mesh: any; its axes are taken over as `AxisType.Auto`, as each program here says
        itself what each device does (`jax.shard_map`).
      rules: a preset, or rules of one's own.
      sizes: logical axis -> the sizes it has in the model (`nn.decoder.axis_sizes`).

    Raises:
      ValueError: what does not divide, with the nearest numbers that do.
    """
    shape = dict(mesh.shape)
    if not isinstance(rules, Rules):
        rules = rules_for(rules, shape, sizes)
    unknown = [axis for axis in rules.mesh_axes if axis not in shape]
    if unknown:
        raise ValueError(
            f"rules name the mesh axes {', '.join(unknown)}, the mesh has "
            f"{', '.join(shape)}; name those"
        )
    check_rules(rules, shape, sizes)
    if isinstance(mesh, Mesh):
        kinds = (AxisType.Auto,) * len(mesh.axis_names)
        mesh = Mesh(mesh.devices, mesh.axis_names, axis_types=kinds)
    return Layout(mesh, rules)
