"""Progress bars, and the clock of compilations."""

import time

import jax
import jax.numpy as jnp
import pytest

from jaxmoe.cli.bars import CompileClock, rate


def test_the_clock_counts_compiling_alone():
    """Tokens a second would be those of a machine that compiles."""
    starts = []

    def slow(x):
        time.sleep(0.05)  # while it is traced
        return jnp.sin(x) * 3

    function = jax.jit(slow)
    with CompileClock(lambda: starts.append(1)) as clock:
        assert clock.seconds == 0
        began = time.perf_counter()
        function(jnp.float32(1)).block_until_ready()
        whole, compiling = time.perf_counter() - began, clock.seconds
        assert starts and 0.05 <= compiling <= whole
        count = len(starts)
        function(jnp.float32(2)).block_until_ready()
        time.sleep(0.02)
        assert clock.seconds == compiling and len(starts) == count
    jax.jit(lambda x: slow(x) + 1)(jnp.float32(1))
    assert clock.seconds == compiling and len(starts) == count


def test_the_clock_stops_where_compiling_fails():
    """One failure would make all later seconds count as compiling."""

    def fail(x):
        raise ValueError("no")

    with CompileClock(lambda: None) as clock:
        with pytest.raises(ValueError, match="no"):
            jax.jit(fail)(1)
        compiling = clock.seconds
        time.sleep(0.01)
        assert clock.seconds == compiling


def test_rate():
    """A rate would be divided by nothing, or by the wrong time."""
    assert rate(100, 12.0, 2.0) == 10
    assert rate(100, 2.0, 2.0) == rate(0, 0.0, 0.0) == 0
