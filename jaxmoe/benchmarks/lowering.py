"""Programs lowered for accelerators that are not at hand, and what is wrong in them.

What StableHLO says is what our own code asks for: whether XLA then copies a stack or
makes a ragged product dense is for a device to tell.
"""

import math
import re
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmoe.benchmarks import targets
from jaxmoe.benchmarks.report import Row
from jaxmoe.benchmarks.subject import SAMPLER
from jaxmoe.benchmarks.targets import Place
from jaxmoe.config import ModelConfig, MoEConfig
from jaxmoe.decode.cache import PrefixCache
from jaxmoe.decode.prefill import prefill
from jaxmoe.decode.slots import Running, SlotRules, Slots, Turn
from jaxmoe.decode.step import decode_segment
from jaxmoe.decode.trace import SEGMENT
from jaxmoe.execution import Execution, execution_on
from jaxmoe.nn.decoder import abstract_params, empty_states
from jaxmoe.ops.attention import CHUNK
from jaxmoe.ops.experts import Implementation
from jaxmoe.router.policies import ExpertSample, TopK, for_model
from jaxmoe.sharding.layout import single_device_layout

PLATFORMS = {"gpu": "cuda", "tpu": "tpu"}
"""Backends -> what programs are lowered for."""

_FREE = ("reshape", "while", "return", "call", "func.func", "optimization_barrier")
"""Operations that pass a stack on without a copy."""
_PRODUCTS = ("ragged_dot", "custom_call")
"""Operations that may have a stack as an argument; it is no result of theirs."""


def execution_of(backend: str, experts: Implementation = "auto") -> Execution:
    """How a model is run on one device of a backend."""
    layout = single_device_layout(jax.devices()[0])
    return execution_on(backend, layout).using(experts)


def decode_step(config: ModelConfig, execution: Execution, rows: int):
    """A segment of `rows` slots of one prompt, traced with abstract weights."""
    policy = for_model(ExpertSample(), config)
    dtype = jnp.bfloat16

    def state() -> tuple[PrefixCache, Running]:
        width = policy.width
        prefix = PrefixCache.empty(
            config, execution, prompts=1, size=CHUNK, width=width, dtype=dtype
        )
        states = empty_states(config, execution, rows=rows, size=CHUNK, dtype=dtype)
        return prefix, Running(Slots.empty(rows), states)

    stop_ids = np.full((rows, 8), -1, np.int32)
    rules = SlotRules(policy, SAMPLER.resolve(config.vocab_size), stop_ids)
    return decode_segment.trace(
        config,
        abstract_params(config, dtype, layers=execution.layers),
        *jax.eval_shape(state),
        rules,
        Turn(np.int32(SEGMENT)),
        execution=execution,
    )


def prompt_pass(config: ModelConfig, execution: Execution, rows: int):
    """A pass over one prompt of `rows` tokens, traced with abstract weights."""
    return prefill.trace(
        config,
        abstract_params(config, jnp.bfloat16, layers=execution.layers),
        jax.ShapeDtypeStruct((1, rows), jnp.int32),
        np.array([rows], np.int32),
        for_model(TopK(), config),
        execution=execution,
    )


PROGRAMS: dict[str, Callable] = {"decode step": decode_step, "prefill": prompt_pass}


def text_for(traced: jax.stages.Traced, backend: str) -> str:
    """StableHLO of a traced program for a backend that need not be here."""
    return traced.lower(lowering_platforms=(PLATFORMS[backend],)).as_text()


def rows_of_sizes(place: Place, config: ModelConfig, n: int) -> Iterator[Row]:
    """Rows: StableHLO a layer of each program, for each backend."""
    for backend in PLATFORMS:
        for program, trace in PROGRAMS.items():
            rows = n if program == "decode step" else 2 * CHUNK
            text = text_for(trace(config, execution_of(backend), rows), backend)
            faults = wrong(text, config, rows)
            yield place.row(
                "compile",
                targets.lowered(program, backend),
                len(text) / 1e3 / config.num_layers,
                "kB a layer",
                layers=config.num_layers,
                expert_stacks_copied_or_made_dense=len(faults),
                first=faults[0] if faults else "none",
            )


# -- what is wrong -------------------------------------------------------------------


class _Result(NamedTuple):
    """operation: its name. shape: of one of its results."""

    operation: str
    shape: tuple[int, ...]


def wrong(text: str, config: ModelConfig, rows: int) -> list[str]:
    """Lines of a program that copy or widen experts, or compute all for every row.

    rows: of the program; a number that is no width of the model.
    """
    moes = {
        layer.feed_forward
        for layer in config.layers
        if isinstance(layer.feed_forward, MoEConfig)
    }
    checks = [partial(_is_wrong, moe, config.d_model, rows) for moe in moes]
    return [
        line.strip()[:300]
        for line in text.splitlines()
        if any(check(result) for result in _results(line) for check in checks)
    ]


def _is_wrong(moe: MoEConfig, model: int, rows: int, result: _Result) -> bool:
    if result.operation in _FREE:
        return False
    experts, hidden, shape = moe.num_experts, moe.hidden, result.shape
    widths = {hidden, 2 * hidden, model}
    is_large = math.prod(shape) >= experts * hidden * model
    is_weight = model in shape and {hidden, 2 * hidden} & set(_without(shape, model))
    if result.operation not in _PRODUCTS and is_large and is_weight:
        return True  # as many values as a whole stack: copied, widened or gathered
    # Every expert's result for every row.
    dense = ({rows, experts}, {rows * experts})
    return any(
        all(part in shape for part in parts) and widths & set(_without(shape, *parts))
        for parts in dense
    )


def _without(shape: tuple[int, ...], *parts: int) -> list[int]:
    rest = list(shape)
    for part in parts:
        rest.remove(part)
    return rest


def _results(line: str) -> list[_Result]:
    """What the operation of a line of StableHLO gives."""
    found = re.match(r'\s*%[\w:]+ = "?(?:\w+\.)?(\w+)"?', line)
    if found is None:
        return []
    types = line.rpartition("->")[2] if "->" in line else line.rpartition(" : ")[2]
    # After a function type `(a, b) -> c` stands c; else all operands are of one type.
    return [
        _Result(found[1], tuple(int(size) for size in shape.split("x")[:-1]))
        for shape in re.findall(r"tensor<((?:\d+x)+\w+)>", types)
    ]
