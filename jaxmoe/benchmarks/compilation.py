"""Compilation: seconds for the programs of a preset; needs no weights."""

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

from jaxmoe.benchmarks import lowering, targets
from jaxmoe.benchmarks.presets import PRESETS
from jaxmoe.benchmarks.report import Row
from jaxmoe.benchmarks.subject import SAMPLER
from jaxmoe.benchmarks.targets import Place
from jaxmoe.benchmarks.timing import Spread
from jaxmoe.benchmarks.weights import held_params
from jaxmoe.decode.cache import PrefixCache
from jaxmoe.decode.prefill import prefill, prompt_bucket
from jaxmoe.decode.slots import Running, SlotRules, Slots, Turn
from jaxmoe.decode.step import decode_segment
from jaxmoe.decode.trace import SEGMENT
from jaxmoe.execution import execution_for
from jaxmoe.nn.decoder import empty_states
from jaxmoe.ops.attention import CHUNK
from jaxmoe.router.policies import ExpertSample, TopK, for_model

SETTINGS: dict[str, Any] = {
    "jax_compilation_cache_dir": None,
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}


class _Seconds(NamedTuple):
    """Of one program: from Python to a jaxpr, to StableHLO, to machine code."""

    tracing: float
    lowering: float
    compiling: float


def measure(place: Place, *, n: int, prompt: int, rounds: int) -> Iterator[Row]:
    """Rows: seconds to trace, lower and compile, without and with a cache on disk.

    Weights are only described, so that models can be measured that do not fit.
    """
    programs = {
        "prefill": partial(_trace_prefill, place, prompt),
        "decode step": partial(_trace_step, place, n, prompt),
    }
    for program, trace in programs.items():
        found: dict[str, list[_Seconds]] = {"cold": [], "from the cache": []}
        memory = None
        for _ in range(rounds):
            with _own_cache():
                for cache, rows in found.items():
                    jax.clear_caches()
                    seconds, compiled = _compile(trace)
                    rows.append(seconds)
                    if cache == "cold":
                        memory = compiled.memory_analysis()
        for cache, rows in found.items():
            both = Spread(tuple(map(sum, rows)))
            parts = map(Spread, zip(*rows, strict=True))
            yield place.row(
                "compile",
                targets.compiled(program, cache),
                both.median,
                "s",
                seconds=both,
                **dict(zip(_Seconds._fields, parts, strict=True)),
            )
        if memory is not None:  # not every backend says
            what, temporary = (
                targets.temporary_memory(program),
                memory.temp_size_in_bytes,
            )
            yield place.row("compile", what, temporary / 1e6, "MB")
    yield from lowering.rows_of_sizes(place, PRESETS[place.preset].config, n)


def _compile(
    trace: Callable[[], jax.stages.Traced],
) -> tuple[_Seconds, jax.stages.Compiled]:
    """Seconds of each stage, and the program."""
    times = [time.perf_counter()]
    traced = trace()
    times.append(time.perf_counter())
    lowered = traced.lower()
    times.append(time.perf_counter())
    compiled = lowered.compile()
    times.append(time.perf_counter())
    return _Seconds(*(end - start for start, end in pairwise(times))), compiled


@contextlib.contextmanager
def _own_cache() -> Iterator[None]:
    """A compilation cache that begins empty, and everything as before at the end."""
    before = {name: getattr(jax.config, name) for name in SETTINGS}
    with tempfile.TemporaryDirectory(prefix="jaxmoe-bench-") as directory:
        try:
            _set(SETTINGS | {"jax_compilation_cache_dir": directory})
            yield
        finally:
            _set(before)


def _set(settings: dict[str, Any]) -> None:
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def _trace_prefill(place: Place, prompt: int):
    config = PRESETS[place.preset].config
    tokens = jax.ShapeDtypeStruct((1, prompt_bucket(prompt)), jnp.int32)
    policy = for_model(TopK(), config)
    params = held_params(config, place.backend)
    execution = execution_for(params)
    return prefill.trace(
        config,
        params,
        tokens,
        np.array([prompt], np.int32),
        policy,
        execution=execution,
    )


def _trace_step(place: Place, n: int, prompt: int):
    config = PRESETS[place.preset].config
    policy = for_model(ExpertSample(), config)
    dtype = jnp.float32 if place.backend == "cpu" else jnp.bfloat16

    params = held_params(config, place.backend)
    execution = execution_for(params)

    def state() -> tuple[PrefixCache, Running]:
        size = max(CHUNK, prompt_bucket(prompt))
        prefix = PrefixCache.empty(
            config, execution, prompts=1, size=size, width=policy.width, dtype=dtype
        )
        states = empty_states(config, execution, rows=n, size=CHUNK, dtype=dtype)
        return prefix, Running(Slots.empty(n), states)

    return decode_segment.trace(
        config,
        params,
        *jax.eval_shape(state),
        SlotRules(
            policy, SAMPLER.resolve(config.vocab_size), np.full((n, 8), -1, np.int32)
        ),
        Turn(np.int32(SEGMENT)),
        execution=execution,
    )
