"""What this machine is: processor, instruction set, devices, and versions."""

import os
import platform
import re
from importlib import metadata
from pathlib import Path

import jax

from jaxmoe.execution import cores

LIBRARIES = ("jax", "jaxlib", "flax", "numpy")
VECTORS = {"avx512f": 512, "avx2": 256, "avx": 256, "sse4_2": 128, "asimd": 128}
"""Flags of a processor -> bits of the vectors that it computes with, widest first."""
PRODUCTS = ("avx512_bf16", "amx_bf16", "avx512_vnni", "avx_vnni", "bf16")
"""Flags of instructions for products of short numbers."""


def hardware() -> dict[str, str | int]:
    """Processor, its cores and instructions, and the devices that JAX sees."""
    devices = jax.devices()
    found: dict[str, str | int] = {
        "cpu": _cpu(),
        "cores": cores(),
        "instructions": " ".join(instructions()),
        "most that XLA may use": xla_limit(),
    }
    if devices[0].platform != "cpu":
        found |= {"device": devices[0].device_kind, "devices": len(devices)}
    return found


def device_memory() -> int | None:
    """Bytes that JAX may use on the first device; None where it does not say."""
    told = jax.devices()[0].memory_stats() or {}
    return told.get("bytes_limit")


def instructions() -> tuple[str, ...]:
    """The widest vectors of the processor, and its products of short numbers."""
    flags = set(_of_cpuinfo("flags|Features").split())
    widest = next((flag for flag in VECTORS if flag in flags), "unknown")
    return (widest, *(flag for flag in PRODUCTS if flag in flags))


def vector_bits() -> int:
    """Of the widest vectors of the processor; 0 where it is not known."""
    return VECTORS.get(instructions()[0], 0)


def xla_limit() -> str:
    """The instruction set that XLA_FLAGS keeps XLA to, or "all"."""
    found = re.search(r"xla_cpu_max_isa=(\w+)", os.environ.get("XLA_FLAGS", ""))
    return found[1] if found else "all"


def _cpu() -> str:
    found = _of_cpuinfo("model name")
    return found or platform.processor() or platform.machine()


def _of_cpuinfo(name: str) -> str:
    info = Path("/proc/cpuinfo")
    text = info.read_text(encoding="utf-8") if info.exists() else ""
    found = re.search(rf"^(?:{name})\s*:\s*(.*)$", text, re.MULTILINE)
    return found[1] if found else ""


def versions(others: tuple[str, ...] = ()) -> dict[str, str]:
    """Of Python, the libraries below jaxmoe, and `others`."""
    names = (*LIBRARIES, *others)
    return {"python": platform.python_version()} | {
        n: metadata.version(n) for n in names
    }
