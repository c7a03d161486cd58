"""Multiplying by weights: whole, as bits, and as bits in tiles."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.nn import linear
from jaxmoe.nn.linear import project, project_heads
from jaxmoe.ops.matmul import multiply
from jaxmoe.ops.stack import OfLayer
from tests.tiny import EXECUTION

pytestmark = pytest.mark.optimised  # equal bits

_project = jax.jit(partial(project, execution=EXECUTION))


def _matrix(shape, seed=0):
    values = np.random.default_rng(seed).normal(size=shape) / np.sqrt(shape[-1])
    return jnp.asarray(values, jnp.float32).astype(jnp.bfloat16)


def _bits(matrix):
    return jnp.asarray(np.asarray(matrix).view(np.uint16))


def _rows(rows, width):
    values = np.random.default_rng(rows).normal(size=(rows, width))
    return jnp.asarray(values, jnp.float32)


def _exact(x, matrix):
    wide = np.asarray(matrix.astype(jnp.float32), np.float64)
    return np.einsum("nd,...d->n...", np.asarray(x, np.float64), wide)


@pytest.mark.parametrize("shape", [(5, 8), (2, 5, 8), (3, 2, 4, 8)])
@pytest.mark.parametrize("rows", [1, 6])
@pytest.mark.parametrize("held", ["float32", "bits"])
def test_small_weights_equal_the_product(shape, rows, held):
    """Leading axes of the weight become trailing axes of the result."""
    matrix, x = _matrix(shape), _rows(rows, 8)
    given = _bits(matrix) if held == "bits" else matrix.astype(jnp.float32)
    found = _project(x, given)
    assert found.shape == (rows, *shape[:-1])
    np.testing.assert_allclose(found, _exact(x, matrix), rtol=1e-5, atol=1e-6)


# (rows of the weight, columns): a tile has 1024 rows at 256 columns. (It is larger
# where it is not being tested.)
TILE_VALUES = 1 << 18
TILED = {
    "whole tiles": (4096, 256),
    "a smaller tile fits": (4000, 256),
    "one row left over": (2049, 256),
    "prime": (2053, 256),
    "less than a tile left over": (3070, 256),
    "wide rows": (7, 100_000),
    "rows wider than a tile": (3, 300_000),
}


@pytest.mark.parametrize("shape", TILED.values(), ids=TILED)
def test_tiles_equal_the_product(shape, monkeypatch):
    """A row of the weight skipped or multiplied twice at a tile's border."""
    monkeypatch.setattr(linear, "_TILE_VALUES", TILE_VALUES)
    matrix, x = _matrix(shape), _rows(2, shape[1])
    assert matrix.size > 2 * TILE_VALUES
    found = _project(x, _bits(matrix))
    np.testing.assert_allclose(found, _exact(x, matrix), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("rows", "columns"), [(12, 8), (13, 8), (11, 16), (9, 64)])
def test_tiles_equal_the_plain_path(rows, columns, monkeypatch):
    """The same weight below and above the limit, with remainders."""
    matrix, x = _matrix((rows, columns)), _rows(3, columns)
    plain = project(x, _bits(matrix), EXECUTION)
    monkeypatch.setattr(linear, "_TILE_VALUES", 40)
    tiled = linear._project_tiles(x, _bits(matrix), partial(multiply, weight_left=True))
    assert rows * columns > 2 * linear._TILE_VALUES
    np.testing.assert_allclose(tiled, plain, rtol=1e-5, atol=1e-6)


def test_tiles_of_a_stacked_weight(monkeypatch):
    """A three-dimensional weight is cut across its first two axes together."""
    monkeypatch.setattr(linear, "_TILE_VALUES", TILE_VALUES)
    matrix = _matrix((2, 1025, 300))
    x = _rows(2, 300)
    found = _project(x, _bits(matrix))
    assert found.shape == (2, 2, 1025)
    np.testing.assert_allclose(found, _exact(x, matrix), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("shape", [(6, 16), (2053, 256)])
def test_a_row_does_not_feel_the_others(shape):
    """A sample keeps its bits whoever shares the batch, in either path."""
    weight, x = _bits(_matrix(shape)), _rows(8, shape[1])
    together = _project(x, weight)
    changed = _project(x.at[:5].set(jnp.nan), weight)
    np.testing.assert_array_equal(changed[5:], together[5:])
    moved = _project(x[::-1], weight)
    np.testing.assert_array_equal(moved[::-1], together)


@pytest.mark.parametrize("tile", [linear._TILE_VALUES, 40], ids=["whole", "tiles"])
@pytest.mark.parametrize("over", ["rows", "columns"])
def test_every_head_has_a_matrix_of_its_own(over, tile, monkeypatch):
    """A head would be multiplied by another's matrix, or by rows of its other part."""
    monkeypatch.setattr(linear, "_TILE_VALUES", tile)
    stack, rows = _matrix((2, 6, 7, 8)), (3, 4)
    x = _rows(5 * 6, 4 if over == "rows" else 8).reshape(5, 6, -1)
    found = project_heads(x, OfLayer(_bits(stack), 1), rows=rows, over=over)
    part = np.asarray(stack[1, :, 3:7].astype(jnp.float32), np.float64)
    form = "nhm,hmk->nhk" if over == "rows" else "nhk,hmk->nhm"
    expected = np.einsum(form, np.asarray(x, np.float64), part)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_result_has_the_type_of_x():
    """bfloat16 rows give bfloat16, summed in float32 on the way."""
    matrix, x = _matrix((4, 512)), _rows(2, 512).astype(jnp.bfloat16)
    found = _project(x, matrix)
    assert found.dtype == jnp.bfloat16
    exact = _exact(x.astype(jnp.float32), matrix)
    np.testing.assert_allclose(found.astype(jnp.float32), exact, rtol=0.01, atol=0.005)


def test_weights_name_one_axis_a_dimension():
    """A weight without a name for each axis could not be sharded."""
    with pytest.raises(AssertionError):
        linear.weight((2, 3), jnp.float32, ("embed",))
    named = linear.weight((2, 3), jnp.float32, ("heads", "embed"))
    assert named.get_metadata("axes") == ("heads", "embed")


@pytest.mark.parametrize(
    ("rows", "most", "tile"),
    [(4096, 1024, 1024), (32000, 640, 640), (2053, 640, 640), (7, 6, 6), (5, 9, 5)],
)
def test_tile_rows(rows, most, tile):
    """A divisor where there is one that is not small: nothing is left over then."""
    assert linear._tile_rows(rows, most) == tile
