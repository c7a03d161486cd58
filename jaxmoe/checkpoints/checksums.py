"""Checksums of stored parameters: one for each block of a chunk.

A chunk holds up to 32 MiB, a block 1 MiB: so a device that reads a part of a parameter
has no more than the blocks checked that its part lies in.
"""

import math
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from jaxmoe.checkpoints.chunks import Chunk, chunk_name, chunks
from jaxmoe.checkpoints.manifest import ParamSpec
from jaxmoe.checkpoints.placement import Index

DIGITS = 8
"""Hexadecimal digits of a CRC-32."""


class Summing:
    """Sums a parameter up while its bytes go by.

    >>> summing = Summing(block=1 << 20)
    >>> summing.add(b"..."); summing.end_chunk()
    >>> summing.crc32, summing.sums
    """

    def __init__(self, block: int):
        """`block`: bytes under one sum; the last of a chunk may be shorter."""
        self._block, self._whole = block, 0
        self._part = self._filled = 0
        self._sums: list[str] = []

    def add(self, raw: memoryview):
        """Takes the next bytes of the chunk."""
        self._whole = zlib.crc32(raw, self._whole)
        while raw.nbytes:
            piece = raw[: self._block - self._filled]
            self._part = zlib.crc32(piece, self._part)
            self._filled += piece.nbytes
            raw = raw[piece.nbytes :]
            if self._filled == self._block:
                self.end_chunk()

    def end_chunk(self):
        """The next bytes are of another chunk."""
        if self._filled:
            self._sums.append(f"{self._part:08x}")
            self._part = self._filled = 0

    @property
    def crc32(self) -> str:
        """Of all bytes."""
        return f"{self._whole:08x}"

    @property
    def sums(self) -> str:
        """Of each block, one after the other."""
        return "".join(self._sums)


class Blocks:
    """The blocks of one stored parameter, each checked once by whoever reads it.

    Not for several threads: each has its own.
    """

    def __init__(self, name: str, spec: ParamSpec, block: int):
        """Of parameter `name`, stored as `spec`, under sums of `block` bytes each."""
        self._name, self._sums, self._block = name, spec.sums, block
        self._itemsize = np.dtype(spec.dtype).itemsize
        self._done: set[int] = set()
        self._chunks = list(chunks(spec.shape, self._itemsize, spec.chunk))
        self._first: dict[str, int] = {}
        self._sizes: dict[str, int] = {}
        count = 0
        for chunk in self._chunks:
            key = chunk_name(chunk, spec.chunk)
            self._first[key] = count
            self._sizes[key] = (chunk.stop - chunk.start) * self._itemsize
            count += math.ceil(self._sizes[key] / block)
        self._key = {
            chunk.start: key
            for chunk, key in zip(self._chunks, self._first, strict=True)
        }
        if len(spec.sums) != DIGITS * count:
            raise ValueError(
                f"the manifest has {len(spec.sums) // DIGITS} checksums of {name}, "
                f"expected {count}; convert the source again"
            )

    def overlapping(self, index: Index) -> Iterator[tuple[Chunk, Index]]:
        """Each chunk that the part `index` touches, and what they share."""
        for chunk in self._chunks:
            shared = tuple(
                slice(max(a.start, b.start), min(a.stop, b.stop))
                for a, b in zip(index, chunk.index, strict=True)
            )
            if all(part.start < part.stop for part in shared):
                yield chunk, shared

    def check_files(self, folder: Path, index: Index):
        """Reads and checks the blocks that the part `index` lies in.

        folder: the local directory of the chunks.
        """
        scratch = np.empty(self._block, np.uint8)
        for chunk, shared in self.overlapping(index):
            key = self._key[chunk.start]
            wanted = [
                n for n in self._touched(chunk, shared) if self._at(key, n) is not None
            ]
            if wanted:
                self._check_file(folder / key, key, wanted, scratch)

    def _check_file(self, path: Path, key: str, wanted: list[int], scratch: np.ndarray):
        try:
            fd = os.open(path, os.O_RDONLY)
        except FileNotFoundError:
            raise self._damaged(f"chunk {key} is missing") from None
        except OSError as error:
            what = f"chunk {key} cannot be opened: {error.strerror}"
            raise self._damaged(what) from None
        try:
            for number in wanted:
                start = number * self._block
                raw = scratch[: min(self._block, self._sizes[key] - start)]
                if _read_fully(fd, start, raw) < raw.nbytes:
                    raise self._damaged(f"chunk {key} is too short")
                self.check(key, start, raw)
        finally:
            os.close(fd)

    def check(self, key: str, start: int, raw: np.ndarray):
        """Checks bytes of chunk `key` from `start`, where a block begins.

        raw: whole blocks, or up to the chunk's end.
        """
        for offset in range(0, raw.nbytes, self._block):
            number = (start + offset) // self._block
            wanted = self._at(key, number)
            if wanted is None:
                continue
            found = f"{zlib.crc32(raw[offset : offset + self._block]):08x}"
            if found != wanted:
                raise self._damaged(
                    f"block {number} of chunk {key} has CRC-32 {found}, the manifest "
                    f"says {wanted}"
                )
            self._done.add(self._first[key] + number)

    def check_chunk(self, chunk: Chunk, values: np.ndarray):
        """Checks a whole chunk."""
        self.check(self._key[chunk.start], 0, values.reshape(-1).view(np.uint8))

    def whole(self, key: str, start: int, stop: int) -> tuple[int, int]:
        """Bytes `start` to `stop` of chunk `key`, widened to whole blocks."""
        low = start // self._block * self._block
        return low, min(-(-stop // self._block) * self._block, self._sizes[key])

    @property
    def block(self) -> int:
        """Bytes under one sum."""
        return self._block

    def _at(self, key: str, number: int) -> str | None:
        """The sum of a block of chunk `key`; None where it was checked."""
        at = self._first[key] + number
        return None if at in self._done else self._sums[DIGITS * at : DIGITS * (at + 1)]

    def _touched(self, chunk: Chunk, shared: Index) -> list[int]:
        """Numbers of the blocks of a chunk in which elements of `shared` lie."""
        strides = [
            math.prod(chunk.shape[axis + 1 :]) * self._itemsize
            for axis in range(len(chunk.shape))
        ]
        boxes = [
            (part.start - whole.start, part.stop - whole.start)
            for part, whole in zip(shared, chunk.index, strict=True)
        ]
        # Rows that are blocks apart are looked at one by one, those within as a run.
        starts, low, high = np.zeros(1, np.int64), 0, self._itemsize
        for (first, last), stride in zip(boxes, strides, strict=True):
            if stride >= self._block:
                rows = np.arange(first, last) * stride
                starts = np.add.outer(starts, rows).reshape(-1)
            else:
                low, high = low + first * stride, high + (last - 1) * stride
        blocks = (
            range(start // self._block, (stop - 1) // self._block + 1)
            for start, stop in (starts[:, None] + [low, high]).tolist()
        )
        return sorted({number for found in blocks for number in found})

    def _damaged(self, what: str) -> ValueError:
        return ValueError(
            f"parameter {self._name} is damaged or incomplete ({what}); convert the "
            "source again"
        )


def _read_fully(fd: int, offset: int, out: np.ndarray) -> int:
    """Fills `out` from `offset`; the bytes that were there."""
    view, done = memoryview(out), 0
    while done < out.nbytes and (count := os.preadv(fd, [view[done:]], offset + done)):
        done += count
    return done
