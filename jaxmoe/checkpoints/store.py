"""Checkpoints on disk: Orbax parameters beside a manifest and the tokenizer's files.

A checkpoint is a directory:

    jaxmoe.json       the manifest: family, shape, type and checksum of each parameter
    config.json, ...  the model's Hugging Face files, unchanged
    params/           one Orbax checkpoint of the flat dict of parameters
    source/           where converted: the headers of the safetensors files it was

`params/` is ordinary (`orbax.checkpoint.PyTreeCheckpointer().restore` reads it): one
uncompressed Zarr array per parameter. Weights hardly compress, and a chunk that is
raw bytes can be mapped, or read in part: a device then reads its own shard and nothing
else. Arrays are written chunk by chunk, as Orbax lays them out, and Orbax is imported
only to commit them: so no parameter has to fit in memory, and a finished parameter
outlives a killed process. A finished checkpoint is read from `gs://` as well.
"""

import math
import os
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmoe.checkpoints.gcs import context, explained, place_of, store_spec
from jaxmoe.checkpoints.manifest import (
    FORMAT,
    MANIFEST,
    Manifest,
    ParamSpec,
    read_manifest,
    write_manifest,
)
from jaxmoe.checkpoints.orbax import commit, recover
from jaxmoe.checkpoints.partial import RECORD, begin_save
from jaxmoe.checkpoints.placement import (
    STAGING_BYTES,
    Index,
    Read,
    aligned,
    place_all,
    unstacked,
)
from jaxmoe.checkpoints.ranges import read_runs, runs

__all__ = [
    "CHUNK_BYTES",
    "FORMAT",
    "MANIFEST",
    "Chunk",
    "Manifest",
    "ParamSpec",
    "chunk_shape",
    "chunks",
    "create_array",
    "finish",
    "open_array",
    "read_manifest",
    "read_values",
    "recover",
    "restore",
    "save",
    "sync",
    "write_array",
    "write_manifest",
]

CHUNK_BYTES = 32 << 20


# -- arrays --------------------------------------------------------------------


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


def chunks(shape: tuple[int, ...], itemsize: int) -> Iterator[Chunk]:
    """The chunks of an array in C order; `start` and `stop` count elements."""
    if 0 in shape:
        return
    sizes = chunk_shape(shape, itemsize)
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


def create_array(path: Path, spec: ParamSpec):
    """Makes an array without chunks at `path`; replaces what is there."""
    import tensorstore as ts

    if path.exists():
        shutil.rmtree(path)
    itemsize = np.dtype(spec.dtype).itemsize
    metadata = {
        "shape": spec.shape,
        "chunks": chunk_shape(spec.shape, itemsize),
        "compressor": None,
        "dimension_separator": ".",
    }
    kvstore = {"driver": "file", "path": f"{path}/"}
    request = {"driver": "zarr", "kvstore": kvstore, "dtype": spec.dtype}
    ts.open(request | {"metadata": metadata}, create=True).result()


def open_array(path: str | os.PathLike, name: str) -> Any:
    """Parameter `name` of checkpoint `path` as a TensorStore array, for reading.

    path: a local directory, of which chunks are mapped, or gs://bucket/directory.

    Raises:
      OSError: Google Cloud Storage refuses.
      ValueError: no such array, or a damaged one.
    """
    import tensorstore as ts

    request = {
        "driver": "zarr",
        "kvstore": store_spec(path, "params", name),
        "fill_missing_data_reads": False,
        # What was read since the array was opened need not be asked for again.
        "recheck_cached_data": "open",
    }
    try:
        return ts.open(request, open=True, context=context(path)).result()
    except ValueError as error:
        where = f"{os.fspath(path)}/params/{name}"
        if place_of(path) is not None and "NOT_FOUND" not in str(error):
            raise explained(where, error) from None
        raise ValueError(
            f"parameter {name} cannot be read from {where} ({error}); convert the "
            "source again"
        ) from None


