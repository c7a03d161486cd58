"""Parts of stored chunks, read from a bucket by ranges of bytes.

TensorStore fetches chunks whole. Ours are raw bytes in C order, so where what is wanted
of each chunk is one run of bytes (experts, heads of queries, rows of a vocabulary), no
more than that run is asked for.
"""

import itertools
import math
import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from jaxmoe.checkpoints.checksums import Blocks
from jaxmoe.checkpoints.gcs import context, explained, place_of, store_spec
from jaxmoe.checkpoints.placement import Index, aligned

RANGE_BYTES = 8 << 20
"""Bytes asked for at a time."""
WINDOW = 4
"""Ranges asked for ahead, by each thread."""


@dataclass(frozen=True)
class Run:
    """Elements `start` to `stop` of a chunk; they go to `target` of the flat part."""

    chunk: str
    start: int
    stop: int
    target: int


def runs(sizes: tuple[int, ...], index: Index) -> list[Run] | None:
    """What to read of each chunk for the part `index` of an array.

    sizes: the shape of a chunk: of size 1 up to one axis, whole after it. None where a
    run would hold more than is wanted.

    >>> runs((2, 4), (slice(1, 4), slice(0, 4)))  # chunks "0.0" and "1.0", 8 elements
    [Run("0.0", 4, 8, 0), Run("1.0", 0, 8, 4)]
    """
    extent = tuple(part.stop - part.start for part in index)
    if 0 in extent:
        return []
    grids = [
        range(part.start // size, math.ceil(part.stop / size))
        for part, size in zip(index, sizes, strict=True)
    ]
    found = []
    for at in itertools.product(*grids):
        corner = [a * size for a, size in zip(at, sizes, strict=True)]
        boxes = list(zip(index, corner, sizes, strict=True))
        lows = [max(part.start - c, 0) for part, c, _ in boxes]
        highs = [min(part.stop - c, size) for part, c, size in boxes]
        inner = [high - low for low, high in zip(lows, highs, strict=True)]
        if not _is_run(inner, sizes):
            return None
        start = _flat(lows, sizes)
        origin = [max(c - part.start, 0) for part, c, _ in boxes]
        name = ".".join(map(str, at)) or "0"
        stop = start + math.prod(inner)
        found.append(Run(name, start, stop, _flat(origin, extent)))
    return found


def _is_run(extent: list[int], sizes: tuple[int, ...]) -> bool:
    """Whether a box of this extent in an array of `sizes` is consecutive in memory."""
    cut = next((axis for axis, n in enumerate(extent) if n > 1), len(extent))
    return extent[cut + 1 :] == list(sizes[cut + 1 :])


def _flat(at: list[int], shape: tuple[int, ...]) -> int:
    """The place of an element in C order."""
    place = 0
    for i, size in zip(at, shape, strict=True):
        place = place * size + i
    return place


def read_runs(
    path: str | os.PathLike,
    name: str,
    found: list[Run],
    index: Index,
    dtype: np.dtype,
    blocks: Blocks | None = None,
) -> np.ndarray:
    """The part `index` of parameter `name` of the checkpoint `path`, by its runs.

    With `blocks`, whole blocks are read, and checked.

    Raises:
      OSError: Google Cloud Storage refuses or fails.
      ValueError: a chunk is missing, too short or damaged.
    """
    import tensorstore as ts

    out = aligned(tuple(part.stop - part.start for part in index), dtype)
    raw = out.reshape(-1).view(np.uint8)
    spec = store_spec(path, "params", name)
    store = ts.KvStore.open(spec, context=context(path)).result()
    waiting: deque[tuple[Any, Run, int, int]] = deque()

    def take():
        future, run, start, stop = waiting.popleft()
        try:
            value = future.result().value
        except ValueError as error:
            if "OUT_OF_RANGE" not in str(error):
                raise explained(f"{place_of(path)}/params/{name}", error) from None
            value = b""
        if len(value) != stop - start:
            raise ValueError(
                f"parameter {name} is damaged or incomplete (chunk {run.chunk} is "
                "missing or too short); convert the source again"
            )
        data = np.frombuffer(value, np.uint8)
        if blocks is not None:
            blocks.check(run.chunk, start, data)
        first, last = run.start * dtype.itemsize, run.stop * dtype.itemsize
        low, high = max(start, first), min(stop, last)
        target = run.target * dtype.itemsize + low - first
        raw[target : target + high - low] = data[low - start : high - start]

    for run, start, stop in _ranges(found, dtype.itemsize, blocks):
        if len(waiting) == WINDOW:
            take()
        span = store.read(run.chunk, byte_range=slice(start, stop))
        waiting.append((span, run, start, stop))
    while waiting:
        take()
    return out


def _ranges(
    found: list[Run], itemsize: int, blocks: Blocks | None
) -> Iterator[tuple[Run, int, int]]:
    """The bytes, start to stop, of each chunk to ask for at a time."""
    step = RANGE_BYTES
    if blocks is not None:
        step = max(1, step // blocks.block) * blocks.block
    for run in found:
        low, high = run.start * itemsize, run.stop * itemsize
        if blocks is not None:
            low, high = blocks.whole(run.chunk, low, high)
        for start in range(low, high, step):
            yield run, start, min(high, start + step)
