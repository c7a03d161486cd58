"""Qwen1.5-MoE and Qwen2-MoE (`qwen2_moe`): config.json, tensors, released sizes.

Queries, keys and values have biases, a shared expert a gate, and the chosen experts'
probabilities are not divided by their sum.
"""

from functools import partial
from typing import Any

from jaxmoe.config import (
    DenseConfig,
    LayerConfig,
    ModelConfig,
    MoEConfig,
    SharedConfig,
)
from jaxmoe.families.attributes import (
    COUNT,
    EXPERT_COUNT,
    FLAG,
    INDICES,
    POSITIVE,
    Attributes,
)
from jaxmoe.families.base import Family, TensorRule
from jaxmoe.families.common_config import check_rest, read_common, read_windows
from jaxmoe.families.common_tensors import (
    BOOKKEEPING,
    DENSE,
    EXPERTS,
    FF,
    FRAME,
    LAYER,
    PROJECTIONS,
    shared_expert,
)
from jaxmoe.router.scores import SoftmaxScores

ARCHITECTURE = "Qwen2MoeForCausalLM"


def read_config(a: Attributes, g: Attributes) -> ModelConfig:
    """The model that config.json `a` and generation_config.json `g` describe."""
    c = read_common(a, g, max_length=32768, kv_heads=16)
    bias = a.take("qkv_bias", FLAG, True)
    window = a.take("sliding_window", COUNT, 4096, None)
    used = a.take("use_sliding_window", FLAG, False)
    last = a.take("max_window_layers", COUNT, 28, 28)
    # Every other layer has the window, up to the last that may.
    sliding = [used and i % 2 == 0 and i < last for i in range(c.num_layers)]
    windows = read_windows(a, c.num_layers, window if used else None, sliding)
    step = a.take("decoder_sparse_step", POSITIVE, 1)
    dense = set(a.take("mlp_only_layers", INDICES, [], []))
    dense |= {i for i in range(c.num_layers) if (i + 1) % step}
    mlp = partial(DenseConfig, a.take("intermediate_size", POSITIVE, 5632))
    shared = a.take("shared_expert_intermediate_size", POSITIVE, 5632)
    moe = partial(
        MoEConfig,
        num_experts=a.take("num_experts", EXPERT_COUNT),
        experts_per_token=a.take("num_experts_per_tok", POSITIVE),
        hidden=a.take("moe_intermediate_size", POSITIVE),
        scoring=SoftmaxScores(a.take("norm_topk_prob", FLAG, False)),
    )
    check_rest(a, "qwen2_moe", ARCHITECTURE)
    layers = [
        LayerConfig(
            c.attention(qkv_bias=bias, qk_norm=None, window=each),
            mlp() if i in dense else moe(shared=SharedConfig(shared, gate=True)),
        )
        for i, each in enumerate(windows)
    ]
    return c.model("qwen2_moe", layers)


TENSORS = (
    *FRAME,
    *PROJECTIONS,
    *EXPERTS,
    *shared_expert("shared_expert"),
    TensorRule(LAYER + "mlp.shared_expert_gate.weight", FF + "shared.gate"),
    *DENSE,
)

_SMALL: dict[str, Any] = {
    "architectures": [ARCHITECTURE],
    "model_type": "qwen2_moe",
    "bos_token_id": 151643,
    "decoder_sparse_step": 1,
    "eos_token_id": 151643,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "intermediate_size": 5632,
    "max_position_embeddings": 8192,
    "max_window_layers": 21,
    "moe_intermediate_size": 1408,
    "norm_topk_prob": False,
    "num_attention_heads": 16,
    "num_experts": 60,
    "num_experts_per_tok": 4,
    "num_hidden_layers": 24,
    "num_key_value_heads": 16,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "shared_expert_intermediate_size": 5632,
    "sliding_window": 32768,
    "tie_word_embeddings": False,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
_LARGE = _SMALL | {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "max_position_embeddings": 32768,
    "max_window_layers": 28,
    "moe_intermediate_size": 2560,
    "num_attention_heads": 28,
    "num_experts": 64,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "shared_expert_intermediate_size": 20480,
}

_TEST = {
    "architectures": [ARCHITECTURE],
    "model_type": "qwen2_moe",
    "vocab_size": 97,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "num_experts": 16,
    "num_experts_per_tok": 4,
    "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 40,
    "max_position_embeddings": 256,
}

QWEN2_MOE = Family(
    name="qwen2_moe",
    model_type="qwen2_moe",
    architectures=(ARCHITECTURE,),
    read_config=read_config,
    tensors=TENSORS,
    ignored=BOOKKEEPING,
    tied=(("head.weight", "embed.weight"),),
    released={"qwen1.5-moe-a2.7b": _SMALL, "qwen2-57b-a14b": _LARGE},
    test_configs=(
        _TEST,
        _TEST
        | {"qkv_bias": False, "norm_topk_prob": True, "tie_word_embeddings": True}
        | {"mlp_only_layers": [1], "intermediate_size": 48}
        | {"use_sliding_window": True, "sliding_window": 16, "max_window_layers": 2},
    ),
)
