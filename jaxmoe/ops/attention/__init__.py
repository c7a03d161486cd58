"""Attention over cached positions, in three forms.

`chunked` walks what is filled, chunk by chunk; `whole` reads whole arrays in few large
operations; `dense` has gradients, and whole sequences only.
"""

from collections.abc import Callable
from typing import NamedTuple

from jaxmoe.ops.attention import chunked, dense, whole
from jaxmoe.ops.attention.chunked import CHUNK, QKV, OnlineSoftmax
from jaxmoe.typing import Array


class Attending(NamedTuple):
    """One form: functions with the signatures of `chunked`; None where it has none."""

    causal: Callable[..., Array]
    prefix: Callable[..., OnlineSoftmax] | None = None
    suffix: Callable[..., Array] | None = None


FORMS = {
    "chunked": Attending(
        chunked.attend_causal, chunked.attend_prefix, chunked.attend_suffix
    ),
    "whole": Attending(whole.attend_causal, whole.attend_prefix, whole.attend_suffix),
    "dense": Attending(dense.attend_causal),
}
"""Name -> form (`Execution.attention`)."""

__all__ = ["CHUNK", "FORMS", "QKV", "Attending", "OnlineSoftmax"]
