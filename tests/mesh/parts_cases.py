"""Exchanges between 8 devices; run by eight_devices_test.py in a process of its own."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from jaxmoe.sharding.collectives import DeviceContext, spread
from jaxmoe.sharding.layout import Layout
from jaxmoe.sharding.rules import Rules

pytestmark = pytest.mark.optimised  # equal bits

AXES = ("data", "model")


def layout_of(shape: tuple[int, int], **rules) -> Layout:
    """A mesh with such rules."""
    kinds = (jax.sharding.AxisType.Auto,) * 2
    return Layout(jax.make_mesh(shape, AXES, kinds), Rules(**rules))


@pytest.mark.parametrize("shape", [(2, 4), (8, 1), (1, 8)], ids=str)
@pytest.mark.parametrize("experts", [("data",), ("model",), AXES, AXES[::-1]], ids=str)
@pytest.mark.parametrize("width", [16, 5])
def test_gathered_rows_come_back_added(shape, experts, width):
    """Each device multiplies all rows by its own weight; a row's owner would get the
    sum over some devices only, or another row's."""
    layout = layout_of(shape, slots=("data",), experts=experts)
    part = DeviceContext(layout, ("data",))
    rows = np.random.default_rng(0).normal(size=(16, width)).astype(np.float32)

    def work(x):
        every = part.all_gather_rows(x, "experts")
        weight = 1.0 + part.index("experts") * 1.0
        return part.reduce_scatter_ordered(every * weight, "experts")

    axis = PartitionSpec("data")
    out = jax.jit(spread(layout, work, specs=axis, out=axis))(rows)
    count = part.count("experts")
    np.testing.assert_allclose(out, rows * sum(range(1, count + 1)), rtol=1e-6)


def test_every_row_is_added_in_one_order():
    """Equal rows in other places, or on other devices, would get other last bits, as
    they do from an all-reduce that begins each piece at another device."""
    layout = layout_of((2, 4), slots=("data",), experts=AXES)
    part = DeviceContext(layout, ("data",))
    pieces = np.random.default_rng(1).normal(size=8).astype(np.float32) ** 9

    def work(x):
        every = part.all_gather_rows(x, "experts")
        own = jnp.asarray(pieces)[part.index("experts")]
        return part.reduce_scatter_ordered(every * own, "experts")

    axis = PartitionSpec("data")
    rows = np.full((16, 12), np.float32(1 / 3))
    out = np.asarray(jax.jit(spread(layout, work, specs=axis, out=axis))(rows))
    assert (out == out[0, 0]).all()
    total = np.float32(0)
    for piece in pieces:
        total = np.float32(total + np.float32(1 / 3) * piece)
    assert out[0, 0] == total


@pytest.mark.parametrize("rows", [8, 6])
def test_columns_turn_into_rows_and_back(rows):
    """Tokens would be drawn from a part of the vocabulary, or for another slot."""
    layout = layout_of((1, 8), vocab=("model",))
    part = DeviceContext(layout)
    logits = np.arange(rows * 16, dtype=np.float32).reshape(rows, 16)
    names = np.arange(rows)

    def work(columns, names):
        turned, own = part.rows_for_columns(columns, "vocab"), part.mine(names, "vocab")
        found = turned.sum(axis=1) * 1000 + own
        return part.share(found, "vocab", rows), part.join(columns, "vocab")

    spec, whole = PartitionSpec(None, "model"), PartitionSpec()
    run = jax.jit(spread(layout, work, specs=(spec, whole), out=(whole, whole)))
    found, joined = run(logits, names)
    np.testing.assert_array_equal(found, logits.sum(axis=1) * 1000 + names)
    np.testing.assert_array_equal(joined, logits)


def test_what_lies_elsewhere_is_marked():
    """An expert would be computed by a device that does not have it, or by two."""
    layout = layout_of((2, 4), experts=AXES)
    part = DeviceContext(layout)
    ids = np.array([[0, 5, 15, -1]])

    def work(ids):
        own, here = part.inside(ids, "experts", 2)
        return jnp.where(here, own, -1)

    out = PartitionSpec(AXES)
    found = jax.jit(spread(layout, work, specs=PartitionSpec(), out=out))(ids)
    expected = np.full((8, 4), -1)
    expected[0, 0], expected[2, 1], expected[7, 2] = 0, 1, 1
    np.testing.assert_array_equal(found, expected)


def test_counts_are_of_all_rows():
    """Devices would stop at different steps, and wait for each other for ever."""
    layout = layout_of((4, 2), slots=("data",))
    part = DeviceContext(layout, ("data",))
    total = partial(lambda active: part.sum_rows(active.sum())[None])
    run = spread(layout, total, specs=PartitionSpec("data"), out=PartitionSpec("data"))
    active = np.array([True, False] * 6)
    np.testing.assert_array_equal(jax.jit(run)(active), [6] * 4)
