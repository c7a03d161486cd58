"""How fast the machine reads, multiplies and wakes its threads."""

from collections.abc import Iterator
from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxmoe.benchmarks import hardware, readers, threads
from jaxmoe.benchmarks.report import Row
from jaxmoe.benchmarks.targets import Place
from jaxmoe.benchmarks.timing import Side, Spread, take_turns
from jaxmoe.execution import lanes_found

ROUNDS = 9


@dataclass(frozen=True)
class Machine:
    """bandwidth: bytes that the fastest reader reads a second. matmul: operations of a
    large product a second."""

    bandwidth: Spread
    matmul: Spread


def measure(backend: str) -> Machine:
    """Reads far more than caches hold; multiplies square matrices.

    In float32 on CPU, where arithmetic is done in it; else in bfloat16.
    """
    size, dtype = (2048, jnp.float32) if backend == "cpu" else (8192, jnp.bfloat16)
    _, bandwidth = readers.compare(backend)[0]
    return Machine(bandwidth, _matmul(size, dtype))


def rows(place: Place) -> Iterator[Row]:
    """What the machine does, and which loop it computes products of few rows with."""
    found = measure(place.backend)
    yield from _bandwidth(place)
    speed = found.matmul.times(1e-9)
    what = "rate of a large product"
    yield place.row("machine", what, speed.median, "GFLOP/s", rounds=speed)
    if place.backend == "cpu":
        yield from _waking(place, found.matmul)
        yield from _instructions(place)


def _bandwidth(place: Place) -> Iterator[Row]:
    """The fastest reader, and beside it every one."""
    every = readers.compare(place.backend)
    for place_in_order, (reader, rate) in enumerate(every):
        speed = rate.times(1e-9)
        if place_in_order == 0:
            yield place.row(
                "machine",
                "bandwidth",
                speed.median,
                "GB/s",
                rounds=speed,
                fastest_reader=reader.name,
            )
        what = f"bandwidth, by {reader.name}"
        yield place.row("machine", what, speed.median, "GB/s", rounds=speed)


def _waking(place: Place, matmul: Spread) -> Iterator[Row]:
    """What a thread that sleeps costs, alone and in a chain of small products."""
    waking = threads.wakings().times(1e6)
    what = "waking a sleeping thread"
    yield place.row("machine", what, waking.median, "us", us=waking)
    product = threads.small_products().times(1e6)
    ideal = threads.product_operations() / matmul.median * 1e6
    what = "a small product among others that follow each other"
    yield place.row(
        "machine", what, product.median, "us", us=product, at_the_large_rate_us=ideal
    )


def _instructions(place: Place) -> Iterator[Row]:
    """What the processor has, and what XLA makes of it."""
    bits, names = hardware.vector_bits(), " ".join(hardware.instructions())
    yield place.row(
        "machine",
        "widest vectors",
        bits,
        "bits",
        instructions=names,
        most_that_XLA_may_use=hardware.xla_limit(),
    )
    lanes = lanes_found()
    kernel = "lanes" if lanes.width > 1 else f"blocks, because: {lanes.why}"
    what = "vectorised loop for few rows"
    yield place.row("machine", what, lanes.width, "floats", kernel=kernel)


def _matmul(size: int, dtype) -> Spread:
    matrix = jnp.full((size, size), 1 / size, dtype)
    multiply = jax.jit(jnp.matmul)
    side = Side(lambda: multiply(matrix, matrix))
    return take_turns({"matmul": side}, ROUNDS, warmup=2)["matmul"].into(2 * size**3)
