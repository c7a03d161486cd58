"""Threads: what it costs to wake one, and so to share a little work.

On some machines, in some minutes, a sleeping thread takes ten times as long to wake. A
program of a thousand small products that are shared among threads feels it; a read of
memory and a large product do not.
"""

import os
import threading
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from jaxmoe.benchmarks.timing import Side, Spread, take_turns

EXCHANGES = 200
PRODUCTS = 100
SHAPE = (32, 512)
ROUNDS = 9


def wakings() -> Spread:
    """Seconds from a word to a sleeping thread until it runs, by pairs of pipes."""
    return take_turns({"wake": Side(_exchange)}, ROUNDS)["wake"].times(
        1 / (2 * EXCHANGES)
    )


def small_products() -> Spread:
    """Seconds of a product of few rows, one of many that follow each other.

    XLA shares each among its threads: all but the first of them wake for each product.
    """
    rows, width = SHAPE
    matrix = jnp.full((width, width), 1 / width, jnp.float32)

    @jax.jit
    def loop(x):
        return lax.fori_loop(0, PRODUCTS, lambda _, x: x @ matrix, x)

    side = Side(partial(loop, jnp.ones((rows, width), jnp.float32)))
    return take_turns({"loop": side}, ROUNDS)["loop"].times(1 / PRODUCTS)


def product_operations() -> int:
    """Multiplications and additions of one of `small_products`."""
    rows, width = SHAPE
    return 2 * rows * width * width


def _exchange() -> None:
    """Two threads that wake each other; each sleeps in a read from a pipe."""
    (mine, to_me), (other, to_other) = os.pipe(), os.pipe()
    try:
        answering = threading.Thread(target=_echo, args=(other, to_me))
        answering.start()
        for _ in range(EXCHANGES):
            os.write(to_other, b"x")
            os.read(mine, 1)
        answering.join()
    finally:
        for end in (mine, to_me, other, to_other):
            os.close(end)


def _echo(source: int, target: int) -> None:
    for _ in range(EXCHANGES):
        os.write(target, os.read(source, 1))
