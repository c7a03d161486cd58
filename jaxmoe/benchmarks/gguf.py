"""Files that llama.cpp reads: GGUF, version 3, with weights in bfloat16 or float32.

https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import struct
from collections.abc import Mapping
from pathlib import Path

import numpy as np

ALIGNMENT = 32
_UINT32, _FLOAT32, _STRING = 4, 6, 8
_TENSOR_TYPES = {"float32": 0, "uint16": 30}
"""Of an array -> what the file says of it; uint16 holds bfloat16 bits."""


def write(
    path: Path,
    metadata: Mapping[str, str | int | float],
    tensors: Mapping[str, np.ndarray],
) -> None:
    """Writes a file.

    tensors: float32, or uint16 that holds bfloat16 bits; the last axis is the one that
      a product sums over, as it is in Hugging Face's checkpoints.
    """
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    for key, value in metadata.items():
        head += _text(key) + _value(value)
    start = 0
    for name, array in tensors.items():
        shape = array.shape[::-1]
        kind = _TENSOR_TYPES[array.dtype.name]
        head += _text(name) + struct.pack("<I", len(shape))
        head += struct.pack(f"<{len(shape)}QIQ", *shape, kind, start)
        start += array.nbytes + -array.nbytes % ALIGNMENT
    with path.open("wb") as file:
        file.write(head)
        for array in tensors.values():
            file.write(bytes(-file.tell() % ALIGNMENT))
            np.ascontiguousarray(array).tofile(file)


def _text(text: str) -> bytes:
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def _value(value: str | int | float) -> bytes:
    if isinstance(value, str):
        return struct.pack("<I", _STRING) + _text(value)
    if isinstance(value, int):
        return struct.pack("<II", _UINT32, value)
    return struct.pack("<If", _FLOAT32, value)
