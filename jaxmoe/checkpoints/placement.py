"""Sharded arrays put together shard by shard, with few bytes in hand at a time.

A process reads only the shards of its own devices, each once however many of them
hold it. On CPU the memory that a shard is read into becomes the device's array, and a
stack of layers is read layer by layer into its place: no weight is there twice.
"""

import math
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmoe.nn.segments import stored_names

STAGING_BYTES = 512 << 20
"""Bytes of shards on their way to devices, in all threads of a process together."""

Index = tuple[slice, ...]
"""Where a shard lies in its array: a start and a stop for each axis."""

Read = Callable[[Index], np.ndarray]
"""From the place of a shard to its values, in memory that nothing else writes."""


class Budget:
    """A number of bytes for several threads to share.

    >>> budget = Budget(10)
    >>> with budget.hold(4): ...   # waits until 4 bytes are free, gives them back
    """

    def __init__(self, nbytes: int):
        """`nbytes` are free at the start."""
        self._total = self._free = nbytes
        self._changed = threading.Condition()

    @contextmanager
    def hold(self, nbytes: int) -> Iterator[None]:
        """Waits for `nbytes`; who asks for more than there are gets all, alone."""
        nbytes = min(nbytes, self._total)
        with self._changed:
            self._changed.wait_for(lambda: self._free >= nbytes)
            self._free -= nbytes
        try:
            yield
        finally:
            with self._changed:
                self._free += nbytes
                self._changed.notify_all()


def unstacked(
    abstract: Mapping[str, jax.ShapeDtypeStruct],
) -> dict[str, jax.ShapeDtypeStruct]:
    """Stored name -> shape and type to read, of weights some of which are stacks.

    What is to be held as bits is read as the bfloat16 that it is.
    """
    found = {}
    for name, leaf in abstract.items():
        names = stored_names(name)
        shape = leaf.shape if names == [name] else leaf.shape[1:]
        dtype = jnp.bfloat16 if leaf.dtype == jnp.uint16 else leaf.dtype
        found |= dict.fromkeys(names, jax.ShapeDtypeStruct(shape, dtype))
    return found


def place_all(
    abstract: Mapping[str, jax.ShapeDtypeStruct],
    reader: Callable[[str], Read],
    *,
    jobs: int,
    staging: int = STAGING_BYTES,
) -> dict[str, jax.Array]:
    """Reads and places every array of `abstract`.

    Args:
      abstract: name -> shape, type and sharding; without a sharding the array goes to
        the default device. A name may be of a stack of layers
        (`jaxmoe.nn.segments`), and a type uint16, for bfloat16 held as bits.
      reader: from a stored name to what reads its shards (see `unstacked`); called in
        threads, as is its result.
      jobs: arrays in flight.
      staging: bytes in hand at once beside what the devices hold. A shard larger than
        that goes alone.

    Raises:
      Exception: the first that a reader raised.
    """
    budget = Budget(staging)

    def load(name: str) -> jax.Array:
        names = stored_names(name)
        reads = [reader(stored) for stored in names]
        read = reads[0] if names == [name] else _stack(reads)
        return place(abstract[name], read, budget)

    # Large ones first, so that no thread is left alone with one at the end.
    names = sorted(abstract, key=lambda n: -math.prod(abstract[n].shape))
    with ThreadPoolExecutor(jobs) as pool:
        loads = {name: pool.submit(load, name) for name in names}
        try:
            return {name: loads[name].result() for name in abstract}
        finally:
            pool.shutdown(cancel_futures=True)


def place(want: jax.ShapeDtypeStruct, read: Read, budget: Budget) -> jax.Array:
    """One array: each of this process's shards is read, handed over, and let go."""
    shape, dtype = tuple(want.shape), np.dtype(want.dtype)
    sharding = want.sharding or jnp.zeros(()).sharding  # the default device
    parts = []
    for index, devices in owners(sharding, shape).items():
        with budget.hold(math.prod(b - a for a, b in index) * dtype.itemsize):
            values = read(tuple(slice(a, b) for a, b in index))
            if values.dtype != dtype:
                values = values.view(dtype)  # bits
            copies = [jax.device_put(values, device) for device in devices]
            jax.block_until_ready(copies)
            del values
        parts += copies
    return jax.make_array_from_single_device_arrays(shape, sharding, parts)


def _stack(reads: list[Read]) -> Read:
    """Reads parts of a stack, one layer after the other."""

    def read(index: Index) -> np.ndarray:
        layers, *rest = index
        out = None
        for at, layer in enumerate(range(layers.start, layers.stop)):
            part = reads[layer](tuple(rest))
            if out is None:
                out = aligned((layers.stop - layers.start, *part.shape), part.dtype)
            out[at] = part
        assert out is not None, index
        return out

    return read


def owners(
    sharding: jax.sharding.Sharding, shape: tuple[int, ...]
) -> dict[tuple[tuple[int, int], ...], list[Any]]:
    """This process's shards: (start, stop) of each axis -> the devices that hold it."""
    found: dict[tuple[tuple[int, int], ...], list[Any]] = {}
    for device, index in sharding.addressable_devices_indices_map(shape).items():
        slices = zip(index or (), shape, strict=True)
        bounds = tuple(part.indices(size)[:2] for part, size in slices)
        found.setdefault(bounds, []).append(device)
    return found


def aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """Uninitialised memory that starts at 64 bytes: JAX on CPU takes it uncopied."""
    nbytes = math.prod(shape) * dtype.itemsize
    raw = np.empty(nbytes + 64, np.uint8)
    skip = -raw.ctypes.data % 64
    return raw[skip : skip + nbytes].view(dtype).reshape(shape)
