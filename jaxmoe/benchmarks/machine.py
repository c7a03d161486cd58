"""The machine: what it is, and how fast it reads and multiplies."""

import os
import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import jax
import jax.numpy as jnp

from jaxmoe.benchmarks.report import Row
from jaxmoe.benchmarks.targets import Place
from jaxmoe.benchmarks.timing import Side, Spread, take_turns
from jaxmoe.execution import lanes_found

LIBRARIES = ("jax", "jaxlib", "flax", "numpy")
ROUNDS = 9


@dataclass(frozen=True)
class Machine:
    """bandwidth: bytes read a second. matmul: operations of a product a second."""

    bandwidth: Spread
    matmul: Spread


def measure(backend: str) -> Machine:
    """Reads far more than caches hold; multiplies square matrices.

    In float32 on CPU, where arithmetic is done in it; else in bfloat16.
    """
    read, nbytes = reading(backend)
    seconds = take_turns({"read": read}, ROUNDS, warmup=2)["read"]
    size, dtype = (2048, jnp.float32) if backend == "cpu" else (8192, jnp.bfloat16)
    return Machine(seconds.into(nbytes), _matmul(size, dtype))


def rows(place: Place) -> Iterator[Row]:
    """What the machine does, and which loop it computes products of few rows with."""
    found = measure(place.backend)
    for what, speed, unit in (
        ("bandwidth", found.bandwidth, "GB/s"),
        ("rate of a large product", found.matmul, "GFLOP/s"),
    ):
        speed = speed.times(1e-9)
        yield place.row("machine", what, speed.median, unit, rounds=speed)
    if place.backend == "cpu":
        lanes = lanes_found()
        kernel = "lanes" if lanes.width > 1 else f"blocks, because: {lanes.why}"
        what = "vectorised loop for few rows"
        yield place.row("machine", what, lanes.width, "floats", kernel=kernel)


def reading(backend: str) -> tuple[Side, int]:
    """A side that reads memory and does little else, and the bytes that it reads."""
    nbytes = 1 << (28 if backend == "cpu" else 30)
    # Rows that are summed apart from each other keep all cores busy.
    array = jnp.ones((1024, nbytes // 4096), jnp.float32)
    add = jax.jit(lambda a: a.sum(axis=1))
    return Side(lambda: add(array)), nbytes


def _matmul(size: int, dtype) -> Spread:
    matrix = jnp.full((size, size), 1 / size, dtype)
    multiply = jax.jit(jnp.matmul)
    side = Side(lambda: multiply(matrix, matrix))
    return take_turns({"matmul": side}, ROUNDS, warmup=2)["matmul"].into(2 * size**3)


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def hardware() -> dict[str, str | int]:
    """Processor, its cores, and the devices that JAX sees."""
    devices = jax.devices()
    found: dict[str, str | int] = {"cpu": _cpu(), "cores": cores()}
    if devices[0].platform != "cpu":
        found |= {"device": devices[0].device_kind, "devices": len(devices)}
    return found


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    text = info.read_text(encoding="utf-8") if info.exists() else ""
    name = re.search(r"^model name\s*:\s*(.*)$", text, re.MULTILINE)
    return name[1] if name else platform.processor() or platform.machine()


def versions(others: tuple[str, ...] = ()) -> dict[str, str]:
    """Of Python, the libraries below jaxmoe, and `others`."""
    names = (*LIBRARIES, *others)
    return {"python": platform.python_version()} | {
        n: metadata.version(n) for n in names
    }
