"""How a stored parameter is cut into chunks, each a run of bytes in C order."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

CHUNK_BYTES = 32 << 20


@dataclass(frozen=True)
class Chunk:
    """A run of consecutive elements of an array: `array[index]`, `start` to `stop`."""

    index: tuple[slice, ...]
    shape: tuple[int, ...]
    start: int
    stop: int


def chunk_shape(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """The stored chunk: consecutive in memory, of at most about `CHUNK_BYTES`.

    Trailing axes stay whole, one axis is cut, those before it have size 1. The cut is
    even, as every chunk on disk has the full size: 33 as 32 + 1 would store 64.
    """
    inner = itemsize
    for axis in reversed(range(len(shape))):
        if inner * shape[axis] > CHUNK_BYTES:
            most = max(1, CHUNK_BYTES // inner)
            pieces = math.ceil(shape[axis] / most)
            rows = math.ceil(shape[axis] / pieces)
            return (1,) * axis + (rows,) + shape[axis + 1 :]
        inner *= shape[axis]
    return tuple(max(1, size) for size in shape)


def chunks(
    shape: tuple[int, ...], itemsize: int, sizes: tuple[int, ...] | None = None
) -> Iterator[Chunk]:
    """The chunks of an array in C order; `start` and `stop` count elements.

    sizes: the shape of a chunk, as `chunk_shape` gives it where it is not stated.
    """
    if 0 in shape:
        return
    sizes = chunk_shape(shape, itemsize) if sizes is None else sizes
    grid = [math.ceil(n / c) for n, c in zip(shape, sizes, strict=True)]
    start = 0
    for at in np.ndindex(*grid):
        index = tuple(
            slice(i * c, min(n, (i + 1) * c))
            for i, c, n in zip(at, sizes, shape, strict=True)
        )
        extent = tuple(s.stop - s.start for s in index)
        stop = start + math.prod(extent)
        yield Chunk(index, extent, start, stop)
        start = stop


def chunk_name(chunk: Chunk, sizes: tuple[int, ...]) -> str:
    """The name of a chunk's file in Zarr: its place in the grid, "0.3.0"."""
    at = (part.start // size for part, size in zip(chunk.index, sizes, strict=True))
    return ".".join(map(str, at)) or "0"
