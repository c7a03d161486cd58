"""Compilation: seconds for the programs of a preset; needs no weights."""

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental.compilation_cache import compilation_cache

from jaxmoe.benchmarks import seats, targets
from jaxmoe.benchmarks.presets import PRESETS
from jaxmoe.benchmarks.report import Row
from jaxmoe.benchmarks.subject import SAMPLER
from jaxmoe.benchmarks.targets import Place
from jaxmoe.benchmarks.timing import Spread
from jaxmoe.benchmarks.weights import held_params
from jaxmoe.decode.cache import PrefixCache
from jaxmoe.decode.engine import SEGMENT
from jaxmoe.decode.prefill import prefill, prompt_bucket
from jaxmoe.decode.slots import Slots
from jaxmoe.decode.step import decode_segment
from jaxmoe.execution import execution_for
from jaxmoe.nn.decoder import empty_states
from jaxmoe.ops.attention import CHUNK
from jaxmoe.router.policies import ExpertSample, TopK, for_model

SETTINGS: dict[str, Any] = {
    "jax_compilation_cache_dir": None,
    "jax_persistent_cache_min_compile_time_secs": 0.0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}


def measure(place: Place, *, n: int, prompt: int, rounds: int) -> Iterator[Row]:
    """Rows: seconds to trace and compile, without and with a cache on disk."""
    lowerings = {
        "prefill": partial(_lower_prefill, place, prompt),
        "decode step": partial(_lower_step, place, n, prompt),
    }
    for program, lower in lowerings.items():
        found = {"cold": [], "from the cache": []}
        for _ in range(rounds):
            with _own_cache():
                for seconds in found.values():
                    jax.clear_caches()
                    seconds.append(_compile(lower))
        for cache, parts in found.items():
            traced, backend = (Spread(tuple(each)) for each in zip(*parts, strict=True))
            both = Spread(tuple(map(sum, parts)))
            yield place.row(
                "compile",
                targets.compiled(program, cache),
                both.median,
                "s",
                seconds=both,
                tracing=traced,
                compiling=backend,
            )


def _compile(lower: Callable[[], Any]) -> tuple[float, float]:
    """Seconds of tracing and lowering, and of compiling."""
    begin = time.perf_counter()
    lowered = lower()
    middle = time.perf_counter()
    lowered.compile()
    return middle - begin, time.perf_counter() - middle


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


def _lower_prefill(place: Place, prompt: int):
    config = PRESETS[place.preset].config
    tokens = jax.ShapeDtypeStruct((prompt_bucket(prompt),), jnp.int32)
    policy = for_model(TopK(), config)
    params = held_params(config, place.backend)
    execution = execution_for(params)
    return prefill.lower(
        config, params, tokens, np.int32(prompt), policy, execution=execution
    )


def _lower_step(place: Place, n: int, prompt: int):
    config = PRESETS[place.preset].config
    policy = for_model(ExpertSample(), config)
    dtype = jnp.float32 if place.backend == "cpu" else jnp.bfloat16

    params = held_params(config, place.backend)
    execution = execution_for(params)

    def state() -> tuple[PrefixCache, Slots, tuple[Any, ...]]:
        size = max(CHUNK, prompt_bucket(prompt))
        prefix = PrefixCache.empty(
            config, execution, prompts=1, size=size, width=policy.width, dtype=dtype
        )
        states = empty_states(config, execution, rows=n, size=CHUNK, dtype=dtype)
        return prefix, Slots.empty(n), states

    return decode_segment.lower(
        config,
        params,
        *jax.eval_shape(state),
        policy,
        SAMPLER.resolve(config.vocab_size),
        seats.NO_STOP,
        np.int32(SEGMENT),
        segment=SEGMENT,
        execution=execution,
    )
