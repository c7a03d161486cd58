"""Weights quantised while they are read: no more than a few blocks are ever floats.

Whoever is to hold a weight as int8 (`jaxmoe.ops.int8`) asks for two arrays, `NAME` and
`NAME.scales`, of one that is stored as floats. Both are made of whole outputs, whatever
part of them a device holds: the numbers do not change with the mesh.
"""

import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from jaxmoe.checkpoints.chunks import chunks
from jaxmoe.checkpoints.placement import Index, Read, aligned
from jaxmoe.ops.int8 import Quantised, quantise
from jaxmoe.ops.packed import SCALES

Wanted = Mapping[str, jax.ShapeDtypeStruct]


@dataclass(frozen=True)
class Quantiser:
    """What is to be quantised of a checkpoint: name -> how many axes are inputs."""

    shapes: Mapping[str, tuple[int, ...]]
    inputs: Mapping[str, int]
    _kept: dict[Any, np.ndarray] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def of(cls, wanted: Wanted, stored: Mapping[str, np.dtype]) -> "Quantiser":
        """Of those wanted as int8 that are stored as another type."""
        shapes = {
            name: tuple(leaf.shape)
            for name, leaf in wanted.items()
            if leaf.dtype == np.int8
            and name + SCALES in wanted
            and stored.get(name, np.dtype(np.int8)) != np.int8
        }
        inputs = {n: len(s) - len(wanted[n + SCALES].shape) for n, s in shapes.items()}
        return cls(shapes, inputs)

    def stored(self, wanted: Wanted) -> dict[str, jax.ShapeDtypeStruct]:
        """Name -> shape and type of what is to be read: float32 for int8."""
        return {
            name: jax.ShapeDtypeStruct(leaf.shape, np.float32)
            if name in self.shapes
            else leaf
            for name, leaf in wanted.items()
            if name.removesuffix(SCALES) not in self.shapes or name in self.shapes
        }

    def reader(self, reader: Callable[[str], Read]) -> Callable[[str], Read]:
        """From a name to what reads it, quantised where it is to be."""

        def find(name: str) -> Read:
            if name in self.shapes:
                read = reader(name)
                return lambda index: self._values(name, read, index)
            source = name.removesuffix(SCALES)
            if source in self.shapes:
                read = reader(source)
                return lambda index: self._scales(source, read, index)
            return reader(name)

        return find

    def _values(self, name: str, read: Read, index: Index) -> np.ndarray:
        found = self._quantised(name, read, index)
        # The scales of these outputs are wanted too, most likely next.
        with self._lock:
            self._kept[name, _bounds(self._outputs(name, index))] = found.scales
        return found.values

    def _scales(self, name: str, read: Read, index: Index) -> np.ndarray:
        with self._lock:
            kept = self._kept.pop((name, _bounds(index)), None)
        if kept is not None:
            return kept
        inputs = self.shapes[name][len(index) :]
        everything = (*index, *(slice(0, size) for size in inputs))
        return self._quantised(name, read, everything).scales

    def _outputs(self, name: str, index: Index) -> Index:
        return index[: len(index) - self.inputs[name]]

    def _quantised(self, name: str, read: Read, index: Index) -> Quantised:
        """The part `index` of the integers, and the scales of its outputs."""
        outputs, depth = self._outputs(name, index), self.inputs[name]
        widths = self.shapes[name][-depth:]
        sizes = tuple(part.stop - part.start for part in outputs)
        shape = tuple(part.stop - part.start for part in index)
        values = aligned(shape, np.dtype(np.int8))
        scales = aligned(sizes, np.dtype(np.float32))
        for chunk in chunks((*sizes, *widths), np.dtype(np.float32).itemsize):
            rows = chunk.index[: len(sizes)]
            source = tuple(
                slice(part.start + row.start, part.start + row.stop)
                for part, row in zip(outputs, rows, strict=True)
            )
            wide = read((*source, *(slice(0, width) for width in widths)))
            count = wide.shape[: len(sizes)]
            part = quantise(wide.reshape(*count, math.prod(widths)))
            whole = part.values.reshape(wide.shape)
            values[rows] = whole[(..., *index[len(sizes) :])]
            scales[rows] = part.scales
        return Quantised(values, scales)


def _bounds(index: Index) -> tuple[tuple[int, int], ...]:
    """Hashable, as slices are not."""
    return tuple((part.start, part.stop) for part in index)
