"""Jitted functions that are compiled with the XLA options of their execution."""

import functools
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import jax
from jax.core import Tracer

from jaxmoe.execution import compiler_options
from jaxmoe.ops.emitters import CompilerOptions

R = TypeVar("R")


class Program(Generic[R]):
    """`jax.jit` of a function of a keyword `execution`, which sets XLA's options.

    The options of a jit are fixed when it is made, and an error within another jit. So
    there is a jit for each set of options, and one without for use under a trace, where
    the execution is one that needs none.
    """

    def __init__(self, function: Callable[..., R], **settings: Any):
        functools.update_wrapper(self, function)
        self._function, self._settings = function, settings
        self._jits: dict[CompilerOptions, Any] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> R:
        """A call of the jit of this execution."""
        jitted, kwargs = self._jit_of(args, kwargs)
        return jitted(*args, **kwargs)

    def lower(self, *args: Any, **kwargs: Any) -> jax.stages.Lowered:
        """As of `jax.jit`: the program that a call with these arguments would run."""
        jitted, kwargs = self._jit_of(args, kwargs)
        return jitted.lower(*args, **kwargs)

    def trace(self, *args: Any, **kwargs: Any) -> jax.stages.Traced:
        """As of `jax.jit`: what `lower` begins with."""
        jitted, kwargs = self._jit_of(args, kwargs)
        return jitted.trace(*args, **kwargs)

    def _jit_of(self, args: Any, kwargs: Any) -> tuple[Any, Any]:
        """The jit for these arguments, and the keywords to call it with."""
        options = compiler_options(kwargs["execution"])
        if options and _traced((args, kwargs)):
            options = ()
            kwargs = {**kwargs, "execution": kwargs["execution"].without_options()}
        if options not in self._jits:
            made = jax.jit(
                self._function,
                compiler_options=dict(options) or None,
                **self._settings,
            )
            # Of threads that come here at once all get the first one's.
            self._jits.setdefault(options, made)
        return self._jits[options], kwargs


def program(**settings: Any) -> Callable[[Callable[..., R]], Program[R]]:
    """Decorator that makes a `Program`; settings: those of `jax.jit`."""
    return lambda function: Program(function, **settings)


def _traced(arguments: Any) -> bool:
    """Whether a call with these arguments is traced rather than run.

    Within a jit that closes over its arguments, only new arrays are tracers.
    """
    leaves = jax.tree.leaves((arguments, jax.device_put(0)))
    return any(isinstance(leaf, Tracer) for leaf in leaves)
