"""MXFP4 experts in files: placed as they lie, whole or refused."""

from dataclasses import replace

import jax
import numpy as np
import pytest

import jaxmoe
from convert import convert, export
from jaxmoe.checkpoints.errors import CheckpointError
from jaxmoe.checkpoints.plan import default_tensors
from jaxmoe.families import registry
from jaxmoe.families.base import TensorRule
from jaxmoe.families.common_tensors import FF, LAYER
from jaxmoe.families.config_json import from_hf
from jaxmoe.nn.decoder import abstract_params
from jaxmoe.ops.bf16_bits import widen
from jaxmoe.ops.mxfp4 import LARGEST_SCALE, Mxfp4
from tests.hugging_face import write_checkpoint

EXPERTS = LAYER + "mlp.experts."
RULES = tuple(
    TensorRule(
        f"{EXPERTS}{matrix}_proj_{part}",
        f"{FF}{matrix}.{part}",
        merge=merge if part == "blocks" else merge[:-1],
        dtypes=("U8",),
    )
    for matrix, merge in (("gate_up", (1, 2, 1, 1)), ("down", (1, 1, 1, 1)))
    for part in ("blocks", "scales")
)
CONFIG = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "model_type": "qwen3_moe",
    "vocab_size": 40,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 64,
    "norm_topk_prob": True,
    "tie_word_embeddings": False,
}


@pytest.fixture
def files(monkeypatch, tmp_path):
    """A family whose experts are MXFP4, and a checkpoint of it: path and tensors."""
    plain = registry.FAMILIES["qwen3_moe"]

    def read_config(a, g):
        config = plain.read_config(a, g)
        layers = tuple(
            replace(layer, feed_forward=replace(layer.feed_forward, weights="mxfp4"))
            for layer in config.layers
        )
        return replace(config, layers=layers)

    family = replace(plain, read_config=read_config, tensors=(*plain.tensors, *RULES))
    monkeypatch.setitem(registry.FAMILIES, "qwen3_moe", family)
    random = np.random.default_rng(0)

    def values(name, kind, shape):
        if kind == np.uint8:
            low, high = (120, 125) if name.endswith("scales") else (0, 256)
            return random.integers(low, high, shape, np.uint8)
        return (0.2 * random.normal(size=shape)).astype(np.float32).astype(kind)

    wanted = default_tensors(family, abstract_params(from_hf(CONFIG)))
    tensors = {name: values(name, kind, shape) for name, kind, shape in wanted}

    def write(change=lambda tensors: None):
        change(tensors)
        path = write_checkpoint(tmp_path / "source", CONFIG, tensors)
        (path / "tokenizer.json").unlink()
        return path

    return write


def test_placed_as_it_lies_and_back(files, tmp_path):
    """A byte would be cast, transposed, or held as a float; an export be another."""
    path = files()
    model = jaxmoe.load(path)
    name = "layers.0:2.feed_forward.gate_up"
    assert model.params[f"{name}.blocks"].shape == (2, 4, 64, 2, 1, 16)
    assert model.params[f"{name}.scales"].dtype == np.uint8
    assert model.execution.experts in ("lanes", "blocks")
    convert(path, tmp_path / "ckpt", verify=True)
    again = jaxmoe.load(tmp_path / "ckpt", dtype="float32")
    for key, array in model.params.items():
        if "feed_forward.gate_up" in key or "feed_forward.down" in key:
            np.testing.assert_array_equal(array, again.params[key])
            assert again.params[key].dtype == np.uint8
    export(tmp_path / "ckpt", tmp_path / "out")
    one, two = (p / "model.safetensors" for p in (path, tmp_path / "out"))
    assert one.read_bytes() == two.read_bytes()


@pytest.mark.slow
def test_a_model_of_it_is_that_of_its_floats(files):
    """Prefill and decoding would read other experts than the file describes."""
    model = jaxmoe.load(files())
    params = {}
    for name, array in model.params.items():
        bank, _, part = name.rpartition(".")
        if part == "blocks":
            kind = "pairs" if bank.endswith("gate_up") else "apart"
            packed = Mxfp4(array, model.params[f"{bank}.scales"], kind)
            params[bank] = widen(packed)
        elif array.dtype != np.uint8:
            params[name] = widen(array)
    plain = jaxmoe.Model(_floats(model.config), params)
    prompt = np.arange(8, 19)
    options = {"key": jax.random.key(0), "n": 2, "max_new_tokens": 6}
    one, two = (jaxmoe.sample(m, prompt, **options) for m in (model, plain))
    np.testing.assert_array_equal(one.tokens, two.tokens)
    np.testing.assert_allclose(one.logprobs, two.logprobs, atol=1e-4)


def _floats(config):
    layers = tuple(
        replace(layer, feed_forward=replace(layer.feed_forward, weights="float"))
        for layer in config.layers
    )
    return replace(config, layers=layers)


@pytest.mark.parametrize("matrix", ["gate_up", "down"])
def test_blocks_without_scales_are_refused(files, matrix):
    """Every number of a layer would be off by a power of two."""
    name = f"model.layers.1.mlp.experts.{matrix}_proj_scales"
    path = files(lambda tensors: tensors.pop(name))
    with pytest.raises(CheckpointError, match=name):
        jaxmoe.load(path)


@pytest.mark.parametrize("how", ["load", "convert"])
def test_scales_that_are_no_numbers_are_refused(files, tmp_path, how):
    """255 is NaN by the standard: every answer would be nonsense."""
    name = "model.layers.1.mlp.experts.down_proj_scales"

    def spoil(tensors):
        tensors[name][1, 2, 0] = LARGEST_SCALE + 1

    path = files(spoil)
    with pytest.raises(CheckpointError, match=r"layers\.1.*down.*252.*found 253"):
        if how == "load":
            jaxmoe.load(path)
        else:
            convert(path, tmp_path / "out")


def test_it_is_not_quantised_again(files):
    """Experts would be read as floats that they are not."""
    with pytest.raises(ValueError, match="int8.*mxfp4"):
        jaxmoe.load(files(), weights="int8")
