"""The types that weights can have on a device."""

import contextlib
from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np

WEIGHT_DTYPES = (
    np.dtype(ml_dtypes.bfloat16),
    np.dtype(np.float16),
    np.dtype(np.float32),
)
SPELLINGS = {
    "bf16": WEIGHT_DTYPES[0],
    "fp16": WEIGHT_DTYPES[1],
    "half": WEIGHT_DTYPES[1],
    "fp32": WEIGHT_DTYPES[2],
    "float": WEIGHT_DTYPES[2],
}
"""Names that NumPy does not know, or takes for another type."""


def weights_dtype(dtype: Any) -> np.dtype:
    """The type that `dtype` names.

    Args:
      dtype: bfloat16, float16 or float32: a name, one of `SPELLINGS`, or a type of
        NumPy, JAX or torch.

    Raises:
      ValueError: anything else. Weights cut to integers would answer nonsense, and
        JAX has no float64 unless asked.
    """
    found = None
    if type(dtype).__module__ == "torch":
        dtype = str(dtype).removeprefix("torch.")
    with contextlib.suppress(TypeError):  # what names no type at all
        if isinstance(dtype, str) and dtype in SPELLINGS:
            found = SPELLINGS[dtype]
        elif dtype is not None:  # which NumPy takes for float64
            found = jnp.dtype(dtype)
    if found is None or found not in WEIGHT_DTYPES:
        names = ", ".join(known.name for known in WEIGHT_DTYPES)
        raise ValueError(
            f"dtype must be one of {names} (or {', '.join(SPELLINGS)}), found "
            f"{dtype!r}; leave it out to keep the type that the weights are stored in"
        )
    return found
