"""Readers: several ways to read memory, of which the fastest is the bandwidth.

No single one is a ceiling: a sum by XLA reads less than one core can, where its threads
sleep; a loop by NumPy is one thread each; a product that widens bfloat16 bits is what a
step of decoding does.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

from jaxmoe.benchmarks.timing import Side, Spread, take_turns
from jaxmoe.execution import cores, lanes_found
from jaxmoe.ops import emitters, lanes
from jaxmoe.typing import Array

ROUNDS = 9
WIDTH = 1024
"""Of the rows that are summed apart from each other, which keeps all cores busy."""


@dataclass(frozen=True)
class Reader:
    """side: reads memory and does little else. nbytes: what one run of it reads."""

    name: str
    side: Side
    nbytes: int


def readers(backend: str) -> Iterator[Reader]:
    """The ways of a backend, each with memory of its own: far more than caches hold."""
    nbytes = 1 << (28 if backend == "cpu" else 29)
    for dtype in (jnp.float32, jnp.bfloat16):
        if backend != "cpu" or dtype == jnp.float32:
            name = f"XLA's sum of {jnp.dtype(dtype).name}"
            yield Reader(name, _summed(nbytes, dtype), nbytes)
    if backend != "cpu":
        return
    for threads in sorted({1, cores()}):
        name = f"NumPy's sum, {threads} thread{'s'[: threads - 1]}"
        yield Reader(name, _by_threads(nbytes, threads), nbytes)
    if lanes_found().width > 1:
        name = "multiply-adds of bfloat16 bits"
        yield Reader(name, _multiplied(nbytes), nbytes)


def _summed(nbytes: int, dtype) -> Side:
    array = jnp.ones((WIDTH, nbytes // WIDTH // jnp.dtype(dtype).itemsize), dtype)
    return _of(jax.jit(lambda a: a.sum(axis=1)), array)


def _multiplied(nbytes: int) -> Side:
    bits = jnp.full((nbytes // WIDTH // 2, WIDTH), 0x3F80, jnp.uint16)  # 1.0
    row = jnp.ones((1, WIDTH), jnp.float32)
    multiply = jax.jit(lanes.multiply, compiler_options=dict(emitters.options()))
    return _of(lambda a: multiply(row, a), bits)


def _by_threads(nbytes: int, threads: int) -> Side:
    """NumPy sums integers in a vectorised loop, without holding Python's lock."""
    parts = np.array_split(np.ones(nbytes // 8, np.uint64), threads)
    if threads == 1:
        return Side(lambda: parts[0].sum())
    pool = ThreadPoolExecutor(threads)
    return Side(lambda: list(pool.map(np.sum, parts)))


def _of(work: Callable[[Array], Array], array: Array) -> Side:
    return Side(lambda: work(array))


@cache
def compare(backend: str) -> tuple[tuple[Reader, Spread], ...]:
    """All ways by turns, with the bytes that each reads a second; the fastest first."""
    every = {reader.name: reader for reader in readers(backend)}
    sides = {name: reader.side for name, reader in every.items()}
    found = take_turns(sides, ROUNDS, warmup=2)
    rates = {name: found[name].into(every[name].nbytes) for name in every}
    order = sorted(every, key=lambda name: rates[name].median, reverse=True)
    return tuple((every[name], rates[name]) for name in order)


@cache
def fastest(backend: str) -> Reader:
    """The one to stand beside what is measured, by turns with it."""
    return compare(backend)[0][0]
