"""Checkpoints on disk: Orbax parameters beside a manifest and the tokenizer's files.

A checkpoint is a directory:

    jaxmoe.json       the manifest: family, shape, type and checksum of each parameter
    config.json, ...  the model's Hugging Face files, unchanged
    params/           one Orbax checkpoint of the flat dict of parameters
    source/           where converted: the headers of the safetensors files it was

`params/` is ordinary (`orbax.checkpoint.PyTreeCheckpointer().restore` reads it): one
uncompressed Zarr array per parameter. Weights hardly compress, and a chunk that is
raw bytes can be mapped: a device then reads its own shard and nothing else. Arrays
are written chunk by chunk, as Orbax lays them out, and Orbax is imported only to
commit them: so no parameter has to fit in memory, and a finished parameter outlives a
killed process.
"""

import hashlib
import json
import math
import os
import shutil
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmoe.checkpoint_orbax import commit, recover
from jaxmoe.checkpoint_partial import RECORD, begin_save

FORMAT = 1
MANIFEST = "jaxmoe.json"
CHUNK_BYTES = 32 << 20


@dataclass(frozen=True)
class ParamSpec:
    """A stored parameter: `crc32` is that of its bytes in C order, little-endian."""

    shape: tuple[int, ...]
    dtype: str
    crc32: str = ""

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint holds; `source` says what it was converted from, if it was."""

    family: str
    params: dict[str, ParamSpec]
    source: dict[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """SHA-256 over names, shapes, types and checksums: equal content, equal text.

        It tells checkpoints apart; made of CRC-32, it is no proof against forgery.
        """
        rows = [[n, *asdict(self.params[n]).values()] for n in sorted(self.params)]
        text = json.dumps([self.family, rows])
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()

    @property
    def nbytes(self) -> int:
        """Bytes of all parameters."""
        return sum(spec.nbytes for spec in self.params.values())


def write_manifest(path: str | os.PathLike, manifest: Manifest):
    """Writes `manifest` into the checkpoint directory `path`."""
    value = {"format": FORMAT, "digest": manifest.digest, **asdict(manifest)}
    text = json.dumps(value, indent=1)
    (Path(path) / MANIFEST).write_text(text, encoding="utf-8")


def read_manifest(path: str | os.PathLike) -> Manifest:
    """The manifest of the checkpoint directory `path`.

    Raises:
      FileNotFoundError: `path` is no checkpoint.
      ValueError: the manifest is unreadable, damaged, or of another format.
    """
    file = Path(path) / MANIFEST
    if not file.is_file():
        raise FileNotFoundError(
            f"expected a checkpoint directory with {MANIFEST}, found none at {path}; "
            "make one with: python -m convert SRC DST"
        )
    remedy = "convert the source again"
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
        found = value["format"]
        if found != FORMAT:
            raise ValueError(
                f"{file} has format {found}, this version reads format {FORMAT}; "
                + remedy
            )
        params = {
            name: ParamSpec(tuple(p["shape"]), p["dtype"], p["crc32"])
            for name, p in value["params"].items()
        }
        manifest = Manifest(value["family"], params, value["source"])
        digest = value["digest"]
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is no readable JSON ({error}); {remedy}") from None
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} lacks a field ({error!r}); {remedy}") from None
    if digest != manifest.digest:
        raise ValueError(
            f"{file} was altered: it states digest {digest}, its content gives "
            f"{manifest.digest}; {remedy}"
        )
    return manifest


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
    """Parameter `name` of checkpoint `path` as a TensorStore array, for reading."""
    import tensorstore as ts

    file = Path(path) / "params" / name
    context = ts.Context({"file_io_mode": {"mode": "memmap"}})
    kvstore = {"driver": "file", "path": f"{file}/"}
    request = {"driver": "zarr", "kvstore": kvstore, "fill_missing_data_reads": False}
    try:
        return ts.open(request, open=True, context=context).result()
    except ValueError as error:
        raise ValueError(
            f"parameter {name} cannot be read from {file} ({error}); convert the "
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
) -> dict[str, jax.Array]:
    """Loads the parameters that `abstract` names.

    The stored CRC-32 are not compared: `python -m convert --export` does that, and
    `python -m convert --verify` compares a new checkpoint with its source.

    Args:
      path: the checkpoint directory.
      abstract: name -> shape and type; a float type other than the stored one is cast
        to while loading. Where `sharding` is set each process reads only its own
        shards, each once; else the array goes to the default device.
      jobs: parameters in flight; the host holds no others.

    Raises:
      FileNotFoundError: `path` is no checkpoint.
      ValueError: everything in which checkpoint and `abstract` differ, in one message;
        or an array that is missing or damaged.
    """
    path = Path(path)
    manifest = read_manifest(path)
    _check(path, manifest, abstract)
    # Large ones first, so that no thread is left alone with one at the end.
    names = sorted(abstract, key=lambda n: -manifest.params[n].nbytes)
    with ThreadPoolExecutor(jobs) as pool:
        loads = {n: pool.submit(_restore_one, path, n, abstract[n]) for n in names}
        try:
            return {name: loads[name].result() for name in abstract}
        finally:
            pool.shutdown(cancel_futures=True)


def _check(path: Path, manifest: Manifest, abstract: Mapping):
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


def _restore_one(path: Path, name: str, want: jax.ShapeDtypeStruct) -> jax.Array:
    array = open_array(path, name)
    if tuple(array.shape) != tuple(want.shape):
        raise ValueError(
            f"{name} in {path}/params has shape {tuple(array.shape)}, the manifest "
            f"says {tuple(want.shape)}; convert the source again"
        )
    sharding = want.sharding or jnp.zeros(()).sharding  # the default device
    held: dict[str, np.ndarray] = {}

    def read(index: tuple[slice, ...] | None) -> np.ndarray:
        # Replicas on several devices ask for one index: read it once.
        key = repr(index)
        if key not in held:
            held[key] = read_values(array[index] if index else array, name).astype(
                want.dtype, copy=False
            )
        return held[key]

    whole = jax.make_array_from_callback(tuple(want.shape), sharding, read)
    return jax.block_until_ready(whole)


def read_values(array: Any, name: str) -> np.ndarray:
    """Reads a TensorStore array, or a slice of one, of parameter `name`.

    Raises:
      ValueError: chunks that are missing or too short.
    """
    import tensorstore as ts

    out = _aligned(tuple(array.shape), np.dtype(array.dtype.numpy_dtype))
    try:
        # Into memory of ours: twice as fast as letting TensorStore allocate.
        ts.array(out).write(array).result()
    except ValueError as error:
        raise ValueError(
            f"parameter {name} is damaged or incomplete ({error}); convert the source "
            "again"
        ) from None
    return out


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Uninitialised memory that starts at 64 bytes: JAX on CPU takes it uncopied."""
    nbytes = math.prod(shape) * dtype.itemsize
    raw = np.empty(nbytes + 64, np.uint8)
    skip = -raw.ctypes.data % 64
    return raw[skip : skip + nbytes].view(dtype).reshape(shape)