def sync(directory: Path):
    """Forces the files of `directory`, and their names, to the disk."""
    for path in [*directory.iterdir(), directory]:
        fd = os.open(path, os.O_RDONLY)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)


def write_array(
    path: Path, spec: ParamSpec, blocks: Callable[[Chunk], Iterable[np.ndarray]]
):
    """Writes and synchronises a parameter.

    `blocks(chunk)` gives the bytes of each chunk in turn, in pieces of any size.
    TensorStore makes the array; its chunks are written here. An uncompressed chunk is
    a file of raw bytes (Zarr 2, "Storage"), and this saves TensorStore's copy of it.
    """
    create_array(path, spec)
    itemsize = np.dtype(spec.dtype).itemsize
    sizes = chunk_shape(spec.shape, itemsize)
    for chunk in chunks(spec.shape, itemsize):
        at = [s.start // size for s, size in zip(chunk.index, sizes, strict=True)]
        with (path / (".".join(map(str, at)) or "0")).open("wb", buffering=0) as file:
            for block in blocks(chunk):
                raw = memoryview(block)
                while raw:
                    raw = raw[file.write(raw) :]
            # The last chunk has the size of the others. Its cut axis is its slowest,
            # so what is missing is at the end; it is never read.
            file.truncate(math.prod(sizes) * itemsize)
    sync(path)


# -- saving --------------------------------------------------------------------


def save(
    path: str | os.PathLike,
    params: Mapping[str, jax.Array | np.ndarray],
    *,
    family: str,
    files: Mapping[str, str | bytes],
):
    """Writes `params` and `files` (name -> content, `config.json` first) to `path`.

    `path` appears only when complete.

    Raises:
      FileExistsError: `path` exists, or a `.partial` that no killed `save` left.
    """
    path = Path(path)
    if path.exists():
        raise FileExistsError(f"{path} exists; remove it or save elsewhere")
    partial = begin_save(path)
    specs = {}
    for name, param in params.items():
        crc = [0]

        def read(chunk: Chunk, param=param, crc=crc) -> list[np.ndarray]:
            block = np.ascontiguousarray(param[chunk.index]).reshape(-1).view(np.uint8)
            crc[0] = zlib.crc32(block, crc[0])
            return [block]

        spec = ParamSpec(param.shape, jnp.dtype(param.dtype).name)
        write_array(partial / "arrays" / name, spec, read)
        specs[name] = ParamSpec(spec.shape, spec.dtype, f"{crc[0]:08x}")
    finish(partial, Manifest(family, specs))
    for name, content in files.items():
        raw = content.encode() if isinstance(content, str) else content
        (partial / name).write_bytes(raw)
    partial.rename(path)
    (path / RECORD).unlink()


def finish(path: Path, manifest: Manifest):
    """Turns the arrays in `path / "arrays"` into a checkpoint, in place."""
    recover(path)
    commit(path, manifest.params)
    write_manifest(path, manifest)
    sync(path)


# -- restoring -----------------------------------------------------------------


def restore(
    path: str | os.PathLike,
    abstract: Mapping[str, jax.ShapeDtypeStruct],
    *,
    jobs: int = 4,
    staging: int = STAGING_BYTES,
) -> dict[str, jax.Array]:
    """Loads the parameters that `abstract` names.

    The stored CRC-32 are not compared: `python -m convert --export` does that, and
    `python -m convert --verify` compares a new checkpoint with its source.

    Args:
      path: the checkpoint directory, local or gs://bucket/directory. From a bucket
        the bytes of the shards are read, but for a shard that is cut along an axis
        behind that of the chunks (heads of the output projection): then the chunks
        it lies in, which its neighbours in the process share.
      abstract: name -> shape and type; a float type other than the stored one is cast
        to while loading. Where `sharding` is set each process reads only its own
        shards, each once; else the array goes to the default device. Names of stacks
        of layers (`jaxmoe.nn.segments`) are read from the layers' own, and uint16 asks
        for bfloat16 held as bits.
      jobs: parameters in flight.
      staging: bytes of shards in hand at once, beside what the devices hold (on CPU a
        shard is read into its device's memory). A larger shard goes alone.

    Raises:
      FileNotFoundError: `path` is no checkpoint.
      OSError: Google Cloud Storage refuses, or cannot be reached.
      ValueError: everything in which checkpoint and `abstract` differ, in one message;
        or an array that is missing or damaged.
    """
    stored = unstacked(abstract)
    _check(path, read_manifest(path), stored)

    def reader(name: str) -> Read:
        array = _open_as_listed(path, name, tuple(stored[name].shape))
        dtype = np.dtype(stored[name].dtype)
        return lambda index: _read_shard(path, name, array, index, dtype)

    return place_all(abstract, reader, jobs=jobs, staging=staging)


def _check(path: str | os.PathLike, manifest: Manifest, abstract: Mapping):
    wrong = [f"{n}: in the checkpoint only" for n in manifest.params.keys() - abstract]
    wrong += [f"{n}: not in the checkpoint" for n in abstract.keys() - manifest.params]
    for name in abstract.keys() & manifest.params:
        want, have = abstract[name], manifest.params[name]
        if tuple(want.shape) != have.shape:
            wrong.append(f"{name}: expected shape {want.shape}, stored {have.shape}")
        stored = jnp.dtype(have.dtype)
        floats = [jnp.issubdtype(t, jnp.floating) for t in (want.dtype, stored)]
        if want.dtype != stored and not all(floats):
            wrong.append(f"{name}: expected {want.dtype}, stored {stored}")
    if wrong:
        raise ValueError(
            f"{path} does not hold the parameters asked for:\n  "
            + "\n  ".join(sorted(wrong))
            + "\nconvert the source again, or load with the config it was made with"
        )


def _open_as_listed(path: str | os.PathLike, name: str, shape: tuple[int, ...]) -> Any:
    array = open_array(path, name)
    if tuple(array.shape) != shape:
        raise ValueError(
            f"{name} in {path}/params has shape {tuple(array.shape)}, the manifest "
            f"says {shape}; convert the source again"
        )
    return array


def _read_shard(
    path: str | os.PathLike, name: str, array: Any, index: Index, dtype: np.dtype
) -> np.ndarray:
    """The part `index` of an array, in another type where asked for."""
    stored = np.dtype(array.dtype.numpy_dtype)
    if stored == dtype:
        return _read_part(path, name, array, index)
    shape = tuple(part.stop - part.start for part in index)
    out = aligned(shape, dtype)
    # Cast chunk by chunk: the shard is never there in both types.
    for chunk in chunks(shape, stored.itemsize):
        inner = zip(index, chunk.index, strict=True)
        part = tuple(slice(i.start + c.start, i.start + c.stop) for i, c in inner)
        out[chunk.index] = _read_part(path, name, array, part)
    return out


def _read_part(
    path: str | os.PathLike, name: str, array: Any, index: Index
) -> np.ndarray:
    if place_of(path) is not None:
        found = runs(tuple(array.chunk_layout.read_chunk.shape), index)
        if found is not None:
            dtype = np.dtype(array.dtype.numpy_dtype)
            return read_runs(path, name, found, index, dtype)
    return read_values(array[index] if index else array, name)


def read_values(array: Any, name: str) -> np.ndarray:
    """Reads a TensorStore array, or a slice of one, of parameter `name`.

    Raises:
      ValueError: chunks that are missing or too short.
    """
    import tensorstore as ts

    out = aligned(tuple(array.shape), np.dtype(array.dtype.numpy_dtype))
    try:
        # Into memory of ours: twice as fast as letting TensorStore allocate.
        ts.array(out).write(array).result()
    except ValueError as error:
        raise ValueError(
            f"parameter {name} is damaged or incomplete ({error}); convert the source "
            "again"
        ) from None
    return out
