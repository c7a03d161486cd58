"""Runs of bytes of chunks: they make up the part asked for, and hold nothing else."""

import itertools

import numpy as np
import pytest

from jaxmoe.checkpoints import store
from jaxmoe.checkpoints.ranges import runs


def stored(values: np.ndarray, sizes: tuple[int, ...]) -> dict[str, np.ndarray]:
    """The chunks of an array as Zarr stores them, all of the full size."""
    grid = [-(-n // c) for n, c in zip(values.shape, sizes, strict=True)]
    room = [g * c for g, c in zip(grid, sizes, strict=True)]
    padded = np.full(room, -1)
    padded[tuple(slice(n) for n in values.shape)] = values
    found = {}
    for at in np.ndindex(*grid):
        pairs = zip(at, sizes, strict=True)
        box = padded[tuple(slice(a * c, a * c + c) for a, c in pairs)]
        found[".".join(map(str, at)) or "0"] = box.reshape(-1)
    return found


@pytest.mark.parametrize("shape", [(), (7,), (5, 6), (4, 2, 5), (2, 3, 2, 4)])
@pytest.mark.parametrize("limit", [8, 40, 100, 1 << 20])
def test_runs_make_up_the_part(monkeypatch, shape, limit):
    """A shard from a bucket would hold other values, or be read with its neighbours."""
    monkeypatch.setattr("jaxmoe.checkpoints.chunks.CHUNK_BYTES", limit)
    values = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    sizes = store.chunk_shape(shape, 8)
    chunks = stored(values, sizes)
    options = [[(0, n), (0, (n + 1) // 2), (n // 2, n), (1, 2)] for n in shape]
    read = 0
    for bounds in itertools.product(*options):
        index = tuple(slice(a, b) for a, b in bounds)
        found = runs(sizes, index)
        if found is None:
            continue
        read += 1
        wanted = values[index]
        out = np.full(wanted.size, -2)
        for run in found:
            count = run.stop - run.start
            out[run.target : run.target + count] = chunks[run.chunk][
                run.start : run.stop
            ]
        assert (out.reshape(wanted.shape) == wanted).all()
        assert sum(run.stop - run.start for run in found) == wanted.size
    assert read >= len(options[0]) if shape else read == 1


def test_parts_that_are_no_runs():
    """More than the part would be read and taken for it."""
    assert runs((4, 6), (slice(0, 4), slice(0, 3))) is None
    assert runs((4, 6), (slice(1, 2), slice(0, 3))) is not None
    assert runs((2, 6), (slice(1, 3), slice(0, 6))) is not None
    assert runs((2, 6), (slice(2, 2), slice(0, 6))) == []
