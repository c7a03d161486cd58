"""Kernels and mesh are chosen once, by the devices that hold the weights."""

from dataclasses import replace

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

import jaxmoe
from jaxmoe import QWEN3_30B_A3B, execution
from jaxmoe.execution import compiler_options, execution_for, execution_on
from jaxmoe.nn.decoder import abstract_params, stack_params
from jaxmoe.ops import emitters
from jaxmoe.sharding.layout import Layout, single_device_layout
from tests.tiny import tiny_model

pytestmark = pytest.mark.optimised  # machine code

LAYOUT = single_device_layout(jax.devices("cpu")[0])


def test_kernels_of_a_platform():
    """On CPU a ragged product is a masked dense one over all experts, and attention in
    whole arrays reads all that is allocated, at every step."""
    found = {p: execution_on(p, LAYOUT) for p in ("cpu", "gpu", "tpu")}
    assert [e.experts for e in found.values()] == ["blocks", "ragged", "ragged"]
    assert [e.attention for e in found.values()] == ["chunked", "whole", "whole"]
    assert [e.products for e in found.values()] == ["weight_left", "plain", "plain"]


def test_kernels_on_cpu_follow_what_xla_makes_of_them(monkeypatch):
    """A loop that is left scalar would be many times slower than a library."""
    scanned = lambda: execution_on("cpu", LAYOUT, layers="scan")  # noqa: E731
    for found, kernels in (
        (execution.LanesFound(8, ""), ("lanes", "lanes")),
        (execution.LanesFound(1, "no such option"), ("blocks", "weight_left")),
    ):
        monkeypatch.setattr(execution, "lanes_found", lambda found=found: found)
        assert (scanned().experts, scanned().products) == kernels


def test_a_kernel_and_its_options_go_together():
    """Another kernel would be compiled with options that are not its own."""
    scanned = execution_on("cpu", LAYOUT, layers="scan")
    found = set(compiler_options(scanned.using("lanes")))
    assert set(emitters.WIDE) <= found
    assert emitters.by_calls() or set(emitters.OLDER) <= found
    for kernel in ("blocks", "ragged"):
        other = scanned.using(kernel)
        assert (other.experts, other.products) == (kernel, "weight_left")
        assert compiler_options(other) == emitters.accepted(emitters.OLDER)
    assert scanned.using("lanes").without_options() == scanned.using("blocks")


@pytest.mark.parametrize("platform", ["cpu", "gpu"])
@pytest.mark.parametrize("several", [False, True])
def test_programs_overlap_between_processes_on_cpu_alone(
    monkeypatch, platform, several
):
    """Processes would wait for each other, or a device for the host."""
    monkeypatch.setattr(Layout, "spans_processes", lambda _: several)
    monkeypatch.setattr(execution, "platform_of", lambda _: platform)
    found = execution_on("cpu", LAYOUT).runs_ahead
    assert found == (platform == "gpu" or not several)


def test_layers_are_scanned_where_weights_are_stacked():
    """A program would look for weights that are not there."""
    model = tiny_model()
    layers = (model.config.layers[0], *(model.config.layers[1:] * 3))
    config = replace(model.config, layers=layers)
    params = tiny_model(layers=layers).params
    assert execution_for(params).layers == "unroll"
    assert execution_for(stack_params(config, params)).layers == "scan"


def test_abstract_weights_have_no_devices():
    """Compile times could not be measured without weights."""
    params = abstract_params(QWEN3_30B_A3B, layers="scan")
    found = execution_for(params)
    assert found.layers == "scan" and found.layout.mesh.size == 1


def test_implementation_of_experts(untyped):
    """A misspelt one would be noticed while tracing, or never."""
    execution = execution_on("cpu", LAYOUT)
    assert execution.using("auto") == execution
    assert execution.using("ragged").experts == "ragged"
    with pytest.raises(ValueError, match="blockz"):
        execution.using("blockz")  # type: ignore[arg-type]


def test_one_device_is_a_mesh():
    """What holds of meshes would have to be said again of one device."""
    assert LAYOUT.slots(7) == 7 and not LAYOUT.spans_processes()
    assert LAYOUT.single is not None and LAYOUT.single.device_set == set(
        jax.devices("cpu")[:1]
    )


@pytest.mark.parametrize(
    ("code", "said"),
    [
        ("pass", ""),
        ("raise OSError('no room')", "no room"),
        ("exit(3)", "3"),
        ("import os; os.abort()", "-6"),  # as XLA ends one
    ],
)
def test_what_could_end_the_process_is_tried_in_another(code, said):
    """An untried version of XLA would end a user's program at its first model."""
    found = execution.ended_badly(code)
    assert bool(found) == bool(said) and said in found


def test_an_untried_version_that_fails_has_no_loop(monkeypatch):
    """It would be tried in this process after all."""
    monkeypatch.setattr(emitters, "by_calls", lambda: True)
    monkeypatch.setattr(emitters, "TRIED", "none")
    monkeypatch.setattr(execution, "ended_badly", lambda code: "ended with -6: no")
    assert execution.lanes_found.__wrapped__() == (1, "ended with -6: no")


# -- compilation ---------------------------------------------------------------------


def test_only_scanned_layers_on_cpu_have_compiler_options():
    """Unrolled, equal kernels would be compiled again for each layer."""
    scanned, unrolled = (
        compiler_options(execution_on("cpu", LAYOUT, layers=layers))
        for layers in ("scan", "unroll")
    )
    assert scanned and not unrolled


@pytest.fixture
def no_cache(monkeypatch, tmp_path):
    """No compilation cache yet; a home of one's own, and all as before at the end."""
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    monkeypatch.delenv("JAXMOE_COMPILATION_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    jax.config.update(names[0], None)
    yield tmp_path / "jaxmoe"
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


def cache_directory() -> str | None:
    """Where JAX keeps compiled programs now."""
    return jax.config.jax_compilation_cache_dir


def test_load_keeps_compiled_programs(no_cache):
    """Every start would compile again, also where something was compiled before."""
    compilation_cache.reset_cache()
    jax.jit(lambda x: x * 3 + 1)(1).block_until_ready()
    jaxmoe.load("demo")
    assert cache_directory() == str(next(no_cache.iterdir()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.jit(lambda x: x * 5 + 1)(1).block_until_ready()
    assert any((no_cache / cache_directory()).iterdir())


@pytest.mark.parametrize("chosen", ["elsewhere", ""])
def test_a_directory_that_jax_was_given_stays(no_cache, chosen):
    """The user's own cache, or its absence, would be overruled."""
    jax.config.update("jax_compilation_cache_dir", chosen)
    jaxmoe.enable_compilation_cache()
    assert cache_directory() == chosen


def test_the_switch_of_the_cache(no_cache, monkeypatch):
    """A home would fill although its owner said no; or a misspelt no would be a yes."""
    monkeypatch.setenv("JAXMOE_COMPILATION_CACHE", "off")
    jaxmoe.enable_compilation_cache()
    assert cache_directory() is None
    monkeypatch.setenv("JAXMOE_COMPILATION_CACHE", "of")
    with pytest.raises(ValueError, match="'of'"):
        jaxmoe.enable_compilation_cache()
    jaxmoe.enable_compilation_cache(no_cache / "mine")
    assert cache_directory() == str(no_cache / "mine")


def test_a_home_that_cannot_be_written(no_cache, monkeypatch):
    """No model could be loaded there."""
    no_cache.write_text("a file")
    jaxmoe.enable_compilation_cache()
    assert cache_directory() is None
