"""Safetensors files: their headers, and bytes at offsets.

A safetensors file is 8 bytes (little-endian length n), n bytes of JSON (tensor name
-> dtype, shape, [begin, end) counted from the end of the JSON), then the tensors,
without gaps. https://huggingface.co/docs/safetensors. Everything a file states is
checked against its size before any tensor is read. Pickles are never opened.
"""

import json
import math
import mmap
import os
import re
import struct
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from jaxmoe.checkpoints.errors import CheckpointError

DTYPES: dict[str, np.dtype] = {
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F16": np.dtype("<f2"),
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "F8_E8M0": np.dtype(ml_dtypes.float8_e8m0fnu),
    "BOOL": np.dtype("?"),
    **{f"I{8 * n}": np.dtype(f"<i{n}") for n in (1, 2, 4, 8)},
    **{f"U{8 * n}": np.dtype(f"<u{n}") for n in (1, 2, 4, 8)},
}
"""safetensors' names of types."""

TAGS = {dtype.name: tag for tag, dtype in DTYPES.items()}
"""NumPy's name of a type -> safetensors'."""

MAX_HEADER = 100_000_000
DOWNLOAD = "download the file again"


@dataclass(frozen=True)
class Tensor:
    """A tensor in a file; `offset` is counted in bytes from the start of the file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: str
    offset: int

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return math.prod(self.shape) * DTYPES[self.dtype].itemsize


@dataclass(frozen=True)
class Header:
    """The description of one safetensors file; `text` is its JSON as it stands."""

    file: str
    text: str
    tensors: tuple[Tensor, ...]

    @property
    def nbytes(self) -> int:
        """Size of the whole file in bytes."""
        start = 8 + len(self.text.encode())
        return start + sum(tensor.nbytes for tensor in self.tensors)


# -- one file ------------------------------------------------------------------


def read_header(path: Path, file: str) -> Header:
    """Reads and checks the header of the safetensors file at `path`.

    Raises:
      ValueError: what is wrong with the file, first found first.
    """
    size = path.stat().st_size
    if size < 8:
        raise ValueError(
            f"{path}: expected a safetensors file, found {size} bytes; {DOWNLOAD}"
        )
    with path.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        if length > min(size - 8, MAX_HEADER):
            raise ValueError(
                f"{path}: the header should take {length} bytes, the file has "
                f"{size - 8} after the length (and {MAX_HEADER} are allowed); the "
                f"file is truncated or no safetensors file; {DOWNLOAD}"
            )
        raw = stream.read(length)
    try:
        text = raw.decode("utf-8")
        header = parse_header(text, file, size=size)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: the header is no text: {error}; {DOWNLOAD}"
        ) from None
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from None
    except ValueError as error:
        raise ValueError(f"{path}: {error}; {DOWNLOAD}") from None
    return header


def parse_header(text: str, file: str, size: int | None = None) -> Header:
    """The tensors a header describes; with `size`, checked against the file's bytes."""
    start = 8 + len(text.encode())
    try:
        entries = json.loads(text, object_pairs_hook=_unique)
    except RecursionError:
        raise ValueError("the header is nested too deeply") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"the header is no JSON ({error})") from None
    if not isinstance(entries, dict):
        raise ValueError("the header is no JSON object")
    entries.pop("__metadata__", None)
    tensors = [_entry(name, value, file, start) for name, value in entries.items()]
    end = start
    for tensor in sorted(tensors, key=lambda t: (t.offset, t.nbytes)):
        if tensor.offset != end:
            what = "overlaps the one before it" if tensor.offset < end else "has a gap"
            raise ValueError(
                f"{tensor.name} starts at byte {tensor.offset}, expected {end}: it "
                f"{what}" + (" before it" if tensor.offset > end else "")
            )
        end += tensor.nbytes
    if size is not None and end != size:
        state = "truncated" if size < end else "longer than its header says"
        raise ValueError(f"expected {end} bytes, found {size}: the file is {state}")
    return Header(file, text, tuple(tensors))


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        counts = Counter(name for name, _ in pairs)
        twice = [name for name, count in counts.items() if count > 1]
        raise ValueError(f"the header names twice: {', '.join(twice)}")
    return found


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _entry(name: str, value: Any, file: str, start: int) -> Tensor:
    begin = end = 0
    try:
        dtype, shape, (begin, end) = (
            value[k] for k in ("dtype", "shape", "data_offsets")
        )
        good = _count(begin) and _count(end) and all(_count(n) for n in shape)
    except (KeyError, TypeError, ValueError):
        good = False
    if not good or not isinstance(dtype, str) or not isinstance(shape, list):
        raise ValueError(
            f"{name}: expected dtype, shape and data_offsets, found {str(value)[:120]}"
        )
    if re.fullmatch(r"F[468](_.*)?", dtype) and dtype not in DTYPES:
        raise CheckpointError.quantised(f"{name} has type {dtype[:40]}")
    if dtype not in DTYPES:
        raise ValueError(f"{name}: dtype {dtype[:40]} is none of {', '.join(DTYPES)}")
    tensor = Tensor(name, dtype, tuple(shape), file, start + begin)
    if end - begin != tensor.nbytes:
        raise ValueError(
            f"{name}: {dtype} of shape {shape} takes {tensor.nbytes} bytes, "
            f"data_offsets [{begin}, {end}] hold {end - begin}"
        )
    return tensor


