"""Qwen3.5-MoE and Qwen3.6's: the text model, its config.json, tensors, released size.

Qwen3-Next without dense layers, whose recurrent layers store queries, keys and values
each together, not key head by key head. Released files hold a model that sees: its text
model lies in `text_config`, and under `model.language_model.`. What sees is left out,
and so are layers that predict further tokens.
"""

from dataclasses import replace
from typing import Any

from jaxmoe.config import LayerConfig, ModelConfig, MoEConfig, NormConfig, SharedConfig
from jaxmoe.families.attributes import (
    EXPERT_COUNT,
    FLAG,
    LAYER_COUNT,
    OBJECT,
    POSITIVE,
    REAL,
    Attributes,
    quote,
)
from jaxmoe.families.base import Family, TensorRule
from jaxmoe.families.common_config import check_rest, require
from jaxmoe.families.common_tensors import (
    BOOKKEEPING,
    EXPERTS,
    FRAME,
    HEAD_NORMS,
    MIXER,
)
from jaxmoe.families.generation import read_generation, read_token_ids
from jaxmoe.families.qwen3_next import (
    DELTA,
    DELTA_PARTS,
    FULL,
    GATED_PROJECTIONS,
    RECURRENT,
    SHARED,
    read_attention,
    read_delta,
    read_layer_types,
)
from jaxmoe.families.rope import context_length
from jaxmoe.families.unread import QUANTISED, harmless
from jaxmoe.router.scores import SoftmaxScores

ARCHITECTURES = ("Qwen3_5MoeForCausalLM", "Qwen3_5MoeForConditionalGeneration")
WHOLE = "qwen3_5_moe"
"""The model_type of files that have their text model in `text_config`."""
TEXT = "qwen3_5_moe_text"
"""The model_type of the text model."""
_OF_THE_WHOLE = {"architectures", "model_type", "tie_word_embeddings", *QUANTISED}
"""What counts as it is said beside `text_config`, whatever is said in it."""

IGNORED = {
    "what sees images and videos, of which a prompt here has none": "vision_config "
    "image_token_id video_token_id vision_start_token_id vision_end_token_id "
    "language_model_only",
    "layers that predict further tokens": "mtp_num_hidden_layers "
    "mtp_use_dedicated_embeddings num_nextn_predict_layers",
    "of dense layers, which this architecture has none of": "intermediate_size",
}
NEUTRAL: dict[str, Any] = {
    "attn_output_gate": True,
    "mamba_ssm_dtype": "float32",
    "use_sliding_window": False,
}

# -- config.json ---------------------------------------------------------------


def read_config(a: Attributes, g: Attributes) -> ModelConfig:
    """The model that config.json `a` and generation_config.json `g` describe."""
    _flatten(a)
    vocab_size = a.take("vocab_size", POSITIVE)
    d_model = a.take("hidden_size", POSITIVE)
    num_layers = a.take("num_hidden_layers", LAYER_COUNT)
    max_length = a.take("max_position_embeddings", POSITIVE, 32768)
    experts = a.take("num_experts", EXPERT_COUNT)
    chosen = a.take("num_experts_per_tok", POSITIVE)
    hidden = a.take("moe_intermediate_size", POSITIVE)
    shared = SharedConfig(a.take("shared_expert_intermediate_size", POSITIVE), True)
    require(a, norm_topk_prob=True, mlp_only_layers=[], decoder_sparse_step=1)
    _drop_sections(a)
    attention, rope = read_attention(a, max_length)
    delta = read_delta(a)
    kinds = read_layer_types(a, num_layers)
    norm_eps = a.take("rms_norm_eps", REAL, 1e-6)
    tied = a.take("tie_word_embeddings", FLAG, False)
    stop_ids, pad_id = read_token_ids(a, g, vocab_size)
    generation = read_generation(g)
    stated = a.left.get("architectures")
    stated = stated if isinstance(stated, list) else []
    architecture = next((n for n in ARCHITECTURES if n in stated), ARCHITECTURES[0])
    check_rest(a, "qwen3_5_moe", architecture, ignored=IGNORED, neutral=NEUTRAL)
    mixers = {FULL: attention, RECURRENT: lambda: delta(joined=False)}
    scoring = SoftmaxScores(normalise=True)
    moe = MoEConfig(experts, chosen, hidden, scoring, shared=shared)
    return ModelConfig(
        family="qwen3_5_moe",
        vocab_size=vocab_size,
        d_model=d_model,
        layers=tuple(LayerConfig(mixers[kind](), moe) for kind in kinds),
        norm=NormConfig(norm_eps, cast="last", offset=1.0),
        tie_embeddings=tied,
        context_length=context_length(rope, max_length),
        stop_ids=stop_ids,
        pad_id=pad_id,
        generation=generation,
    )


