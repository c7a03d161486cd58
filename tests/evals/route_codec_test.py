"""Routes as text: there and back, and what is no such text."""

import base64
import io

import numpy as np
import pytest

from jaxmoe.evals.route_codec import decode_routes, encode_routes


def file_of(array: np.ndarray) -> bytes:
    """A `.npy` file."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def test_there_and_back():
    """A replay would take the experts of another position."""
    routes = np.arange(5 * 2 * 3, dtype=np.int16).reshape(5, 2, 3)
    text = encode_routes(4, routes)
    whole = np.load(io.BytesIO(base64.b64decode(text)))
    assert whole.shape == (4 + 5 - 1, 2, 3)
    assert (whole[:3] == -1).all() and (whole[3:] == routes).all()
    assert (decode_routes(4, text) == routes).all()


GOOD = file_of(np.zeros((4, 2, 3), np.int32))


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"no file",
        GOOD[:-1],
        GOOD + b"x",
        GOOD[:40],
        file_of(np.zeros((4, 2, 3))),
        file_of(np.zeros((4, 2), np.int32)),
        file_of(np.zeros((1, 2, 3), np.int32)),
        file_of(np.array([{}], object)),
        file_of(np.asfortranarray(np.zeros((4, 2, 3), np.int32))),
        GOOD.replace(b"(4, 2, 3)", b"(9**9**9,"),
        GOOD.replace(b"(4, 2, 3), }", b"(10**12,2,3)}"),
        GOOD.replace(b"(4, 2, 3)", b"(-4,-2,3)"),
    ],
)
def test_what_is_no_array_of_routes(raw):
    """A body of a few bytes would take the memory that its header states, or worse."""
    with pytest.raises(ValueError, match="routes must be"):
        decode_routes(3, base64.b64encode(raw).decode())


def test_what_is_no_base64():
    """A traceback would stand for an answer."""
    with pytest.raises(ValueError, match="routes must be base64"):
        decode_routes(3, "é!")
