"""Granite 3 mixtures (`granitemoe`, `granitemoeshared`): config.json, tensors, sizes.

Embeddings, products of queries and keys, what layers add, and logits have a multiplier
each; experts lie in stacks. The second kind has an expert that all tokens have.
"""

from typing import Any

from jaxmoe.config import LayerConfig, ModelConfig, MoEConfig, SharedConfig
from jaxmoe.families.attributes import (
    COUNT,
    EXPERT_COUNT,
    FLAG,
    POSITIVE,
    REAL,
    Attributes,
)
from jaxmoe.families.base import Family, TensorRule
from jaxmoe.families.common_config import check_rest, read_common
from jaxmoe.families.common_tensors import (
    BOOKKEEPING,
    FF,
    FRAME,
    LAYER,
    PROJECTIONS,
)
from jaxmoe.router.scores import SoftmaxScores

PLAIN, SHARED = "GraniteMoeForCausalLM", "GraniteMoeSharedForCausalLM"


def read_plain(a: Attributes, g: Attributes) -> ModelConfig:
    """The model that config.json `a` and generation_config.json `g` describe."""
    return _read(a, g, "granitemoe", PLAIN, 0)


def read_shared(a: Attributes, g: Attributes) -> ModelConfig:
    """Likewise, of the kind with a shared expert."""
    shared = a.take("shared_intermediate_size", COUNT, 0)
    return _read(a, g, "granitemoeshared", SHARED, shared)


def _read(
    a: Attributes, g: Attributes, family: str, architecture: str, shared: int
) -> ModelConfig:
    c = read_common(a, g, max_length=2048, eos=2)
    bias = a.take("attention_bias", FLAG, False)
    scale = a.take("attention_multiplier", REAL, 1.0)
    residual = a.take("residual_multiplier", REAL, 1.0)
    embed = a.take("embedding_multiplier", REAL, 1.0)
    divisor = a.take("logits_scaling", REAL, 1.0)
    hidden = a.take("intermediate_size", POSITIVE)
    experts = a.take("num_local_experts", EXPERT_COUNT)
    chosen = a.take("num_experts_per_tok", POSITIVE)
    check_rest(a, family, architecture)
    mixer = c.attention(qkv_bias=bias, output_bias=bias, qk_norm=None, scale=scale)
    moe = MoEConfig(
        experts,
        chosen,
        hidden,
        SoftmaxScores(True),
        shared=SharedConfig(shared) if shared else None,
    )
    layers = [LayerConfig(mixer, moe, residual)] * c.num_layers
    return c.model(family, layers, embed_scale=embed, logits_divisor=divisor)


MOE = LAYER + "block_sparse_moe."

TENSORS = (
    *FRAME,
    *PROJECTIONS,
    TensorRule(MOE + "router.layer.weight", FF + "router.weight"),
    TensorRule(MOE + "input_linear.weight", FF + "gate_up", merge=(1, 2, 1)),
    TensorRule(MOE + "output_linear.weight", FF + "down"),
)
SHARED_TENSORS = (
    *TENSORS,
    TensorRule(
        LAYER + "shared_mlp.input_linear.weight", FF + "shared.gate_up", merge=(2, 1)
    ),
    TensorRule(LAYER + "shared_mlp.output_linear.weight", FF + "shared.down"),
)

_SMALL: dict[str, Any] = {
    "architectures": [PLAIN],
    "model_type": "granitemoe",
    "attention_bias": False,
    "attention_multiplier": 0.015625,
    "embedding_multiplier": 12.0,
    "eos_token_id": 0,
    "hidden_act": "silu",
    "hidden_size": 1024,
    "intermediate_size": 512,
    "logits_scaling": 6.0,
    "max_position_embeddings": 131072,
    "num_attention_heads": 16,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 24,
    "num_key_value_heads": 8,
    "num_local_experts": 32,
    "pad_token_id": 0,
    "residual_multiplier": 0.22,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1500000.0,
    "tie_word_embeddings": True,
    "vocab_size": 49155,
}
_LARGE = _SMALL | {
    "hidden_size": 1536,
    "num_attention_heads": 24,
    "num_hidden_layers": 32,
    "num_local_experts": 40,
}

_TEST = {
    "architectures": [PLAIN],
    "model_type": "granitemoe",
    "vocab_size": 97,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "intermediate_size": 24,
    "num_local_experts": 16,
    "num_experts_per_tok": 4,
    "max_position_embeddings": 256,
    "attention_multiplier": 0.2,
    "embedding_multiplier": 3.0,
    "logits_scaling": 0.5,
    "residual_multiplier": 0.7,
    "eos_token_id": 7,
}

GRANITEMOE = Family(
    name="granitemoe",
    model_type="granitemoe",
    architectures=(PLAIN,),
    read_config=read_plain,
    tensors=TENSORS,
    ignored=BOOKKEEPING,
    tied=(("head.weight", "embed.weight"),),
    released={"granite-3.1-1b-a400m": _SMALL, "granite-3.1-3b-a800m": _LARGE},
    test_configs=(_TEST | {"tie_word_embeddings": True, "attention_bias": True},),
)
GRANITEMOESHARED = Family(
    name="granitemoeshared",
    model_type="granitemoeshared",
    architectures=(SHARED,),
    read_config=read_shared,
    tensors=SHARED_TENSORS,
    ignored=BOOKKEEPING,
    tied=(("head.weight", "embed.weight"),),
    test_configs=(
        _TEST
        | {"architectures": [SHARED], "model_type": "granitemoeshared"}
        | {"shared_intermediate_size": 40},
    ),
)
