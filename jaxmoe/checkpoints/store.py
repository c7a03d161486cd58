"""Checkpoints on disk: Orbax parameters beside a manifest and the tokenizer's files.

A checkpoint is a directory:

    jaxmoe.json       the manifest: family, shape, type and checksums of each parameter,
                      and of the other files
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

import dataclasses
import math
import os
import shutil
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmoe.checkpoints.checksums import Blocks, Summing
from jaxmoe.checkpoints.chunks import Chunk, chunk_name, chunk_shape, chunks
from jaxmoe.checkpoints.gcs import (
    context,
    explained,
    openable,
    place_of,
    store_spec,
)
from jaxmoe.checkpoints.manifest import (
    BLOCK_BYTES,
    FORMAT,
    MANIFEST,
    OLD_FORMAT,
    Manifest,
    ParamSpec,
    earlier_names,
    read_manifest,
    renamed,
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
from jaxmoe.checkpoints.quantise import Quantiser
from jaxmoe.checkpoints.ranges import read_runs, runs
from jaxmoe.checkpoints.small_files import digests
from jaxmoe.files import parse_json
from jaxmoe.files import sync as sync_path

__all__ = [
    "FORMAT",
    "MANIFEST",
    "OLD_FORMAT",
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

# -- arrays --------------------------------------------------------------------


def create_array(path: Path, spec: ParamSpec):
    """Makes an array without chunks at `path`; replaces what is there."""
    import tensorstore as ts

    if path.exists():
        shutil.rmtree(path)
    folder = openable(path.parent) / path.name
    kvstore = {"driver": "file", "path": f"{folder}/"}
    request = {"driver": "zarr", "kvstore": kvstore, "dtype": spec.dtype}
    ts.open(request | {"metadata": _metadata(spec)}, create=True).result()


def _metadata(spec: ParamSpec) -> dict[str, Any]:
    """What `.zarray` says of a parameter, in TensorStore's terms."""
    dtype = np.dtype(spec.dtype)
    chunk = spec.chunk or chunk_shape(spec.shape, dtype.itemsize)
    return {
        "shape": list(spec.shape),
        "chunks": list(chunk),
        # NumPy has no letters for bfloat16 and its like.
        "dtype": spec.dtype if dtype.kind == "V" else dtype.str,
        "compressor": None,
        "filters": None,
        "order": "C",
        "dimension_separator": ".",
    }


_SHOWN = 300
"""Letters of what was found that an error shows."""


def open_array(path: str | os.PathLike, name: str, spec: ParamSpec) -> Any:
    """Parameter `name` of checkpoint `path` as a TensorStore array, for reading.

    Args:
      path: a local directory, of which chunks are mapped, or gs://bucket/directory.
      name: the parameter.
      spec: what the manifest says of it.

    Raises:
      OSError: Google Cloud Storage refuses.
      ValueError: no such array, or one that is not stored as the manifest says.
    """
    import tensorstore as ts

    if place_of(path) is None:
        _check_files(Path(path) / "params" / name)
    request = {
        "driver": "zarr",
        "kvstore": store_spec(path, "params", name),
        "fill_missing_data_reads": False,
        # What was read since the array was opened need not be asked for again.
        "recheck_cached_data": "open",
    }
    try:
        array = ts.open(request, open=True, context=context(path)).result()
    except ValueError as error:
        where = f"{os.fspath(path)}/params/{name}"
        if place_of(path) is not None and "NOT_FOUND" not in str(error):
            raise explained(where, error) from None
        raise ValueError(
            f"parameter {name} cannot be read from {where} ({str(error)[:_SHOWN]}); "
            "convert the source again"
        ) from None
    found = array.spec().to_json()["metadata"]
    wanted = _metadata(spec)
    differ = [key for key, value in wanted.items() if found.get(key) != value]
    if differ:
        shown = {key: str(found.get(key))[:_SHOWN] for key in differ}
        details = ", ".join(f"{k} {v} for {wanted[k]}" for k, v in shown.items())
        raise ValueError(
            f"{name} in {os.fspath(path)}/params is not stored as the manifest says: "
            f"found {details}; convert the source again"
        )
    return array


