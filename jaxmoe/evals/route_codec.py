"""Experts of an answer's tokens as text, as vLLM and SGLang send them.

The rows are of both: an integer array [P + T - 1, L, k], whose row p holds the experts
of the pass over position p of prompt and answer, P and T tokens long; -1 where nothing
is recorded (the prompt's rows before its last, dense layers). vLLM sends base64 of a
`.npy` file, SGLang base64 of the int32 values alone, in C order:

    np.load(io.BytesIO(base64.b64decode(text)))
    np.frombuffer(base64.b64decode(text), np.int32).reshape(P + T - 1, L, k)
"""

import base64
import io
from typing import Literal, get_args

import numpy as np

from jaxmoe.sampling import place_routes

Form = Literal["vllm", "sglang"]
"""Whose text: with a header that says the shape, or without."""


def encode_weights(weights: np.ndarray, *, form: Form = "vllm") -> str:
    """Weights [P + T - 1, L, K] of experts, float32, as text of the same rows."""
    return _encoded(np.asarray(weights, "<f4"), form)


def decode_weights(text: str, shape: tuple[int, int, int]) -> np.ndarray:
    """Weights from text, whoever's: the values are the last ones in both.

    Raises:
      ValueError: another encoding, or other than as many values.
    """
    try:
        raw = base64.b64decode(text, validate=True)
        values = raw[-4 * int(np.prod(shape)) :] if raw[:6] == _MAGIC else raw
        return np.frombuffer(values, "<f4").reshape(shape)
    except ValueError as error:
        raise ValueError(
            f"weights must be base64 of float32 {list(shape)}, found {text[:40]!r} "
            f"({error})"
        ) from None


_MAGIC = b"\x93NUMPY"


def _encoded(array: np.ndarray, form: Form) -> str:
    """With a header that says the shape, or the values alone."""
    if form not in get_args(Form):
        raise ValueError(f"form must be one of {get_args(Form)}, found {form!r}")
    if form == "sglang":
        return base64.b64encode(array.tobytes()).decode("ascii")
    file = io.BytesIO()
    np.save(file, array)
    return base64.b64encode(file.getvalue()).decode("ascii")


def encode_routes(
    prompt_length: int, routes: np.ndarray, *, form: Form = "vllm"
) -> str:
    """Recorded routes [T, L, K] of one answer (`Samples.routes`), as text."""
    placed = place_routes(prompt_length, len(routes), routes)[:-1]
    return _encoded(placed.astype("<i4"), form)


def decode_routes(
    prompt_length: int, text: str, *, shape: tuple[int, int, int] | None = None
) -> np.ndarray:
    """Routes [T, L, K] of one answer to replay, from text.

    Of the rows before the prompt's last nothing is used: prompts have no noise.

    Args:
      shape: [P + T - 1, L, k] of a text that is SGLang's and does not say it; vLLM's,
        which does, needs none, and is read by its own.

    Raises:
      ValueError: another encoding, or an array that does not reach the answer.
    """
    named = "a .npy file of integers"
    try:
        raw = base64.b64decode(text, validate=True)
        if shape is None or raw[:6] == _MAGIC:
            array = _read(raw)
        else:
            named = f"int32 of {shape}"
            array = np.frombuffer(raw, "<i4").reshape(shape)
    except Exception as error:  # whatever a made-up header makes of NumPy
        raise ValueError(
            f"routes must be base64 of {named}, found {text[:40]!r} "
            f"({str(error)[:120]}); encode it with np.save and base64.b64encode"
        ) from None
    if array.ndim != 3 or len(array) < prompt_length:
        raise ValueError(
            "routes must be [P + T - 1, L, k], P the prompt's tokens "
            f"({prompt_length}), found shape {array.shape}"
        )
    return array[prompt_length - 1 :]


def _read(raw: bytes) -> np.ndarray:
    """The array of a `.npy` file, without trust in the size that it states."""
    file = io.BytesIO(raw)
    version = np.lib.format.read_magic(file)
    readers = {
        (1, 0): np.lib.format.read_array_header_1_0,
        (2, 0): np.lib.format.read_array_header_2_0,
    }
    if version not in readers:
        raise ValueError(f"version {version}")
    shape, by_columns, dtype = readers[version](file)
    if by_columns or dtype.kind not in "iu":
        raise ValueError(f"{dtype}, by columns: {by_columns}")
    # A view of what came: a size that does not fit is an error, and takes no memory.
    return np.frombuffer(raw, dtype, offset=file.tell()).reshape(shape)
