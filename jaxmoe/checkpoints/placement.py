"""Sharded arrays put together shard by shard, with few bytes in hand at a time.

A process reads only the shards of its own devices, each once however many of them
hold it. On CPU the memory that a shard is read into becomes the device's array.
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
        the default device.
      reader: from a name to what reads its shards; called in threads, as is its result.
      jobs: arrays in flight.
      staging: bytes in hand at once beside what the devices hold. A shard larger than
        that goes alone.

    Raises:
      Exception: the first that a reader raised.
    """
    budget = Budget(staging)

    def load(name: str) -> jax.Array:
        return place(abstract[name], reader(name), budget)

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
            copies = [jax.device_put(values, device) for device in devices]
            jax.block_until_ready(copies)
            del values
        parts += copies
    return jax.make_array_from_single_device_arrays(shape, sharding, parts)


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