def _check_files(folder: Path):
    """A ValueError where a pipe, which would be waited for, stands for a chunk."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.exists() and not path.is_file():
            raise ValueError(
                f"{path}: expected a file, found a folder, pipe or device; convert the "
                "source again"
            )


def sync(directory: Path):
    """Forces the files of `directory`, and their names, to the disk."""
    for path in [*directory.iterdir(), directory]:
        sync_path(path)


def write_array(
    path: Path, spec: ParamSpec, blocks: Callable[[Chunk], Iterable[np.ndarray]]
) -> ParamSpec:
    """Writes and synchronises a parameter.

    TensorStore makes the array; its chunks are written here. An uncompressed chunk is
    a file of raw bytes (Zarr 2, "Storage"), and this saves TensorStore's copy of it.

    Args:
      path: the directory to make.
      spec: shape and type.
      blocks: gives the bytes of a chunk in pieces of any size; called for each in turn.

    Returns:
      `spec` with the chunks and checksums of what was written.
    """
    create_array(path, spec)
    itemsize = np.dtype(spec.dtype).itemsize
    sizes = chunk_shape(spec.shape, itemsize)
    summing = Summing(BLOCK_BYTES)
    for chunk in chunks(spec.shape, itemsize, sizes):
        with (path / chunk_name(chunk, sizes)).open("wb", buffering=0) as file:
            for block in blocks(chunk):
                raw = memoryview(block)
                summing.add(raw)
                while raw:
                    raw = raw[file.write(raw) :]
            # The last chunk has the size of the others. Its cut axis is its slowest,
            # so what is missing is at the end; it is never read.
            file.truncate(math.prod(sizes) * itemsize)
        summing.end_chunk()
    sync(path)
    return dataclasses.replace(
        spec, crc32=summing.crc32, chunk=sizes, sums=summing.sums
    )


def is_intact(path: Path, name: str, spec: ParamSpec) -> bool:
    """Whether the array `path / name` is what `spec` says, by reading all of it."""
    try:
        metadata = parse_json((path / name / ".zarray").read_text(encoding="utf-8"))
        wanted = _metadata(spec)
        if any(metadata.get(key) != value for key, value in wanted.items()):
            return False
        whole = tuple(slice(0, size) for size in spec.shape)
        Blocks(name, spec, BLOCK_BYTES).check_files(path / name, whole)
    except (OSError, ValueError, AttributeError):
        return False
    return True


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

        def read(chunk: Chunk, param=param) -> list[np.ndarray]:
            return [np.ascontiguousarray(param[chunk.index]).reshape(-1).view(np.uint8)]

        spec = ParamSpec(param.shape, jnp.dtype(param.dtype).name)
        specs[name] = write_array(partial / "arrays" / name, spec, read)
    for name, content in files.items():
        raw = content.encode() if isinstance(content, str) else content
        (partial / name).write_bytes(raw)
    finish(partial, Manifest(family, specs))
    partial.rename(path)
    (path / RECORD).unlink()


def finish(path: Path, manifest: Manifest):
    """Turns the arrays in `path / "arrays"` into a checkpoint, in place.

    The small files are there already: the manifest written states their digests.
    """
    recover(path)
    commit(path, manifest.params)
    write_manifest(
        path, dataclasses.replace(manifest, files=digests(path), block=BLOCK_BYTES)
    )
    sync(path)


# -- restoring -----------------------------------------------------------------


def restore(
    path: str | os.PathLike,
    abstract: Mapping[str, jax.ShapeDtypeStruct],
    *,
    jobs: int = 4,
    staging: int = STAGING_BYTES,
    verify: bool = True,
) -> dict[str, jax.Array]:
    """Loads the parameters that `abstract` names, and checks what it reads of them.

    Args:
      path: the checkpoint directory, local or gs://bucket/directory. From a bucket
        the bytes of the shards are read, but for a shard that is cut along an axis
        behind that of the chunks (heads of the output projection): then the chunks
        it lies in, which its neighbours in the process share.
      abstract: name -> shape and type; a float type other than the stored one is cast
        to while loading. Where `sharding` is set each process reads only its own
        shards, each once; else the array goes to the default device. Names of stacks
        of layers (`jaxmoe.nn.segments`) are read from the layers' own, and uint16 asks
        for bfloat16 held as bits. int8, with scales, of floats is quantised
        (`jaxmoe.checkpoints.quantise`).
      jobs: parameters in flight.
      staging: bytes of shards in hand at once, beside what the devices hold (on CPU a
        shard is read into its device's memory). A larger shard goes alone.
      verify: compare the blocks of the chunks that are read (1 MiB each) with the
        manifest's CRC-32. How arrays are stored is compared either way. An older
        checkpoint has one sum for each parameter: then all of a parameter is read.

    Raises:
      FileNotFoundError: `path` is no checkpoint.
      OSError: Google Cloud Storage refuses, or cannot be reached.
      ValueError: everything in which checkpoint and `abstract` differ, in one message;
        or an array that is missing or damaged.
    """
    wanted = unstacked(abstract)
    manifest = read_manifest(path)
    earlier = earlier_names(wanted, manifest.params)
    params = renamed(manifest.params, earlier)
    kinds = {name: np.dtype(spec.dtype) for name, spec in params.items()}
    quantiser = Quantiser.of(wanted, kinds)
    stored = quantiser.stored(wanted)
    _check(path, params, stored)

    def reader(current: str) -> Read:
        name, spec, blocks = earlier.get(current, current), params[current], None
        array = open_array(path, name, spec)
        if verify and manifest.format == OLD_FORMAT:
            _check_whole(array, name, spec)
        elif verify:
            blocks = Blocks(name, spec, manifest.block)
        param = _Stored(path, name, array, blocks)
        dtype = np.dtype(stored[current].dtype)
        return lambda index: _read_shard(param, index, dtype)

    read = quantiser.reader(reader)
    return place_all(abstract, read, jobs=jobs, staging=staging)


def _check(path: str | os.PathLike, params: Mapping[str, ParamSpec], abstract: Mapping):
    wrong = [f"{n}: in the checkpoint only" for n in params.keys() - abstract]
    wrong += [f"{n}: not in the checkpoint" for n in abstract.keys() - params]
    for name in abstract.keys() & params:
        want, have = abstract[name], params[name]
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


def _check_whole(array: Any, name: str, spec: ParamSpec):
    """Compares all of a parameter with its one CRC-32."""
    crc = 0
    for chunk in chunks(spec.shape, np.dtype(spec.dtype).itemsize):
        part = array[chunk.index] if chunk.index else array
        crc = zlib.crc32(read_values(part, name).reshape(-1).view(np.uint8), crc)
    if f"{crc:08x}" != spec.crc32:
        raise ValueError(
            f"parameter {name} is damaged or incomplete (it has CRC-32 {crc:08x}, the "
            f"manifest says {spec.crc32}); convert the source again"
        )


@dataclasses.dataclass(frozen=True)
class _Stored:
    """An open array; `blocks` are to be checked, None where none is."""

    path: str | os.PathLike
    name: str
    array: Any
    blocks: Blocks | None


def _read_shard(param: _Stored, index: Index, dtype: np.dtype) -> np.ndarray:
    """The part `index` of an array, in another type where asked for."""
    stored = np.dtype(param.array.dtype.numpy_dtype)
    if stored == dtype:
        return _read_part(param, index)
    shape = tuple(part.stop - part.start for part in index)
    out = aligned(shape, dtype)
    # Cast chunk by chunk: the shard is never there in both types.
    for chunk in chunks(shape, stored.itemsize):
        inner = zip(index, chunk.index, strict=True)
        part = tuple(slice(i.start + c.start, i.start + c.stop) for i, c in inner)
        out[chunk.index] = _read_part(param, part)
    return out


def _read_part(param: _Stored, index: Index) -> np.ndarray:
    array, blocks = param.array, param.blocks
    if place_of(param.path) is None:
        if blocks is not None:
            blocks.check_files(Path(param.path) / "params" / param.name, index)
        return read_values(array[index] if index else array, param.name)
    found = runs(tuple(array.chunk_layout.read_chunk.shape), index)
    if found is not None:
        dtype = np.dtype(array.dtype.numpy_dtype)
        return read_runs(param.path, param.name, found, index, dtype, blocks)
    if blocks is not None:
        return _read_chunks(param, blocks, index)
    return read_values(array[index], param.name)


def _read_chunks(param: _Stored, blocks: Blocks, index: Index) -> np.ndarray:
    """The part `index` of a remote array, cut out of whole chunks that were checked."""
    shape = tuple(part.stop - part.start for part in index)
    out = aligned(shape, np.dtype(param.array.dtype.numpy_dtype))
    for chunk, shared in blocks.overlapping(index):
        values = read_values(param.array[chunk.index], param.name)
        blocks.check_chunk(chunk, values)
        out[_within(shared, index)] = values[_within(shared, chunk.index)]
    return out


def _within(part: Index, whole: Index) -> Index:
    """The place of a part of an array, counted from the start of a larger part."""
    return tuple(
        slice(a.start - b.start, a.stop - b.start)
        for a, b in zip(part, whole, strict=True)
    )


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
