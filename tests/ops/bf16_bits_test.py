"""bfloat16 held as bits: exact, for every value there is."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from jaxmoe.ops.bf16_bits import hold_for, is_bits, widen

EVERY = np.arange(1 << 16, dtype=np.uint16)


@pytest.mark.parametrize("jit", [False, True])
def test_every_pattern_widens_exactly(jit):
    """All 65536 bfloat16 patterns, subnormals, infinities and NaN payloads included."""
    found = np.asarray((jax.jit(widen) if jit else widen)(jnp.asarray(EVERY)))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found.view(np.uint32), EVERY.astype(np.uint32) << 16)
    expected = EVERY.view(ml_dtypes.bfloat16).astype(np.float32)
    numbers = ~np.isnan(expected)
    np.testing.assert_array_equal(
        found[numbers].view(np.uint32), expected[numbers].view(np.uint32)
    )
    assert np.isnan(found[~numbers]).all()


def test_there_and_back():
    """What `hold_for` holds on CPU must widen to the checkpoint's own values."""
    values = jnp.asarray(np.linspace(-3, 3, 999), jnp.bfloat16)
    held = hold_for("cpu", values)
    assert is_bits(held)
    np.testing.assert_array_equal(widen(held), values.astype(jnp.float32))
    np.testing.assert_array_equal(widen(held, jnp.bfloat16), values)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float16, jnp.bfloat16])
def test_floats_are_converted_as_values(dtype):
    """A float weight must not be taken for bits."""
    values = jnp.arange(-8.0, 8.0).astype(dtype)
    assert not is_bits(values)
    np.testing.assert_array_equal(widen(values), np.arange(-8.0, 8.0))
    assert widen(values, jnp.bfloat16).dtype == jnp.bfloat16


@pytest.mark.parametrize(
    ("platform", "given", "held"),
    [
        ("cpu", jnp.bfloat16, jnp.uint16),
        ("cpu", jnp.float16, jnp.float32),
        ("cpu", jnp.float32, jnp.float32),
        ("gpu", jnp.bfloat16, jnp.bfloat16),
        ("tpu", jnp.float16, jnp.float16),
        ("gpu", jnp.float32, jnp.float32),
    ],
)
def test_how_weights_are_held(platform, given, held):
    """Values never change, and shapes neither; only CPU keeps bits."""
    values = jnp.asarray([[1.5, -2.0, 0.0]], given)
    found = hold_for(platform, values)
    assert found.dtype == held
    assert found.shape == values.shape
    np.testing.assert_array_equal(widen(found), [[1.5, -2.0, 0.0]])


SHARDED = """
import jax, jax.numpy as jnp, numpy as np
from jaxmoe.ops.bf16_bits import hold_for
mesh = jax.make_mesh((2, 4), ("a", "b"))
values = np.arange(64.0).reshape(8, 8)
for axes in [("a", "b"), (None, "a"), (("a", "b"),), ()]:
    sharding = jax.NamedSharding(mesh, jax.P(*axes))
    for dtype, held in [(jnp.bfloat16, jnp.uint16), (jnp.float16, jnp.float32)]:
        array = jax.device_put(jnp.asarray(values, dtype), sharding)
        found = hold_for("cpu", array)
        assert found.dtype == held and found.sharding == sharding
        whole = np.asarray(array)
        bits = whole.view(np.uint16) if held == jnp.uint16 else whole.astype(held)
        for shard in found.addressable_shards:
            assert (np.asarray(shard.data) == bits[shard.index]).all()
            if held == jnp.uint16:  # no second copy
                before = {s.device: s.data for s in array.addressable_shards}
                old = before[shard.device].unsafe_buffer_pointer()
                assert shard.data.unsafe_buffer_pointer() == old
"""


@pytest.mark.thorough
def test_shards_stay_where_they_are():
    """A sharded weight would be gathered on one device, or copied, to become bits."""
    env = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
    }
    command = [sys.executable, "-c", SHARDED]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
