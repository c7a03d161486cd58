"""Which types weights are loaded in."""

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from jaxmoe.checkpoints.dtypes import weights_dtype


@pytest.mark.parametrize(
    ("name", "spellings"),
    [
        ("bfloat16", ["bfloat16", "bf16", jnp.bfloat16, ml_dtypes.bfloat16]),
        ("float16", ["float16", "fp16", "half", np.float16, np.dtype("<f2")]),
        ("float32", ["float32", "fp32", "float", jnp.float32, np.dtype("float32")]),
    ],
)
def test_spellings(name, spellings):
    """A usual name would be refused, or taken for another type."""
    for spelling in (*spellings, jnp.zeros(1, name).dtype):
        assert weights_dtype(spelling) == jnp.dtype(name)


@pytest.mark.parametrize(
    "dtype",
    ["int8", "uint16", "float64", "double", "float8_e4m3fn", "bool", "complex64"]
    + [np.int32, np.float64, jnp.int8, float, int, "torch.bfloat16", "", "no type"]
    + [7, (), [], None, object()],
)
def test_refusals(dtype):
    """Weights would be cut to integers, and the model answer nonsense."""
    with pytest.raises(ValueError) as error:
        weights_dtype(dtype)
    assert repr(dtype) in str(error.value)
    assert all(n in str(error.value) for n in ("bfloat16", "float16", "float32"))
