"""XLA's older emitter for CPU, which alone vectorises the loops of `jaxmoe.ops.lanes`.

Up to jax 0.11.0 an option has it compile a whole program. XLA of jax 0.12 has no such
option, but uses it still for what becomes one kernel: a call that is marked for that,
and a loop whose operations it has. Such a kernel runs on one thread. So a product is
cut into parts there, each of them a marked call, and `outside_a_kernel` keeps the loop
around them from becoming a kernel itself. XLA runs operations side by side where more
than 8 of them wait, and none writes where another does: what a call computes has to be
one fused operation, with nothing kept in between.
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

TRIED = "0.12."
"""How versions of jax begin with which calls were tried. The mark is no documented part
of XLA, and another version might end the process over it."""

WAITING = 10
"""Calls that wait at a time, for XLA to give half of them to another thread."""

SEVERAL_FROM = 1 << 17
"""Values of a matrix from which on its product is several calls: with fewer, what it
costs to wake a thread is more than what that saves."""

MANY_CORES = 4
"""From so many on, twice as many calls wait: halves are given away in turn, until 8 are
left, and XLA has at most five threads at it."""


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
    try:
        jax.local_devices(backend="cpu")
    except RuntimeError:  # JAX was told to leave the CPU alone
        return False
    return not accepted(OLDER)


def kernel(function: Callable[..., Array], *like: Any) -> Callable[..., Array]:
    """`function` as a call that the older emitter makes a kernel of.

    XLA ends the process (jaxlib 0.12) where such a call has an argument that it does
    not read. Those that `function` makes no use of are left out here. That XLA finds
    no other to be without effect is up to `function`: no index into an axis that it
    takes whole, no product with a zero that is written down.

    Args:
      function: Of arrays, or trees of them, to one array.
      like: Arguments of the shapes that it will be called with.
    """
    leaves, tree = jax.tree.flatten(like)
    traced = jax.make_jaxpr(lambda *given: function(*tree.unflatten(given)))(*leaves)
    known = _read(traced.jaxpr)
    read = [var in known for var in traced.jaxpr.invars]

    @jax.jit
    def of_read(*some: Array) -> Array:
        given = iter(some)
        every = [
            next(given) if used else jnp.zeros(leaf.shape, leaf.dtype)
            for used, leaf in zip(read, leaves, strict=True)
        ]
        return jaxpr_as_fun(traced)(*every)[0]

    def run(*arguments: Any) -> Array:
        with set_xla_metadata(xla_cpu_small_call="true", inlineable="false"):
            return of_read(*compress(jax.tree.leaves(arguments), read))

    return run


def _read(jaxpr: Jaxpr) -> set[Var]:
    """What the results depend on."""
    found = {var for var in jaxpr.outvars if isinstance(var, Var)}
    for equation in reversed(jaxpr.eqns):
        if not found.isdisjoint(equation.outvars):
            found |= {var for var in equation.invars if isinstance(var, Var)}
    return found


def outside_a_kernel(index: Array, values: int) -> Array:
    """`index` of a turn of a loop, of which XLA then makes no kernel on one thread.

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
    if cores() == 1 or values < SEVERAL_FROM:
        return 1
    return WAITING if cores() < MANY_CORES else 2 * WAITING


def parts(outputs: int, count: int) -> list[range]:
    """Which outputs each of so many calls computes; at least one each.

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
