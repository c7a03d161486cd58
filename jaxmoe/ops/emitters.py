"""XLA's older emitter for CPU, which alone vectorises the loops of `jaxmoe.ops.lanes`.

Up to jax 0.10 an option has it compile a whole program. Later versions have no such
option, but use it still for what they compile into one kernel: a call that is marked
for that, and any loop whose operations it has. Such a kernel runs on one thread. So
a product is cut into parts there, each of them a marked call, and `spread` keeps the
loop around them from becoming a kernel itself. XLA runs operations side by side where
more than 8 of them wait, and none writes where another does: what a call computes has
to be one fused operation, with nothing kept in between.
"""

import os
from collections.abc import Callable
from functools import cache
from itertools import compress, pairwise
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental.xla_metadata import set_xla_metadata
from jax.extend.core import Jaxpr, Var, jaxpr_as_fun

from jaxmoe.typing import Array

CompilerOptions = tuple[tuple[str, bool | int | str], ...]

OLDER: CompilerOptions = (("xla_cpu_use_fusion_emitters", False),)
"""XLA's option for programs compiled by the older emitter whole."""

WIDE: CompilerOptions = (
    # Zen and Xeon have wider registers than LLVM prefers. Others ignore it.
    ("xla_cpu_prefer_vector_width", 512),
)

WAITING = 10
"""Calls that wait at a time, for XLA to give half of them to another thread."""

LEAST_VALUES = 1 << 17
"""Of the matrix of a product in several calls: with fewer, what it costs to wake a
thread is more than what that saves."""


def options() -> CompilerOptions:
    """XLA's options for programs with loops of `jaxmoe.ops.lanes`."""
    return (*accepted(OLDER), *accepted(WIDE))


@cache
def accepted(options: CompilerOptions) -> CompilerOptions:
    """`options` if this version of XLA has them; else none."""
    on_cpu = jax.sharding.SingleDeviceSharding(jax.local_devices(backend="cpu")[0])
    number = jax.ShapeDtypeStruct((), "float32", sharding=on_cpu)
    probe = jax.jit(lambda x: x, compiler_options=dict(options))
    try:
        probe.lower(number).compile()
    except RuntimeError:  # "No such compile option"
        return ()
    return options


def by_calls() -> bool:
    """Whether products have to be calls: no whole program has the older emitter."""
    return not accepted(OLDER)


def call(function: Callable[..., Array], *arguments: Any) -> Array:
    """`function(*arguments)`, in a kernel of its own made by the older emitter.

    XLA ends the process (jaxlib 0.12) where such a kernel has an argument that it does
    not read. So those that `function` makes no use of are left out; one that XLA would
    find to be without effect is for `function` to avoid.
    """
    leaves, tree = jax.tree.flatten(arguments)
    traced = jax.make_jaxpr(lambda *given: function(*tree.unflatten(given)))(*leaves)
    read = [var in _read(traced.jaxpr) for var in traced.jaxpr.invars]

    def kernel(*some: Array) -> Array:
        given = iter(some)
        every = [
            next(given) if used else jnp.zeros(leaf.shape, leaf.dtype)
            for used, leaf in zip(read, leaves, strict=True)
        ]
        return jaxpr_as_fun(traced)(*every)[0]

    with set_xla_metadata(xla_cpu_small_call="true", inlineable="false"):
        return jax.jit(kernel)(*compress(leaves, read))


def _read(jaxpr: Jaxpr) -> set[Var]:
    """What the results depend on."""
    found = {var for var in jaxpr.outvars if isinstance(var, Var)}
    for equation in reversed(jaxpr.eqns):
        if not found.isdisjoint(equation.outvars):
            found |= {var for var in equation.invars if isinstance(var, Var)}
    return found


def spread(index: Array, values: int) -> Array:
    """`index` of a turn of a loop, which may then not be one kernel on one thread.

    It went through a sort, which the older emitter does not have.

    Args:
      index: An integer.
      values: Of the largest matrix of a product in the loop.
    """
    if not by_calls() or calls(values) == 1:
        return index
    return lax.sort(jnp.stack([index, index + 1]))[0]


def calls(values: int) -> int:
    """How many make a product with a matrix of so many values."""
    if cores() == 1 or values < LEAST_VALUES:
        return 1
    return WAITING if cores() < 4 else 2 * WAITING


def parts(outputs: int, count: int) -> list[range]:
    """Which outputs each of so many calls computes; fewer where there are as few.

    >>> parts(7, 3)
    [range(0, 2), range(2, 4), range(4, 7)]
    """
    count = min(count, outputs)
    borders = [outputs * i // count for i in range(count + 1)]
    return [range(*pair) for pair in pairwise(borders)]


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