def make_header(
    file: str, tensors: list[tuple[str, str, tuple[int, ...]]], metadata: dict[str, str]
) -> Header:
    """The header of a new file with tensors (name, dtype, shape), in this order."""
    entries: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    offset = 0
    for name, dtype, shape in tensors:
        end = offset + math.prod(shape) * DTYPES[dtype].itemsize
        entries[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False)
    # Tensors start at a multiple of 8, so that they can be mapped.
    text += " " * (-len(text.encode()) % 8)
    return parse_header(text, file)


def header_metadata(header: Header) -> dict[str, str]:
    """The free-form strings a file carries, {"format": "pt"} as a rule."""
    return json.loads(header.text).get("__metadata__") or {}


# -- reading and writing -------------------------------------------------------


def forget(fd: int):
    """Asks the system to drop a file's cached pages: the next read is of the disk."""
    if hasattr(os, "posix_fadvise"):
        os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)


class Files:
    """Files opened once and read or written at offsets, from several threads."""

    def __init__(self, directory: Path, names: list[str], flags: int = os.O_RDONLY):
        """Opens `names` in `directory` with the flags of `os.open`."""
        self._directory = directory
        self._fds: dict[str, int] = {}
        try:
            for name in names:
                self._fds[name] = os.open(directory / name, flags, 0o644)
        except OSError:
            self.close()
            raise

    def read(self, file: str, offset: int, out: np.ndarray):
        """Fills the bytes `out` from `offset` of `file`."""
        view = memoryview(out)
        while view:
            count = os.preadv(self._fds[file], [view], offset)
            if not count:
                raise OSError(f"{self._directory / file} shrank while it was read")
            view, offset = view[count:], offset + count

    def map(self, file: str, offset: int, nbytes: int) -> np.ndarray:
        """The bytes from `offset` of `file`, mapped until the array is let go.

        nbytes: at least 1. Nothing is read before it is looked at.
        """
        skip = offset % mmap.ALLOCATIONGRANULARITY
        where = {"offset": offset - skip, "access": mmap.ACCESS_READ}
        try:
            window = mmap.mmap(self._fds[file], skip + nbytes, **where)
        except ValueError:
            path = self._directory / file
            raise OSError(f"{path} shrank while it was read") from None
        return np.frombuffer(window, np.uint8, nbytes, skip)

    def write(self, file: str, offset: int, data: np.ndarray | bytes):
        """Writes the bytes `data` at `offset` of `file`."""
        view = memoryview(data)
        while view:
            count = os.pwrite(self._fds[file], view, offset)
            view, offset = view[count:], offset + count

    def sync(self):
        """Forces everything written to the disk."""
        for fd in self._fds.values():
            os.fsync(fd)

    def forget(self):
        """Drops all files from the cache; see `forget`."""
        for fd in self._fds.values():
            forget(fd)

    def close(self):
        """Closes the files."""
        while self._fds:
            os.close(self._fds.popitem()[1])

    def __enter__(self) -> "Files":
        return self

    def __exit__(self, *_):
        self.close()
