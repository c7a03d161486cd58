"""Qwen3-MoE: the released shapes, and tensors for every parameter."""

import pytest

from jaxmoe.checkpoints.plan import default_tensors, expand
from jaxmoe.families.config_json import from_hf
from jaxmoe.families.qwen3_moe import (
    QWEN3_30B_A3B,
    QWEN3_235B_A22B,
    QWEN3_MOE,
    RELEASED_GENERATION,
)
from jaxmoe.nn.decoder import abstract_params


@pytest.mark.parametrize(
    ("config", "layers", "d_model", "heads", "hidden"),
    [(QWEN3_30B_A3B, 48, 2048, 32, 768), (QWEN3_235B_A22B, 94, 4096, 64, 1536)],
)
def test_released_shapes(config, layers, d_model, heads, hidden):
    """A plan or benchmark would be of another model."""
    assert (config.num_layers, config.d_model) == (layers, d_model)
    assert (config.num_experts, config.experts_per_token) == (128, 8)
    assert (config.stop_ids, config.pad_id) == ((151645, 151643), 151643)
    assert (config.context_length, config.vocab_size) == (40960, 151936)
    assert config.generation.temperature == RELEASED_GENERATION["temperature"]
    for layer in config.layers:
        assert (layer.mixer.num_heads, layer.mixer.num_kv_heads) == (heads, 4)
        assert (layer.feed_forward.hidden, layer.feed_forward.scoring.normalise) == (
            hidden,
            True,
        )


@pytest.mark.parametrize("values", QWEN3_MOE.test_configs, ids=range(5))
def test_every_parameter_has_tensors(values):
    """A checkpoint could be read but not written, or not read at all."""
    params = abstract_params(from_hf(dict(values)))
    elements = {name: 0 for name in params}
    for param, leaf in params.items():
        found = default_tensors(QWEN3_MOE, {param: leaf})
        elements[param] = sum(_size(shape) for _, _, shape in found)
    assert elements == {name: _size(leaf.shape) for name, leaf in params.items()}


def test_experts_come_apart_or_fused():
    """One of the two layouts that transformers writes would not be read."""
    params = abstract_params(from_hf(dict(QWEN3_MOE.test_configs[0])))
    name = "layers.1.feed_forward.gate_up"
    tensors = [
        tensor
        for rule in QWEN3_MOE.tensors
        for tensor, _, _ in expand(rule, name, params[name].shape)
    ]
    prefix = "model.layers.1.mlp.experts."
    assert f"{prefix}7.up_proj.weight" in tensors
    assert f"{prefix}gate_up_proj" in tensors
    assert len(tensors) == 2 * 8 + 1


def _size(shape) -> int:
    size = 1
    for n in shape:
        size *= n
    return size
