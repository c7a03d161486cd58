"""Collectives of a program that many devices run under `jax.shard_map`.

Functions under `shard_map` see their own shards only. A `DeviceContext` tells them
which device they run on. Three collectives are enough: an all-gather of rows by those
that divide a weight, a reduce-scatter of partial results, and an all-to-all of logits
from all rows of some columns to some rows of all columns.

Partial results, of the rows' type, are added in the order of the devices, in float32,
by this program and not by the library that moves them (an all-reduce of a ring begins
each piece at another device): so equal numbers come out in whichever row they stand,
and run after run. It moves what a ring would: with M devices, (M - 1) / M of the rows
out and back.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxmoe.sharding.layout import Layout
from jaxmoe.typing import Array, Bool, Float, Int, Num


@dataclass(frozen=True)
class DeviceContext:
    """One device of a layout, seen from within.

    rows: mesh axes over which the rows at hand are divided: those of the slots; none in
    a pass over a prompt whose positions do not divide.
    """

    layout: Layout
    rows: tuple[str, ...] = ()

    def axes(self, *logical: str) -> tuple[str, ...]:
        """Mesh axes over which these logical axes are divided, larger than 1."""
        named = [axis for name in logical for axis in self.layout.rules.of(name)]
        return tuple(a for a in dict.fromkeys(named) if self._size((a,)) > 1)

    def count(self, *logical: str) -> int:
        """Parts into which these logical axes are divided."""
        return self._size(self.axes(*logical))

    def index(self, logical: str) -> Int[Array, ""] | int:
        """Which part of a logical axis lies here."""
        axes = self.axes(logical)
        return lax.axis_index(axes) if axes else 0

    def inside(
        self, ids: Int[Array, "..."], logical: str, size: int
    ) -> tuple[Int[Array, "..."], Bool[Array, "..."]]:
        """`ids` counted from the first that lies here, and which of them do.

        size: how many lie on each device.
        """
        own = ids - self.index(logical) * size
        return own, (own >= 0) & (own < size)

    def all_gather_rows(self, rows: Num[Array, "N ..."], *logical: str) -> Array:
        """The rows of all devices that hold other parts of a weight, [R * N, ...]."""
        axes = tuple(a for a in self.axes(*logical) if a in self.rows)
        return lax.all_gather(rows, axes, axis=0, tiled=True) if axes else rows

    def reduce_scatter_ordered(
        self, partial: Float[Array, "M D"], *logical: str
    ) -> Float[Array, "N D"]:
        """Partial results of gathered rows, added; each device gets its own rows."""
        axes = self.axes(*logical)
        if not axes:
            return partial
        apart = tuple(axis for axis in axes if axis in self.rows)
        alike = tuple(axis for axis in axes if axis not in self.rows)
        # Where devices have the same rows each adds some columns, for all to have.
        pieces, width = self._size(alike), partial.shape[1]
        padded = jnp.pad(partial, ((0, 0), (0, -width % pieces)))
        cut = padded.reshape(self._size(apart), -1, pieces, padded.shape[1] // pieces)
        sent = cut.swapaxes(1, 2).reshape(-1, cut.shape[1], cut.shape[3])
        found = lax.all_to_all(sent, (*apart, *alike), 0, 0)
        total = _add_in_order(found).astype(partial.dtype)
        if alike:
            total = lax.all_gather(total, alike, axis=1, tiled=True)
        return total[:, :width]

    def sum_ordered(
        self, partial: Float[Array, "*N"], logical: str
    ) -> Float[Array, "*N"]:
        """Partial sums of the devices that divide an axis, added in their order."""
        axes = self.axes(logical)
        if not axes:
            return partial
        return _add_in_order(lax.all_gather(partial, axes, axis=0))

    def join(self, columns: Float[Array, "N Q"], logical: str) -> Float[Array, "N V"]:
        """All columns of every row, where each device has some."""
        axes = self.axes(logical)
        return lax.all_gather(columns, axes, axis=1, tiled=True) if axes else columns

    def rows_for_columns(self, columns: Float[Array, "N Q"], logical: str) -> Array:
        """All columns of the rows of `mine`, [N / count, V]; or of all rows.

        All rows where they do not divide.
        """
        axes = self.axes(logical)
        if not axes or not self._exchanges(columns.shape[0], logical):
            return self.join(columns, logical)
        return lax.all_to_all(columns, axes, 0, 1, tiled=True)

    def mine(self, tree: Any, logical: str) -> Any:
        """The rows that `rows_for_columns` gives here, of arrays [N, ...]."""

        def cut(array: Array) -> Array:
            rows = array.shape[0]
            if not self._exchanges(rows, logical):
                return array
            own = rows // self.count(logical)
            return lax.dynamic_slice_in_dim(array, self.index(logical) * own, own)

        return jax.tree.map(cut, tree)

    def share(self, tree: Any, logical: str, rows: int) -> Any:
        """The way back: what each device made of its rows, for all, [N, ...]."""
        axes = self.axes(logical)
        if not self._exchanges(rows, logical):
            return tree
        every = lambda array: lax.all_gather(array, axes, axis=0, tiled=True)  # noqa: E731
        return jax.tree.map(every, tree)

    def own(self, tree: Any) -> Any:
        """Of rows that all devices have, those that are this one's to compute."""
        if not self._size(self.rows) > 1:
            return tree
        index, count = lax.axis_index(self.rows), self._size(self.rows)

        def cut(array: Array) -> Array:
            size = array.shape[0] // count
            return lax.dynamic_slice_in_dim(array, index * size, size)

        return jax.tree.map(cut, tree)

    def everyone(self, tree: Any) -> Any:
        """Rows of all devices, on each."""
        if not self._size(self.rows) > 1:
            return tree
        rows = self.rows
        every = lambda array: lax.all_gather(array, rows, axis=0, tiled=True)  # noqa: E731
        return jax.tree.map(every, tree)

    def sum_rows(self, count: Int[Array, ""]) -> Int[Array, ""]:
        """An integer summed over the devices that have other rows."""
        return lax.psum(count, self.rows) if self._size(self.rows) > 1 else count

    def _exchanges(self, rows: int, logical: str) -> bool:
        count = self.count(logical)
        return count > 1 and rows % count == 0

    def _size(self, axes: tuple[str, ...]) -> int:
        return self.layout.size(axes)


def _add_in_order(parts: Float[Array, "R *N"]) -> Float[Array, "*N"]:
    """Their sum in float32, begun with the first; written out where they are few."""
    wide = parts.astype(jnp.float32)
    unroll = parts.shape[0] if parts.shape[0] <= 16 else 1
    start = jnp.zeros_like(wide[0])
    add = lambda total, other: (total + other, None)  # noqa: E731
    return lax.scan(add, start, wide, unroll=unroll)[0]


def spread(
    layout: Layout, function: Callable[..., Any], *, specs: Any, out: Any
) -> Callable[..., Any]:
    """`function` of each device's shards, as a function of whole arrays.

    specs, out: `PartitionSpec`s of arguments and results (prefixes of their trees).
    """
    if layout.mesh.size == 1:
        return function  # its shards are whole arrays
    return jax.shard_map(
        function, mesh=layout.mesh, in_specs=specs, out_specs=out, check_vma=False
    )
