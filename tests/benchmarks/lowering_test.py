"""Programs for accelerators that no test machine has, as far as they can be looked at.

Of every family: a copy of all experts, or all experts for every row, would be the
first thing that a GPU or TPU showed.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import pytest

from jaxmoe.benchmarks.lowering import (
    PLATFORMS,
    PROGRAMS,
    execution_of,
    text_for,
    wrong,
)
from jaxmoe.benchmarks.presets import PRESETS
from jaxmoe.config import MoEConfig
from jaxmoe.families.config_json import from_hf
from jaxmoe.families.registry import FAMILIES
from tests.described_gpu import described_gpu

ROWS = 37
"""No width of any model."""

EACH_MIXER = {"qwen3_moe", "deepseek_v2", "gpt_oss", "qwen3_next"}
"""Lowered for every backend by default; others, whose programs differ from these by
what few backends know of, for the last, and for all in CI runs."""

CASES = [
    pytest.param(
        config,
        backend,
        id=f"{name}-{number}-{backend}",
        marks=()
        if number == 0 and (name in EACH_MIXER or backend == [*PLATFORMS][-1])
        else pytest.mark.thorough,
    )
    for name, family in FAMILIES.items()
    for number, config in enumerate(family.test_configs)
    for backend in PLATFORMS
    if not family.scores  # its programs are others
]


def _check(config, backend, program, experts="auto"):
    traced = PROGRAMS[program](config, execution_of(backend, experts), ROWS)
    text = text_for(traced, backend)
    assert not (faults := wrong(text, config, ROWS)), "\n".join(faults)
    return text


@pytest.mark.thorough
@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize(("values", "backend"), CASES)
def test_every_family_is_lowered(values, backend, program):
    """It would fail, or copy its experts, on the first machine that has one."""
    config = from_hf(dict(values))
    mixtures = [config.layers[i].feed_forward for i in config.moe_layers]
    if any(held.weights != "float" for held in (config, *mixtures)):
        # As `execution_for` has it: one expert at a time, none copied.
        _check(config, backend, program, "blocks")
        return
    text = _check(config, backend, program)
    assert text.count("ragged_dot") >= 2 * len(config.moe_layers)


@pytest.mark.thorough
@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("backend", PLATFORMS)
@pytest.mark.parametrize(
    "layers", [2, pytest.param(48, marks=pytest.mark.slow)], ids="{} layers".format
)
def test_the_released_shapes_are_lowered(backend, program, layers):
    """Widths of a real model, on weights that are only described."""
    config = PRESETS["30b"].config
    config = replace(config, layers=config.layers[:layers])
    text = _check(config, backend, program)
    print(f"{program} for {backend}: {len(text) / layers / 1e3:.1f} kB a layer")
    # A layer of either program takes 20 to 100 kB; more is an unrolled loop.
    assert len(text) / layers < 150e3


@pytest.mark.parametrize("program", PROGRAMS)
def test_kernels_for_gpus_are_lowered_within_programs(program):
    """Decoding by Pallas, prompts by a ragged product: alone they were lowered."""
    config = PRESETS["30b"].config
    config = replace(config, layers=config.layers[:1])
    rows = ROWS if program == "decode step" else 1024
    try:
        with described_gpu():
            traced = PROGRAMS[program](config, execution_of("gpu", "pallas"), rows)
            text = text_for(traced, "gpu")
    except RuntimeError as error:
        if "Triton compilation handler" in str(error):
            pytest.skip(f"this jax lowers Triton kernels with CUDA only: {error}")
        raise
    assert not wrong(text, config, rows)
    kernels = ("_gate_up_kernel" in text, "ragged_dot" in text)
    assert kernels == ((True, False) if program == "decode step" else (False, True))


# -- the check itself ----------------------------------------------------------------

E, D, F, K = 6, 20, 28, 2


def _layer(x, gate_up, chosen, kind):
    if kind == "widened":
        return jnp.einsum("nd,d->n", x, gate_up.astype(jnp.float32).sum((0, 1, 2)))
    if kind == "copied":
        return jnp.tanh(gate_up)[0, 0] @ x[0]
    if kind == "dense":
        return jnp.einsum("nd,efd->nef", x, gate_up[:, 0].astype(x.dtype))
    if kind == "gathered":
        return jnp.einsum("nd,nkfd->nkf", x, gate_up[chosen, 0])
    one = gate_up.reshape(-1, D)[: 2 * F]
    return x @ one.T


@pytest.mark.parametrize(
    ("kind", "fault"),
    [
        ("widened", True),
        ("copied", True),
        ("dense", True),
        ("gathered", True),
        ("one expert", False),
    ],
)
def test_faults_are_found(kind, fault):
    """A check that finds nothing would be passed by everything."""
    config = PRESETS["tiny"].config
    moe = config.layers[0].feed_forward
    assert isinstance(moe, MoEConfig)
    layer = replace(
        config.layers[0], feed_forward=replace(moe, num_experts=E, hidden=F)
    )
    config = replace(config, layers=(layer,), d_model=D)
    shapes = ((ROWS, D), jnp.bfloat16), ((E, 2, F, D), jnp.bfloat16)
    arguments = [jax.ShapeDtypeStruct(*shape) for shape in shapes]
    chosen = jax.ShapeDtypeStruct((ROWS, K), jnp.int32)
    traced = jax.jit(_layer, static_argnums=3).trace(*arguments, chosen, kind)
    assert bool(wrong(text_for(traced, "gpu"), config, ROWS)) == fault
