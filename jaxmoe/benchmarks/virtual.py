"""A step of decoding, compiled for more devices than there are.

XLA compiles for any number of virtual CPU devices; they are set once a process, so
that each number has its own. Nothing is allocated: the program is compiled from
shapes. What it holds and what its devices say to each other does not depend on the
machine; how it computes does, and is not looked at.

As a module it compiles the steps that come pickled on standard input.
"""

import os
import pickle
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType

from jaxmoe.benchmarks.traffic import Traffic, count_traffic
from jaxmoe.config import ModelConfig
from jaxmoe.decode.cache import PrefixCache
from jaxmoe.decode.sampler import TokenSampler
from jaxmoe.decode.slots import Running, SlotRules, Slots, Turn
from jaxmoe.decode.step import decode_segment
from jaxmoe.decode.trace import Record
from jaxmoe.execution import execution_on
from jaxmoe.model import abstract_weights, model_layout
from jaxmoe.nn.decoder import abstract_params, empty_states, state_specs
from jaxmoe.ops.experts import Implementation
from jaxmoe.planning.memory import prefix_size, suffix_size
from jaxmoe.planning.plan import Load
from jaxmoe.router.policies import ExpertSample, for_model
from jaxmoe.sharding.layout import Layout, single_device_layout
from jaxmoe.sharding.rules import DATA, MODEL, Preset, Rules

_SEGMENT = 1
_SECONDS = 600


@dataclass(frozen=True)
class Step:
    """A step to compile: of a model and a load on a mesh of this shape."""

    config: ModelConfig
    shape: tuple[int, int]
    load: Load
    rules: Rules | Preset = "auto"
    implementation: Implementation = "blocks"


@dataclass(frozen=True)
class Compiled:
    """traffic: its collectives. arguments: bytes of weights, caches and slots on each
    device, as XLA counts them."""

    traffic: Traffic
    arguments: int


def compile_steps(steps: Sequence[Step]) -> list[Compiled]:
    """Compiles each step, in one process with as many devices as the largest needs.

    Raises:
      RuntimeError: a step that does not compile.
    """
    if not steps:
        return []
    devices = max(step.shape[0] * step.shape[1] for step in steps)
    flags = os.environ.get("XLA_FLAGS", "")
    flags = re.sub(r"--xla_force_host_platform_device_count=\d+", "", flags)
    flags = f"{flags} --xla_force_host_platform_device_count={devices}".strip()
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    command = [sys.executable, "-m", "jaxmoe.benchmarks.virtual"]
    done = subprocess.run(
        command,
        input=pickle.dumps(tuple(steps)),
        capture_output=True,
        env=environment,
        timeout=_SECONDS,
    )
    if done.returncode:
        raise RuntimeError(
            f"compiling for {devices} virtual devices failed: "
            f"{done.stderr.decode(errors='replace').strip()[-2000:]}"
        )
    return pickle.loads(done.stdout)


def compile_step(step: Step) -> Compiled:
    """Compiles a step for the first devices of this process."""
    devices = step.shape[0] * step.shape[1]
    kinds = (AxisType.Auto,) * 2
    some = jax.devices()[:devices]
    mesh = jax.make_mesh(step.shape, (DATA, MODEL), kinds, devices=some)
    layout = model_layout(step.config, mesh, step.rules)
    compiled = _lower(step, layout or single_device_layout(some[0])).compile()
    traffic = Traffic((), ()) if layout is None else count_traffic(compiled.as_text())
    return Compiled(traffic, compiled.memory_analysis().argument_size_in_bytes)


def _lower(step: Step, layout: Layout) -> Any:
    config, load = step.config, step.load
    dtype = jnp.dtype(load.dtype)
    params = abstract_weights(
        config, dict.fromkeys(abstract_params(config), dtype), layout, layers="unroll"
    )
    execution = execution_on("cpu", layout).using(step.implementation)
    policy = for_model(ExpertSample(), config)
    slots = layout.slots(load.n)
    prefix = partial(
        PrefixCache.empty,
        config,
        execution,
        prompts=1,
        size=prefix_size(load.prompt),
        width=policy.width,
        dtype=dtype,
    )
    own = partial(
        empty_states,
        config,
        execution,
        rows=slots,
        size=suffix_size(load.own),
        dtype=dtype,
    )
    specs = (
        PrefixCache.specs(config, execution),
        Slots.specs(layout),
        state_specs(config, execution, "slots"),
    )
    shapes = map(jax.eval_shape, (prefix, partial(Slots.empty, slots), own))
    prefix, *running = [
        _placed(s, layout, spec) for s, spec in zip(shapes, specs, strict=True)
    ]
    sampler = TokenSampler(temperature=0.6, top_k=20, top_p=0.95)
    return decode_segment.lower(
        config,
        params,
        prefix,
        Running(*running),
        SlotRules(
            policy,
            sampler.resolve(config.vocab_size),
            np.full((slots, 8), -1, np.int32),
        ),
        Turn(np.int32(_SEGMENT), np.int32(1)),
        record=Record(steps=_SEGMENT),
        execution=execution,
    )


def _placed(shapes: Any, layout: Layout, specs: Any) -> Any:
    """Shapes with the shardings that their specs say."""
    put = lambda a, place: jax.ShapeDtypeStruct(a.shape, a.dtype, sharding=place)  # noqa: E731
    return jax.tree.map(put, shapes, layout.shardings(specs))


def main() -> None:
    """Standard input to standard output, both pickled; `compile_steps` calls it."""
    steps = pickle.load(sys.stdin.buffer)
    found = [compile_step(step) for step in steps]
    pickle.dump(found, sys.stdout.buffer)


if __name__ == "__main__":
    # Under its own name, so that what it pickles is found again.
    from jaxmoe.benchmarks import virtual

    virtual.main()
