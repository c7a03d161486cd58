"""OLMoE (arXiv 2409.02060): its config.json, its tensors, its released size.

As Qwen3-MoE, but queries and keys are normed over the whole projection, may be clipped,
and the chosen experts' probabilities are not divided by their sum.
"""

from typing import Any

from jaxmoe.config import LayerConfig, ModelConfig, MoEConfig
from jaxmoe.families.attributes import EXPERT_COUNT, FLAG, POSITIVE, REAL, Attributes
from jaxmoe.families.base import Family
from jaxmoe.families.common_config import check_rest, read_common
from jaxmoe.families.common_tensors import (
    BOOKKEEPING,
    EXPERTS,
    FRAME,
    PROJECTION_NORMS,
    PROJECTIONS,
)
from jaxmoe.router.scores import SoftmaxScores

ARCHITECTURE = "OlmoeForCausalLM"
EOS, PAD = 50279, 1
"""What transformers takes where config.json names none."""


def read_config(a: Attributes, g: Attributes) -> ModelConfig:
    """The model that config.json `a` and generation_config.json `g` describe."""
    c = read_common(a, g, max_length=4096, eps=1e-5, eos=EOS, pad=PAD)
    bias = a.take("attention_bias", FLAG, False)
    mixer = {
        "qkv_bias": bias,
        "output_bias": bias,
        "qk_norm": "projection",
        "clip": a.take("clip_qkv", REAL, None, None),
    }
    mixture = {
        "num_experts": a.take("num_experts", EXPERT_COUNT, 64),
        "experts_per_token": a.take("num_experts_per_tok", POSITIVE, 8),
        "hidden": a.take("intermediate_size", POSITIVE),
        "scoring": SoftmaxScores(a.take("norm_topk_prob", FLAG, False)),
    }
    check_rest(a, "olmoe", ARCHITECTURE)
    layer = LayerConfig(c.attention(**mixer), MoEConfig(**mixture))
    return c.model("olmoe", [layer] * c.num_layers)


TENSORS = (*FRAME, *PROJECTIONS, *PROJECTION_NORMS, *EXPERTS)

RELEASED: dict[str, dict[str, Any]] = {
    "olmoe-7b": {
        "architectures": [ARCHITECTURE],
        "attention_bias": False,
        "clip_qkv": None,
        "eos_token_id": EOS,
        "hidden_act": "silu",
        "hidden_size": 2048,
        "intermediate_size": 1024,
        "max_position_embeddings": 4096,
        "model_type": "olmoe",
        "norm_topk_prob": False,
        "num_attention_heads": 16,
        "num_experts": 64,
        "num_experts_per_tok": 8,
        "num_hidden_layers": 16,
        "num_key_value_heads": 16,
        "pad_token_id": PAD,
        "rms_norm_eps": 1e-05,
        "rope_scaling": None,
        "rope_theta": 10000.0,
        "tie_word_embeddings": False,
        "vocab_size": 50304,
    },
}
"""config.json of allenai/OLMoE-1B-7B."""

_TEST = {
    "architectures": [ARCHITECTURE],
    "model_type": "olmoe",
    "vocab_size": 96,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
    "intermediate_size": 16,
    "num_experts": 16,
    "num_experts_per_tok": 4,
    "max_position_embeddings": 256,
    "eos_token_id": 7,
    "pad_token_id": 1,
}

OLMOE = Family(
    name="olmoe",
    model_type="olmoe",
    architectures=(ARCHITECTURE,),
    read_config=read_config,
    tensors=TENSORS,
    ignored=BOOKKEEPING,
    tied=(("head.weight", "embed.weight"),),
    released=RELEASED,
    test_configs=(
        _TEST,
        _TEST | {"clip_qkv": 0.5, "norm_topk_prob": True, "attention_bias": True},
        _TEST | {"num_key_value_heads": 2, "tie_word_embeddings": True},
    ),
)
