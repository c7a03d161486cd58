"""Mixtral (`mixtral`, arXiv 2401.04088): config.json, tensors, released sizes.

With two experts a token Expert-Sample keeps both by default: draw with another
`k_keep`, or from other models made of the same parts.
"""

from typing import Any

from jaxmoe.config import ModelConfig, MoEConfig
from jaxmoe.families.attributes import EXPERT_COUNT, POSITIVE, Attributes
from jaxmoe.families.base import Family
from jaxmoe.families.common_config import check_rest, read_common, stacked
from jaxmoe.families.common_tensors import (
    BLOCK_EXPERTS,
    BOOKKEEPING,
    FRAME,
    PROJECTIONS,
)
from jaxmoe.router.scores import SoftmaxScores

ARCHITECTURE = "MixtralForCausalLM"
IGNORED = {"training only": "router_jitter_noise"}


def read_config(a: Attributes, g: Attributes) -> ModelConfig:
    """The model that config.json `a` and generation_config.json `g` describe."""
    c = read_common(a, g, max_length=131072, eps=1e-5, theta=1e6, kv_heads=8, eos=2)
    window = a.take("sliding_window", POSITIVE, None, None)
    hidden = a.take("intermediate_size", POSITIVE)
    experts = a.take("num_local_experts", EXPERT_COUNT)
    chosen = a.take("num_experts_per_tok", POSITIVE)
    check_rest(a, "mixtral", ARCHITECTURE, ignored=IGNORED)
    scoring = SoftmaxScores(normalise=True, weight_type="float32")
    moe = MoEConfig(experts, chosen, hidden, scoring)
    mixer = c.attention(qk_norm=None, window=window)
    return c.model("mixtral", stacked([mixer] * c.num_layers, 0, 0, moe))


TENSORS = (*FRAME, *PROJECTIONS, *BLOCK_EXPERTS)

_8X7B: dict[str, Any] = {
    "architectures": [ARCHITECTURE],
    "model_type": "mixtral",
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 32768,
    "num_attention_heads": 32,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "num_local_experts": 8,
    "rms_norm_eps": 1e-05,
    "rope_theta": 1000000.0,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "vocab_size": 32000,
}
RELEASED = {
    "mixtral-8x7b": _8X7B,
    "mixtral-8x22b": _8X7B
    | {
        "hidden_size": 6144,
        "intermediate_size": 16384,
        "max_position_embeddings": 65536,
        "num_attention_heads": 48,
        "num_hidden_layers": 56,
        "vocab_size": 32768,
    },
}

_TEST = {
    "architectures": [ARCHITECTURE],
    "model_type": "mixtral",
    "vocab_size": 97,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "intermediate_size": 24,
    "num_local_experts": 16,
    "num_experts_per_tok": 4,
    "max_position_embeddings": 256,
    "sliding_window": 16,
}

MIXTRAL = Family(
    name="mixtral",
    model_type="mixtral",
    architectures=(ARCHITECTURE,),
    read_config=read_config,
    tensors=TENSORS,
    ignored=BOOKKEEPING,
    tied=(("head.weight", "embed.weight"),),
    released=RELEASED,
    test_configs=(
        _TEST,
        _TEST
        | {"num_experts_per_tok": 2, "num_local_experts": 8, "sliding_window": None}
        | {"head_dim": 12, "tie_word_embeddings": True},
    ),
)
