"""Qwen3-Next: the released shapes, what is refused, and what is left out."""

import math

import jax.numpy as jnp
import numpy as np
import pytest

from convert import convert, export
from jaxmoe.checkpoints.source import open_source
from jaxmoe.config import AttentionConfig, DeltaConfig
from jaxmoe.families.config_json import from_hf
from jaxmoe.families.qwen3_next import FULL, QWEN3_NEXT, RECURRENT
from jaxmoe.nn.decoder import abstract_params, always_wide
from jaxmoe.nn.mixers import held
from tests.hugging_face import make_tensors, write_checkpoint
from tests.tiny import EXECUTION

CONFIG = dict(QWEN3_NEXT.test_configs[1])
CONV = "conv1d.weight"
TURNS = [RECURRENT, RECURRENT, RECURRENT, FULL]


def test_released_shapes():
    """A plan would be of another model: the count is that of the published weights."""
    config = from_hf(dict(QWEN3_NEXT.released["next-80b"]))
    params = abstract_params(config)
    assert sum(math.prod(leaf.shape) for leaf in params.values()) == 79_674_391_296
    recurrent, full = config.layers[2].mixer, config.layers[3].mixer
    assert recurrent == DeltaConfig(16, 32, 128, 128, 4)
    assert isinstance(full, AttentionConfig) and full.gate and full.rope.width == 64
    kinds = [isinstance(layer.mixer, DeltaConfig) for layer in config.layers]
    assert kinds == [True, True, True, False] * 12
    # 36 memories of float32 with 3 inputs of 8192 channels, 12 caches of 2 x 2 heads.
    row = held(config, EXECUTION.layout, "bfloat16")
    assert row.fixed == 36 * (4 * 32 * 128 * 128 + 2 * 3 * 8192)
    assert row.position == 12 * 2 * 2 * 256 * 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"layer_types": [*TURNS[:3], "sliding_attention"]}, ["sliding_attention"]),
        ({"layer_types": TURNS[1:]}, ["layer_types", "4 entries"]),
        (
            {"layer_types": TURNS, "full_attention_interval": 2},
            ["full_attention_interval = 2", "layer_types"],
        ),
        ({"linear_num_value_heads": 3}, ["linear_num_value_heads", "3 and 2"]),
        ({"linear_conv_kernel_dim": 0}, ["linear_conv_kernel_dim = 0"]),
        ({"linear_conv_kernel_dim": 1}, ["linear_conv_kernel_dim", "2 or more"]),
        ({"hidden_act": "gelu"}, ["hidden_act", '"silu"']),
        ({"use_sliding_window": True}, ["use_sliding_window"]),
        ({"linear_gate": "sigmoid"}, ["linear_gate"]),
    ],
)
def test_what_is_not_honoured_is_refused(changes, words):
    """Another model would be run under this one's name."""
    with pytest.raises(ValueError) as error:
        from_hf(CONFIG | changes)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_shapes_have_to_be_stated():
    """A file cut short would be filled up with the shapes of the released model."""
    names = [name for name in CONFIG if name.startswith("linear_")]
    names.remove("linear_conv_kernel_dim")
    left = {name: value for name, value in CONFIG.items() if name not in names}
    with pytest.raises(ValueError) as error:
        from_hf(left)
    assert all(name in str(error.value) for name in names)


def test_layers_that_predict_further_tokens_are_left_out(tmp_path):
    """A released checkpoint would be refused, or its MTP layer vanish in silence."""
    tensors = make_tensors(CONFIG)
    plain = write_checkpoint(tmp_path / "plain", CONFIG, tensors)
    further = {
        "mtp.fc.weight": np.ones((32, 64), jnp.bfloat16),
        "mtp.layers.0.mlp.gate.weight": np.ones((16, 32), jnp.bfloat16),
    }
    whole = write_checkpoint(tmp_path / "whole", CONFIG, tensors | further)
    with pytest.warns(UserWarning, match="2 tensors, mtp.fc.weight among them"):
        convert(whole, tmp_path / "ckpt")
    with pytest.warns(UserWarning, match="2 tensors, mtp.fc.weight among them"):
        export(tmp_path / "ckpt", tmp_path / "again")
    for path in plain.iterdir():
        assert (tmp_path / "again" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("A_log"), ["a_log", "A_log"]),
        (lambda t: t.update({CONV: t[CONV][:-1]}), [CONV, "(80, 1, 4)"]),
        (lambda t: t.update({"in_proj_a.weight": t["A_log"]}), ["in_proj_a.weight"]),
    ],
    ids=["missing", "misshapen", "extra"],
)
def test_bad_tensors_are_named(tmp_path, change, words):
    """The weights of another model would be read as far as they go."""
    prefix = "model.layers.2.linear_attn."
    tensors = make_tensors(CONFIG)
    own = {
        name.removeprefix(prefix): tensors.pop(name)
        for name in list(tensors)
        if name.startswith(prefix)
    }
    change(own)
    tensors |= {prefix + name: tensor for name, tensor in own.items()}
    directory = write_checkpoint(tmp_path / "hf", CONFIG, tensors)
    with pytest.raises(ValueError) as error:
        open_source(directory)
    assert all(word in str(error.value) for word in words), str(error.value)


def test_decays_are_kept_as_they_are(tmp_path):
    """Casting would round what is multiplied at every position."""
    wide = always_wide(from_hf(CONFIG))
    names = {name.rpartition(".")[2] for name in wide}
    assert names == {"a_log", "dt_bias"}
    directory = write_checkpoint(
        tmp_path / "hf", CONFIG, make_tensors(CONFIG, jnp.float32)
    )
    convert(directory, tmp_path / "ckpt", dtype="bfloat16")
    params = open_source(tmp_path / "ckpt").params
    assert {name for name, p in params.items() if p.dtype == "float32"} == wide
