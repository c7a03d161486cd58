"""The bundled model: read from the package's own safetensors."""

import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors import deserialize

import jaxmoe
from jaxmoe.checkpoints.bundled import BUNDLED


def test_nothing_is_started_or_written(monkeypatch, tmp_path):
    """A first load would convert, and need a home that can be written."""

    def refuse(*_, **__):
        raise AssertionError("started a process")

    monkeypatch.setattr(subprocess, "Popen", refuse)
    for name in ("HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    jaxmoe.load("demo")
    assert not list(tmp_path.iterdir())


def test_an_installation_without_weights(monkeypatch, tmp_path):
    """One would be told of a missing file deep in the converter."""
    monkeypatch.setitem(BUNDLED, "demo", tmp_path)
    match = "should hold the model 'demo'.*no model.safetensors; install jaxmoe again"
    with pytest.raises(FileNotFoundError, match=match):
        jaxmoe.load("demo")


@pytest.fixture(scope="module")
def model() -> jaxmoe.Model:
    """`jaxmoe.load("demo")`."""
    return jaxmoe.load("demo")


def test_the_config_is_the_demos(model):
    """The demo would be another model, or lack its tokenizer."""
    config = model.config
    assert (config.family, config.num_layers) == ("qwen3_moe", 4)
    assert (config.num_experts, config.experts_per_token) == (64, 8)
    assert (config.d_model, config.vocab_size) == (128, 208)
    assert config.generation.temperature == 0.7
    assert model.decode(model.encode("2,5,8,12=27:")) == "2,5,8,12=27:"


def bits(array) -> np.ndarray:
    """bfloat16 as uint16, in one row."""
    return np.asarray(array).view(np.uint16).ravel()


def shipped() -> dict[str, np.ndarray]:
    """The bits of each tensor that ships, read by the safetensors library."""
    content = (BUNDLED["demo"] / "model.safetensors").read_bytes()
    found = dict(deserialize(content))
    assert {tensor["dtype"] for tensor in found.values()} == {"BF16"}
    return {name: np.frombuffer(t["data"], np.uint16) for name, t in found.items()}


def test_the_weights_are_those_that_ship(model):
    """A matrix would be turned, rounded, or stand in another's place."""
    stored = shipped()
    layer, experts = "model.layers.2.", "model.layers.2.mlp.experts."
    matrices = {
        "embed.weight": stored["model.embed_tokens.weight"],
        "head.weight": stored["lm_head.weight"],
        "final_norm.scale": stored["model.norm.weight"],
        "layers.2.feed_forward.router.weight": stored[layer + "mlp.gate.weight"],
        "layers.2.mixer.q.weight": stored[layer + "self_attn.q_proj.weight"],
        "layers.2.mixer.k.weight": stored[layer + "self_attn.k_proj.weight"],
        "layers.2.feed_forward.gate_up": np.stack(
            [
                stored[f"{experts}{e}.{part}_proj.weight"]
                for e in range(64)
                for part in ("gate", "up")
            ]
        ),
        "layers.2.feed_forward.down": np.stack(
            [stored[f"{experts}{e}.down_proj.weight"] for e in range(64)]
        ),
    }
    for name, matrix in matrices.items():
        stack = name.replace("layers.2.", "layers.0:4.")
        held = model.params[stack] if stack == name else model.params[stack][2]
        held = bits(held)
        assert np.array_equal(held, matrix.ravel()), name
        assert held.any(), name


def test_a_directory_named_demo_is_another_model(tmp_path, monkeypatch):
    """Where one works would decide what the demo is; or ./demo could not be read."""
    (tmp_path / "demo").mkdir()
    (tmp_path / "demo" / "thesis.txt").write_text("years")
    monkeypatch.chdir(tmp_path)
    assert jaxmoe.load("demo").config.num_experts == 64
    for path in ("./demo", Path("demo")):
        with pytest.raises((OSError, ValueError), match="demo"):
            jaxmoe.load(path)
    assert [p.name for p in (tmp_path / "demo").iterdir()] == ["thesis.txt"]


def test_loaded_twice_answers_alike(model):
    """The demo would not be the same at every start."""
    again = jaxmoe.load("demo")
    assert again.config == model.config
    same = jax.tree.map(np.array_equal, again.params, model.params)
    assert all(same.values())
