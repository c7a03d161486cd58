"""Parameters as streams of chunks: read in blocks, joined, scanned, cast."""

import math
import threading
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

import numpy as np

from jaxmoe.checkpoints.chunks import Chunk, chunks
from jaxmoe.checkpoints.errors import CheckpointError
from jaxmoe.checkpoints.manifest import ParamSpec
from jaxmoe.checkpoints.plan import Fill, Piece
from jaxmoe.checkpoints.safetensors import Files
from jaxmoe.ops.fp8 import dequantise
from jaxmoe.ops.int8 import quantise
from jaxmoe.ops.mxfp4 import LARGEST_SCALE
from jaxmoe.ops.packed import SCALES

BLOCK = 256 << 10
"""Bytes read and scanned at a time: small enough to be scanned while in cache."""


@dataclass
class Scan:
    """What was seen of a parameter: values no weight should have, by tensor."""

    bad: dict[str, Counter] = field(default_factory=dict)


def in_parallel(
    work: Callable[[Fill, threading.Event], None], items: Iterable[Fill], jobs: int
):
    """Runs `work(item, stop)` in `jobs` threads; the first failure sets `stop`."""
    stop = threading.Event()
    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(work, item, stop) for item in items]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
        finally:
            stop.set()
            for future in futures:
                future.cancel()
    failed = [f.exception() for f in futures if not f.cancelled() and f.exception()]
    failed.sort(key=lambda error: isinstance(error, InterruptedError))
    if failed and (error := failed[0]) is not None:
        raise error


class Reader:
    """Reads a parameter, as it is to be stored, out of the files of its tensors.

    Block by block, so that the bytes are still in the processor's cache when they are
    scanned and written. `scan` is complete once every chunk was read, in order.
    """

    def __init__(
        self,
        files: Files,
        fill: Fill,
        spec: ParamSpec,
        stop: threading.Event | None = None,
        count: Callable[[int], object] = lambda _: None,
    ):
        """Gives up when `stop` is set; tells `count` the bytes read of each block."""
        self.scan = Scan()
        self._files, self._fill, self._dtype = files, fill, np.dtype(spec.dtype)
        self._spec = spec
        self._stop, self._count = stop or threading.Event(), count
        self._buffer, self._scratch = np.empty(BLOCK, np.uint8), np.empty(BLOCK, "u1")

    def blocks(self, chunk: Chunk) -> Iterator[np.ndarray]:
        """The chunk's bytes, block by block; each overwrites the one before."""
        fill, scan = self._fill, self.scan
        for piece, start, stop in overlaps(fill, chunk):
            tensor, size = piece.tensor, fill.dtype.itemsize
            for at in range(start * size, stop * size, BLOCK):
                if self._stop.is_set():
                    raise InterruptedError("stopped")
                block = self._buffer[: min(BLOCK, stop * size - at)]
                offset = piece.offset + at - piece.start * size
                self._files.read(tensor.file, offset, block)
                values = block.view(fill.dtype)
                check_scales(fill.param, values)
                if has_nonfinite(values, self._scratch) or has_dead(fill.param, values):
                    _note(scan, tensor.name, fill.param, values)
                if fill.dtype != self._dtype:
                    block = values.astype(self._dtype).view(np.uint8)
                self._count(values.nbytes)
                yield block

    def read(self, chunk: Chunk) -> bytes:
        """The chunk's bytes."""
        return b"".join(block.tobytes() for block in self.blocks(chunk))

    def crc32(self) -> str:
        """Of the whole parameter, as it is to be stored; reads it."""
        crc = 0
        spec = self._spec
        for chunk in chunks(spec.shape, np.dtype(spec.dtype).itemsize):
            for block in self.blocks(chunk):
                crc = zlib.crc32(block, crc)
        return f"{crc:08x}"


