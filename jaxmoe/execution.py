"""How a model is run: its mesh and its kernels, chosen once.

The only file that asks for a platform: kernels follow the devices that hold the
weights, and everything above takes an `Execution` as a static argument.
"""

import hashlib
import os
import platform
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args

import jax
from jax.core import Tracer
from jax.experimental.compilation_cache import compilation_cache

from jaxmoe.ops import emitters, lanes
from jaxmoe.ops.emitters import CompilerOptions
from jaxmoe.ops.emitters import cores as cores
from jaxmoe.ops.experts import Implementation
from jaxmoe.ops.packed import SCALES, VALUES
from jaxmoe.sharding.layout import Layout, single_device_layout

Layers = Literal["scan", "unroll"]
AttentionForm = Literal["chunked", "whole", "dense"]
Products = Literal["plain", "weight_left", "lanes"]

STACKED = ":"
"""In the name of a weight: it holds several layers, as `layers.0:48.mixer.q.weight`."""


@dataclass(frozen=True)
class Execution:
    """Mesh and kernels; hashable, a static argument of every program.

    layout: how weights and slots lie on devices; one device is a mesh of one.
    attention: "chunked" reads only what is filled of a cache, in a loop, for CPUs;
      "whole" is few large operations; "dense" is whole sequences with gradients.
    experts: an implementation of `jaxmoe.ops.experts`.
    layers: "scan" loops over layers of one kind, whose weights are stacked; "unroll"
      writes every layer out.
    products: of few rows by projections: "weight_left" has the weight on the left
      (`ops.matmul`), "lanes" is that, but the vectorised loop of `ops.lanes` where
      rows are fewest.
    """

    layout: Layout
    attention: AttentionForm
    experts: str
    layers: Layers
    products: Products

    @property
    def runs_ahead(self) -> bool:
        """Whether a program may still run when others are dispatched.

        On CPU they overlap: of several processes each could meet the others'
        collectives of two programs in an order of its own.
        """
        return platform_of(self.layout) != "cpu" or not self.layout.spans_processes()

    def using(self, implementation: Implementation) -> "Execution":
        """With another implementation of the experts; "auto" leaves it.

        "lanes" takes its projections with it, and another one leaves them: what is not
        "lanes" is compiled without the options that those need.

        Raises:
          ValueError: no such implementation.
        """
        known = get_args(Implementation)
        if implementation not in known:
            raise ValueError(
                f"implementation must be one of {', '.join(known)}; found "
                f"{implementation!r}"
            )
        if implementation == "auto":
            return self
        if implementation == "lanes":
            return replace(self, experts="lanes", products="lanes")
        return replace(self.without_options(), experts=implementation)

    def without_options(self) -> "Execution":
        """With kernels that need none of XLA's options, for use within another jit."""
        return replace(
            self,
            experts="blocks" if self.experts == "lanes" else self.experts,
            products="weight_left" if self.products == "lanes" else self.products,
        )


def default_platform() -> str:
    """Of the devices that arrays go to where nothing else is said."""
    return jax.default_backend()


def default_layers(platform: str) -> Layers:
    """How layers are run on a platform, and so how `load` lays their weights out.

    On CPU a scan compiles in a tenth of the time and runs as fast. On accelerators it
    has not been measured; some copy a layer's slice before a library call.
    """
    return "scan" if platform == "cpu" else "unroll"


def execution_on(
    platform: str,
    layout: Layout,
    *,
    layers: Layers = "unroll",
) -> Execution:
    """The kernels of a platform: on CPU loops over experts, and attention in chunks.

    On CPU the vectorised loop (`ops.lanes`) where layers are scanned, and programs so
    compiled with the options it needs; `lanes_found` says whether XLA makes one of it.
    There `lax.ragged_dot` is a masked dense product over all experts. "pallas" is
    for who asks for it, until its kernels have been run on a GPU.
    """
    if platform != "cpu":
        return Execution(layout, "whole", "ragged", layers, "plain")
    found = Execution(layout, "chunked", "lanes", layers, "lanes")
    vectorised = layers == "scan" and lanes_found().width > 1
    return found if vectorised else found.without_options()


def execution_for(
    params: Mapping[str, Any],
    layout: Layout | None = None,
    *,
    implementation: Implementation = "auto",
) -> Execution:
    """How the model of these weights is run.

    Args:
      params: the weights; under a jit of one's own, or where they are abstract, they
        have no devices, and the default device counts.
      layout: how they lie on several devices; None for one.
      implementation: of the experts; "auto" for the platform's.
    """
    layout = layout or single_device_layout(_device_of(next(iter(params.values()))))
    layers: Layers = "scan" if any(STACKED in name for name in params) else "unroll"
    found = execution_on(platform_of(layout), layout, layers=layers)
    packed = any(name.endswith((SCALES, VALUES)) for name in params)
    if found.experts == "ragged" and packed:
        # A grouped product would need all experts of a layer as floats at once.
        found = replace(found, experts="blocks")
    return found.using(implementation)