def _flatten(a: Attributes):
    """Puts what `text_config` has in the place of the rest, if that is a whole model's.

    Whether embeddings are tied is then said beside it, whatever it says. Of the others
    transformers reads what `text_config` has, or its own default: what is said beside
    it and not in it, or otherwise, is refused.
    """
    if a.left.get("model_type") != WHOLE and "text_config" not in a.left:
        return
    text = a.take("text_config", OBJECT)
    if text.get("model_type") != TEXT:
        a.wrong("text_config.model_type", text.get("model_type"), TEXT)
    outer = {"tie_word_embeddings": False} | a.left
    counts = {name: outer[name] for name in _OF_THE_WHOLE & outer.keys()}
    for name in sorted(outer.keys() - counts.keys() - harmless(IGNORED)):
        said = quote(text[name]) if name in text else "none"
        if outer[name] is not None and outer[name] != text.get(name):
            a.wrong(name, outer[name], f"what text_config has: {said}")
    ignored = {name: outer[name] for name in harmless(IGNORED) & outer.keys()}
    a.left = {**ignored, **text, **counts}


def _drop_sections(a: Attributes):
    """Leaves out how rope is shared between time, height and width.

    All three are the position where there is only text.
    """
    for name in ("rope_scaling", "rope_parameters"):
        if isinstance(rope := a.left.get(name), dict):
            sections = ("mrope_section", "mrope_interleaved")
            a.left[name] = {k: v for k, v in rope.items() if k not in sections}


# -- tensors -------------------------------------------------------------------

_TEXT = (
    *FRAME,
    *GATED_PROJECTIONS,
    *HEAD_NORMS,
    *EXPERTS,
    *SHARED,
    TensorRule(
        DELTA + "in_proj_qkv.weight",
        (MIXER + "q", MIXER + "k", MIXER + "v"),
        merge=(2, 1),
    ),
    TensorRule(DELTA + "in_proj_z.weight", MIXER + "z", merge=(2, 1)),
    TensorRule(DELTA + "in_proj_b.weight", MIXER + "b", merge=(2, 1)),
    TensorRule(DELTA + "in_proj_a.weight", MIXER + "a", merge=(2, 1)),
    *DELTA_PARTS,
)
TENSORS = _TEXT + tuple(
    replace(rule, tensor=rule.tensor.replace("model.", "model.language_model.", 1))
    for rule in _TEXT
    if rule.tensor.startswith("model.")
)

# -- sizes ---------------------------------------------------------------------

_LAYERS = 40

_RELEASED: dict[str, Any] = {
    "architectures": [ARCHITECTURES[1]],
    "image_token_id": 248056,
    "model_type": WHOLE,
    "text_config": {
        "attention_bias": False,
        "attention_dropout": 0.0,
        "attn_output_gate": True,
        "eos_token_id": 248044,
        "full_attention_interval": 4,
        "head_dim": 256,
        "hidden_act": "silu",
        "hidden_size": 2048,
        "layer_types": [FULL if i % 4 == 3 else RECURRENT for i in range(_LAYERS)],
        "linear_conv_kernel_dim": 4,
        "linear_key_head_dim": 128,
        "linear_num_key_heads": 16,
        "linear_num_value_heads": 32,
        "linear_value_head_dim": 128,
        "mamba_ssm_dtype": "float32",
        "max_position_embeddings": 262144,
        "model_type": "qwen3_5_moe_text",
        "moe_intermediate_size": 512,
        "mtp_num_hidden_layers": 1,
        "num_attention_heads": 16,
        "num_experts": 256,
        "num_experts_per_tok": 8,
        "num_hidden_layers": _LAYERS,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-06,
        "rope_parameters": {
            "mrope_interleaved": True,
            "mrope_section": [11, 11, 10],
            "partial_rotary_factor": 0.25,
            "rope_theta": 10000000,
            "rope_type": "default",
        },
        "shared_expert_intermediate_size": 512,
        "vocab_size": 248320,
    },
    "tie_word_embeddings": False,
    "video_token_id": 248057,
    "vision_config": {"model_type": WHOLE},
    "vision_end_token_id": 248054,
    "vision_start_token_id": 248053,
}
"""Sizes of Qwen/Qwen3.5-35B-A3B."""

_TEST: dict[str, Any] = {
    "architectures": [ARCHITECTURES[0]],
    "model_type": "qwen3_5_moe_text",
    "vocab_size": 96,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 12,
    "linear_conv_kernel_dim": 4,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 24,
    "num_experts": 16,
    "num_experts_per_tok": 5,
    "max_position_embeddings": 512,
    "rope_parameters": {
        "mrope_interleaved": True,
        "mrope_section": [1, 1, 0],
        "partial_rotary_factor": 0.25,
        "rope_theta": 10000.0,
        "rope_type": "default",
    },
}

QWEN3_5_MOE = Family(
    name="qwen3_5_moe",
    model_type=TEXT,
    architectures=ARCHITECTURES,
    read_config=read_config,
    tensors=TENSORS,
    ignored=BOOKKEEPING,
    beyond=("mtp.", "model.visual."),
    tied=(("head.weight", "embed.weight"),),
    formats=("FP8",),
    released={"qwen3.5-35b-a3b": _RELEASED},
    test_configs=(
        _TEST,
        _TEST
        | {
            "layer_types": [RECURRENT, FULL, FULL, RECURRENT],
            "linear_num_value_heads": 2,
            "linear_conv_kernel_dim": 3,
            "tie_word_embeddings": True,
            "attention_bias": True,
        },
        _TEST
        | {
            "quantization_config": {
                "modules_to_not_convert": ["mlp.shared_expert.down_proj"],
                "quant_method": "fp8",
                "weight_block_size": [4, 8],
            }
        },
    ),
)
