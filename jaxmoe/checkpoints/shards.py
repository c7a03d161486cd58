"""Shards of parameters, read straight out of safetensors files.

A tensor is a parameter, or the part at some indices of its leading axes
(`jaxmoe.checkpoints.plan`). So a shard is made up of boxes of tensors. Files are mapped
a window at a time, and of each box only the bytes that belong to the shard are copied.
"""

import math
import warnings
from collections.abc import Callable, Mapping

import jax
import numpy as np

from jaxmoe.checkpoints.chunks import chunks
from jaxmoe.checkpoints.errors import CheckpointError
from jaxmoe.checkpoints.placement import (
    STAGING_BYTES,
    Index,
    Read,
    aligned,
    place_all,
    unstacked,
)
from jaxmoe.checkpoints.plan import Fill, Piece, Plan
from jaxmoe.checkpoints.quantise import Quantiser
from jaxmoe.checkpoints.safetensors import Files
from jaxmoe.checkpoints.stream import BLOCK, check_scales, has_dead, has_nonfinite
from jaxmoe.checkpoints.weight_files import Weights
from jaxmoe.typing import Array

WINDOW = 32 << 20
"""Bytes of a file mapped at a time, in each thread; a longer row is mapped whole."""

Count = Callable[[int], object]
"""Is told of bytes copied out of files, from several threads."""


def read_params(
    weights: Weights,
    plan: Plan,
    abstract: Mapping[str, jax.ShapeDtypeStruct],
    *,
    jobs: int = 4,
    staging: int = STAGING_BYTES,
    count: Count = lambda _: None,
) -> dict[str, Array]:
    """The parameters of a planned checkpoint; each process reads its own shards.

    Args:
      weights: the checked files.
      plan: which tensors make up which parameter.
      abstract: name -> shape, type and sharding, for every parameter of the plan. A
        type other than the files' is cast to; without a sharding a parameter goes to
        the default device. int8, with scales, is quantised (`Quantiser`).
      jobs: parameters in flight.
      staging: as in `jaxmoe.checkpoints.store.restore`.
      count: told the bytes copied out of the files.

    Returns:
      What converting and `jaxmoe.checkpoints.store.restore` give, bit for bit.

    Raises:
      CheckpointError: a tied copy that differs, or a scale that is no number, in one
        of this process's shards.
      OSError: a file that shrank.
      ValueError: names or shapes in `abstract` that are not the plan's.

    Warns:
      UserWarning: NaN or infinite weights, or scales not above 0, in this process's
        shards, by parameter.
    """
    wanted = unstacked(abstract)
    kinds = {name: fill.dtype for name, fill in plan.fills.items()}
    quantiser = Quantiser.of(wanted, kinds)
    stored = quantiser.stored(wanted)
    _check_names(plan, stored)
    copies = {copy.param: copy for copy in plan.copies}
    bad: dict[str, str] = {}
    with Files(weights.directory, [h.file for h in weights.headers]) as files:

        def reader(name: str) -> Read:
            fill, dtype = plan.fills[name], np.dtype(stored[name].dtype)

            def read(index: Index) -> np.ndarray:
                if name in copies:
                    _check_copy(files, copies[name], fill, index, count)
                values = read_shard(files, fill, index, dtype, count)
                check_scales(name, values)
                if _any_nonfinite(values):
                    bad[name] = "NaN or infinite values, expected finite weights"
                elif has_dead(name, values):
                    bad[name] = "zero or negative scales, expected them above 0"
                return values

            return read

        read = quantiser.reader(reader)
        params = place_all(abstract, read, jobs=jobs, staging=staging)
    for name, found in sorted(bad.items()):
        warnings.warn(
            f"{name} holds {found}; they were loaded as they are, but the model may "
            "answer nonsense",
            UserWarning,
            stacklevel=2,
        )
    return params


def read_shard(
    files: Files, fill: Fill, index: Index, dtype: np.dtype, count: Count
) -> np.ndarray:
    """The part `index` of a parameter, cast to `dtype`."""
    out = aligned(tuple(part.stop - part.start for part in index), dtype)
    for piece in fill.pieces:
        place = place_of(piece, fill.shape)
        pairs = list(zip(index, place, strict=False))
        if all(part.start <= at < part.stop for part, at in pairs):
            target = out[(*(at - part.start for part, at in pairs), ...)]
            depth = len(place)
            box, shape = index[depth:], fill.shape[depth:]
            _copy(files, piece, fill.dtype, shape, box, target, count)
    return out


def place_of(piece: Piece, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The indices of a parameter's leading axes at which a tensor's run stands.

    A piece of 6 elements that begins at element 18 of [2, 4, 6] is at (0, 3).
    """
    size, depth = piece.size, 0
    while math.prod(shape[depth:]) > size:
        depth += 1
    return tuple(map(int, np.unravel_index(piece.start // max(size, 1), shape[:depth])))


def _copy(
    files: Files,
    piece: Piece,
    dtype: np.dtype,
    shape: tuple[int, ...],
    box: Index,
    out: np.ndarray,
    count: Count,
):
    """Copies the part `box` of a tensor, seen in `shape`, to `out`."""
    if not out.size:
        return
    if not shape:
        shape, box, out = (1,), (slice(0, 1),), out.reshape(1)
    if out.dtype == dtype:
        # As integers, NumPy copies without holding up other threads.
        dtype = np.dtype(f"u{dtype.itemsize}")
        out = out.view(dtype)
    row = math.prod(shape[1:]) * dtype.itemsize
    rows, step = box[0], max(1, WINDOW // row)
    for low in range(rows.start, rows.stop, step):
        high = min(low + step, rows.stop)
        start = piece.offset + low * row
        raw = files.map(piece.tensor.file, start, (high - low) * row)
        part = raw.view(dtype).reshape(high - low, *shape[1:])[:, *box[1:]]
        out[low - rows.start : high - rows.start] = part
        count(part.nbytes)


# -- checks --------------------------------------------------------------------


def _check_names(plan: Plan, abstract: Mapping[str, jax.ShapeDtypeStruct]):
    wanted = {name: fill.shape for name, fill in plan.fills.items()}
    found = {name: tuple(leaf.shape) for name, leaf in abstract.items()}
    names = sorted(wanted.keys() | found.keys())
    if differ := [name for name in names if wanted.get(name) != found.get(name)]:
        name = differ[0]
        raise ValueError(
            f"expected the {len(wanted)} parameters that the files hold, found "
            f"differences in {len(differ)}, first {name}: shape {wanted.get(name)} in "
            f"the files, {found.get(name)} asked for; take them from config.json"
        )


def _check_copy(files: Files, copy: Fill, fill: Fill, index: Index, count: Count):
    """Raises unless a tied copy has the bytes of what it is tied to, in `index`."""
    shape = tuple(part.stop - part.start for part in index)
    for chunk in chunks(shape, fill.dtype.itemsize):
        inner = zip(index, chunk.index, strict=True)
        part = tuple(slice(i.start + c.start, i.start + c.stop) for i, c in inner)
        a, b = (read_shard(files, f, part, fill.dtype, count) for f in (copy, fill))
        if a.tobytes() != b.tobytes():
            names = (f.pieces[0].tensor.name for f in (copy, fill))
            raise CheckpointError.untied(*names)


def _any_nonfinite(values: np.ndarray) -> bool:
    flat, scratch = values.reshape(-1), np.empty(BLOCK, np.uint8)
    step = BLOCK // values.dtype.itemsize
    starts = range(0, flat.size, step)
    return any(has_nonfinite(flat[at : at + step], scratch) for at in starts)
