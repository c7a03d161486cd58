"""Qwen3.5-MoE: the text model of files that hold more than it."""

import numpy as np
import pytest

from convert import convert, export
from jaxmoe.checkpoints.hugging_face import HuggingFaceSource
from jaxmoe.config import DeltaConfig
from jaxmoe.families.config_json import from_hf
from jaxmoe.families.qwen3_5_moe import ARCHITECTURES, QWEN3_5_MOE, WHOLE
from tests.hugging_face import make_tensors, write_checkpoint

TEXT = dict(QWEN3_5_MOE.test_configs[0])
_INNER = {k: v for k, v in TEXT.items() if k != "architectures"}
SEEING = {
    "architectures": [ARCHITECTURES[1]],
    "image_token_id": 90,
    "model_type": WHOLE,
    "text_config": _INNER | {"tie_word_embeddings": True},
    "tie_word_embeddings": False,
    "vision_config": {"depth": 2, "model_type": "qwen3_5_moe_vision"},
}


def test_released_model_is_read():
    """Its mixers, or how its weights lie, would be those of another model."""
    config = from_hf(dict(QWEN3_5_MOE.released["qwen3.5-35b-a3b"]))
    kinds = [isinstance(layer.mixer, DeltaConfig) for layer in config.layers]
    assert kinds == [True, True, True, False] * 10
    assert not config.layers[0].mixer.joined
    assert config.layers[3].mixer.rope.width == 64
    assert config.layers[3].mixer.rope.theta == 1e7
    assert (config.num_experts, config.experts_per_token) == (256, 8)
    assert config.layers[0].feed_forward.scoring.normalise


def test_the_text_model_is_that_of_text_config():
    """A model that sees has it in `text_config`, and says beside it what is tied."""
    assert from_hf(SEEING) == from_hf(TEXT)
    assert from_hf(SEEING | {"tie_word_embeddings": True}).tie_embeddings
    with pytest.raises(ValueError, match="missing.*text_config"):
        from_hf({k: v for k, v in SEEING.items() if k != "text_config"})


@pytest.mark.parametrize(
    ("outer", "inner", "told"),
    [
        ({"rms_norm_eps": 1e-3}, {"rms_norm_eps": 1e-6}, "rms_norm_eps.*text_config"),
        ({"hidden_size": 64}, {}, "hidden_size.*text_config has: 32"),
        ({}, {"model_type": "qwen3_5_text"}, "model_type.*qwen3_5_moe_text"),
        ({}, {"model_type": None}, "model_type.*qwen3_5_moe_text"),
        ({"attention_bias": True}, {}, "attention_bias.*text_config has: none"),
        ({"hidden_size": 32, "head_dim": None, "use_cache": False}, {}, None),
    ],
)
def test_nothing_beside_text_config_replaces_it(outer, inner, told):
    """Transformers reads `text_config`; the answers would be of another model."""
    file = SEEING | outer | {"text_config": SEEING["text_config"] | inner}
    if told is None:
        assert from_hf(file) == from_hf(TEXT)
        return
    with pytest.raises(ValueError, match=told):
        from_hf(file)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"norm_topk_prob": False}, "norm_topk_prob = false"),
        ({"mlp_only_layers": [1]}, r"mlp_only_layers = \[1\]"),
        ({"attn_output_gate": False}, "attn_output_gate = false"),
        ({"hidden_act": "gelu"}, "hidden_act"),
        ({"architectures": ["Qwen3NextForCausalLM"]}, "architectures"),
        ({"layer_types": ["full_attention"] * 3 + ["strange"]}, "layer_types.*strange"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_refusals(change, told):
    """An attribute would be passed over, and the answers be of another model."""
    with pytest.raises(ValueError, match=told):
        from_hf(TEXT | change)


def test_what_sees_is_left_out(tmp_path):
    """Its tensors would be refused as of another model, or dropped without a word."""
    tensors = make_tensors(TEXT)
    # By the rules alone, as of a model that came from no files.
    assert "model.layers.0.linear_attn.out_proj.weight" in tensors
    assert "model.layers.0.self_attn.o_proj.weight" not in tensors
    prefix = "model.language_model."
    renamed = {n.replace("model.", prefix, 1): t for n, t in tensors.items()}
    more = {f"{n}.weight": np.zeros(3, np.float32) for n in ("model.visual.a", "mtp.b")}
    seeing = write_checkpoint(tmp_path / "seeing", SEEING, {**renamed, **more})
    text = write_checkpoint(tmp_path / "text", TEXT, tensors)
    sources = [HuggingFaceSource.open(path) for path in (seeing, text)]
    assert sources[0].digest() == sources[1].digest()
    assert set(sources[0].plan.beyond) == set(more)
    with pytest.warns(UserWarning, match="2 tensors"):
        convert(seeing, tmp_path / "ckpt")
    with pytest.warns(UserWarning, match="2 tensors"):
        export(tmp_path / "ckpt", tmp_path / "out")
    assert HuggingFaceSource.open(tmp_path / "out").weights.tensors.keys() == set(
        renamed
    )


def test_fused_experts_are_read_too(tmp_path):
    """Released files stack a layer's experts; transformers writes them one by one."""
    tensors = make_tensors(TEXT)
    fused = {n: t for n, t in tensors.items() if ".experts." not in n}
    for layer in range(4):
        mlp = f"model.layers.{layer}.mlp.experts."

        def stack(matrix, mlp=mlp):
            names = (f"{mlp}{e}.{matrix}_proj.weight" for e in range(16))
            return np.stack([tensors[name] for name in names])

        both = [stack("gate"), stack("up")]
        fused[mlp + "gate_up_proj"] = np.concatenate(both, axis=1)
        fused[mlp + "down_proj"] = stack("down")
    paths = [
        write_checkpoint(tmp_path / name, TEXT, some)
        for name, some in (("fused", fused), ("apart", tensors))
    ]
    digests = [HuggingFaceSource.open(path).digest() for path in paths]
    assert digests[0] == digests[1]