def compiler_options(execution: Execution) -> CompilerOptions:
    """XLA's options for programs of whole models: names and values.

    Where layers are scanned on CPU, XLA's older emitter compiles in two thirds of the
    time. Where they are unrolled it takes longer: it compiles equal kernels again.
    """
    if platform_of(execution.layout) != "cpu":
        return ()
    if "lanes" in (execution.experts, execution.products):
        return emitters.options()
    if execution.layers == "scan":
        return emitters.accepted(emitters.OLDER)
    return ()


class LanesFound(NamedTuple):
    """width: floats of an instruction in the loop of `ops.lanes`; 1 where it is no use.

    why: what kept it from being vectorised; empty where it is.
    """

    width: int
    why: str


CHILD_SECONDS = 60


@cache
def lanes_found() -> LanesFound:
    """What XLA makes of the vectorised loop on this machine's CPU; looked at once."""
    if emitters.by_calls() and not jax.__version__.startswith(emitters.TRIED):
        why = ended_badly("from jaxmoe.ops import lanes; lanes.vector_width()")
        if why:
            return LanesFound(1, why)
    try:
        width = lanes.vector_width()
    except (RuntimeError, OSError) as error:  # no such option; no folder for the code
        return LanesFound(1, str(error).splitlines()[0])
    return LanesFound(width, "" if width > 1 else "LLVM left the loop scalar")


def ended_badly(code: str) -> str:
    """What a Python process that runs `code` said last; empty where it ended well.

    For what XLA could end this process over, not only fail at.
    """
    try:
        subprocess.run(
            [sys.executable, "-c", code],
            check=True,
            capture_output=True,
            text=True,
            timeout=CHILD_SECONDS,
        )
    except subprocess.CalledProcessError as error:
        said = (error.stderr or "").strip().splitlines()
        return f"ended with {error.returncode}: {said[-1] if said else 'no word'}"
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return ""


SWITCH = "JAXMOE_COMPILATION_CACHE"
CACHE_DIRECTORY = "jax_compilation_cache_dir"
KEPT_FROM = 0.2
"""Seconds of compilation from which on a program is kept on disk."""


def enable_compilation_cache(path: str | os.PathLike | None = None) -> None:
    """Keeps compiled programs on disk, so that the next process need not compile them.

    `jaxmoe.load` does this, unless JAXMOE_COMPILATION_CACHE=off is set. A directory
    that JAX has been given (`jax_compilation_cache_dir`, JAX_COMPILATION_CACHE_DIR)
    is left as it is; an empty one switches the cache off.

    Args:
      path: a directory, whatever the switch and JAX's settings are; None for
        $XDG_CACHE_HOME/jaxmoe or ~/.cache/jaxmoe, one folder for each kind of
        processor.

    Raises:
      ValueError: JAXMOE_COMPILATION_CACHE is neither "on" nor "off".
    """
    if path is None:
        switch = os.environ.get(SWITCH, "on")
        if switch not in ("on", "off"):
            raise ValueError(f'{SWITCH} must be "on" or "off"; found {switch!r}')
        if switch == "off" or getattr(jax.config, CACHE_DIRECTORY) is not None:
            return
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        path = Path(home) / "jaxmoe" / f"jax-{_processor()}"
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError:
        return  # a home that cannot be written: compile every time
    jax.config.update(CACHE_DIRECTORY, str(path))
    name, default = "jax_persistent_cache_min_compile_time_secs", 1.0
    if getattr(jax.config, name) == default:
        jax.config.update(name, KEPT_FROM)
    # Whatever was compiled before may have settled that there is no cache.
    compilation_cache.reset_cache()


def _processor() -> str:
    """A digest of the processor's kind and instruction set.

    A program for one CPU may not run on another, and machines may share a home.
    """
    found = [platform.machine(), platform.system()]  # `processor` starts a process
    info = Path("/proc/cpuinfo")
    if info.exists():
        first = info.read_text("utf-8", "replace").split("\n\n")[0].splitlines()
        wanted = ("model name", "flags", "Features")
        found += [line for line in first if line.startswith(wanted)]
    return hashlib.sha256("\n".join(found).encode()).hexdigest()[:12]


def platform_of(layout: Layout) -> str:
    """The platform of the layout's devices; of the default one where it has none."""
    mesh = layout.mesh
    devices = (
        mesh.devices.flat if isinstance(mesh, jax.sharding.Mesh) else jax.devices()
    )
    return devices[0].platform


def _device_of(weight: Any) -> Any:
    if isinstance(weight, jax.Array) and not isinstance(weight, Tracer):
        return min(weight.devices(), key=lambda device: device.id)
    return jax.devices()[0]