class QuantisingReader(Reader):
    """Reads the integers of a parameter that is to be int8, or their scales.

    Both are made of whole outputs (`jaxmoe.ops.int8`), read as the floats that they
    are in the files. `scan` is that of who reads the integers.
    """

    def __init__(
        self,
        files: Files,
        fill: Fill,
        spec: ParamSpec,
        width: int,
        stop: threading.Event | None = None,
        count: Callable[[int], object] = lambda _: None,
    ):
        """spec: of the integers or of the scales. width: inputs of an output."""
        super().__init__(files, fill, ParamSpec(fill.shape, "float32"), stop, count)
        self._spec, self._width = spec, width

    def blocks(self, chunk: Chunk) -> Iterator[np.ndarray]:
        """The chunk's bytes, block by block."""
        scales, width = self._spec.dtype != "int8", self._width
        size = 1 if scales else width
        assert chunk.start % size == chunk.stop % size == 0, chunk
        outputs, rows = chunk.stop // size, max(1, BLOCK // (4 * width))
        for first in range(chunk.start // size, outputs, rows):
            stop = min(first + rows, outputs)
            part = Chunk((), (), first * width, stop * width)
            raw = b"".join(block.tobytes() for block in super().blocks(part))
            found = quantise(np.frombuffer(raw, np.float32).reshape(-1, width))
            kept = found.scales if scales else found.values
            yield kept.reshape(-1).view(np.uint8)
        if scales:
            self.scan.bad.clear()


class DequantisingReader(Reader):
    """Reads a parameter that the files have in FP8 (`jaxmoe.ops.fp8`) as floats."""

    def __init__(
        self,
        files: Files,
        fill: Fill,
        scales: Fill,
        spec: ParamSpec,
        block: tuple[int, int],
        stop: threading.Event | None = None,
        count: Callable[[int], object] = lambda _: None,
    ):
        """fill, scales: of the values and of theirs. spec: of the floats."""
        stored = ParamSpec(fill.shape, fill.dtype.name)
        super().__init__(files, fill, stored, stop, count)
        self._spec, self._floats, self._block = spec, np.dtype(spec.dtype), block
        *outer, down, across = scales.shape
        self._width = fill.pieces[0].shape[-1]
        self._rows = math.prod(fill.shape) // self._width // math.prod(outer)
        wide = ParamSpec(scales.shape, "float32")
        reader = Reader(files, scales, wide, stop)
        raw = reader.read(Chunk((), (), 0, math.prod(scales.shape)))
        self.scan.bad |= reader.scan.bad
        self._scales = np.frombuffer(raw, np.float32).reshape(-1, down, across)

    def blocks(self, chunk: Chunk) -> Iterator[np.ndarray]:
        """The chunk's bytes, block by block."""
        width = self._width
        assert chunk.start % width == chunk.stop % width == 0, chunk
        last, step = chunk.stop // width, max(1, BLOCK // width)
        for first in range(chunk.start // width, last, step):
            stop = min(first + step, last)
            part = Chunk((), (), first * width, stop * width)
            raw = b"".join(block.tobytes() for block in super().blocks(part))
            values = np.frombuffer(raw, self._fill.dtype).reshape(-1, width)
            matrix, row = np.divmod(np.arange(first, stop), self._rows)
            scales = self._scales[matrix, row // self._block[0]]
            wide = dequantise(values, scales, (1, self._block[1]))
            yield wide.astype(self._floats).reshape(-1).view(np.uint8)


def overlaps(fill: Fill, chunk: Chunk) -> Iterator[tuple[Piece, int, int]]:
    """Each piece in a chunk, with the elements start to stop that they share."""
    for piece in fill.pieces:
        start, stop = max(piece.start, chunk.start), min(piece.stop, chunk.stop)
        if start < stop:
            yield piece, start, stop


# -- values --------------------------------------------------------------------

_INFINITY = {
    "bfloat16": (np.uint16, 0x7FFF, 0x7F80),
    "float16": (np.uint16, 0x7FFF, 0x7C00),
    "float32": (np.uint32, 0x7FFFFFFF, 0x7F800000),
    "float8_e4m3fn": (np.uint8, 0x7F, 0x7F),
}
"""Type -> its bits as integers, the mask that drops the sign, the bits of infinity (of
NaN, where there is none)."""


def has_nonfinite(values: np.ndarray, scratch: np.ndarray | None = None) -> bool:
    """Whether any is NaN or infinite: without its sign, such a float is >= infinity.

    On the bits it runs at memory speed, which NumPy's `isfinite` of bfloat16 does not.
    `scratch` are bytes to overwrite, as many as in `values`.
    """
    if values.dtype.name not in _INFINITY or not values.size:
        return False
    kind, mask, infinity = _INFINITY[values.dtype.name]
    out = None if scratch is None else scratch[: values.nbytes].view(kind)
    bits = np.bitwise_and(values.view(kind), kind(mask), out=out)
    return bool(bits.max() >= infinity)


def check_scales(name: str, values: np.ndarray):
    """Raises where a block of a parameter `name` has a scale that is no number.

    Raises:
      CheckpointError: scales of MXFP4 that float32 does not reach.
    """
    if values.dtype != np.uint8 or not name.endswith(SCALES) or not values.size:
        return
    if (most := int(values.max())) > LARGEST_SCALE:
        raise CheckpointError(
            f"{name}: expected scales of MXFP4 up to {LARGEST_SCALE}, found {most}, "
            "which would make NaN or infinite weights; the file is damaged, or its "
            "weights are of another format"
        )


def has_dead(name: str, values: np.ndarray) -> bool:
    """Whether scales of FP8, if `name` is of such, are not all above 0."""
    return _dead(name, values) > 0


def _dead(name: str, values: np.ndarray) -> int:
    """How many scales are 0 or below: their blocks are nothing, or turned about."""
    if not name.endswith(SCALES) or values.dtype.name not in _INFINITY:
        return 0
    return int((values <= 0).sum())


def _note(scan: Scan, name: str, param: str, values: np.ndarray):
    found = scan.bad.setdefault(name, Counter())
    wide = values.astype(np.float32)
    if dead := _dead(param, values):
        found["zero or negative"] += dead
    found["NaN"] += int(np.isnan(wide).sum())
    found["infinite"] += int(np.isinf(wide).sum())
