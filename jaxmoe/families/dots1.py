"""dots.llm1 (`dots1`, arXiv 2506.05767): config.json, tensors, released size."""

from typing import Any

from jaxmoe.config import ModelConfig
from jaxmoe.families.attributes import COUNT, FLAG, Attributes
from jaxmoe.families.base import Family
from jaxmoe.families.common_config import (
    check_rest,
    dense_first,
    read_common,
    read_routed,
    read_windows,
    stacked,
)
from jaxmoe.families.common_tensors import (
    BOOKKEEPING,
    CHOICE_BIAS,
    DENSE,
    EXPERTS,
    FRAME,
    HEAD_NORMS,
    PROJECTIONS,
    shared_expert,
)

ARCHITECTURE = "Dots1ForCausalLM"
NEUTRAL: dict[str, Any] = {
    "moe_layer_freq": 1,
    "pretraining_tp": 1,
    "scoring_func": "noaux_tc",
    "topk_method": "noaux_tc",
}


def read_config(a: Attributes, g: Attributes) -> ModelConfig:
    """The model that config.json `a` and generation_config.json `g` describe."""
    c = read_common(a, g, max_length=2048, kv_heads=32)
    bias = a.take("attention_bias", FLAG, False)
    window = a.take("sliding_window", COUNT, 4096, None)
    first_window = a.take("max_window_layers", COUNT, 62, 62)
    sliding = [window is not None and i >= first_window for i in range(c.num_layers)]
    windows = read_windows(a, c.num_layers, window, sliding)
    moe = read_routed(a, normalise=False)
    first, dense = dense_first(a, c.num_layers, 0)
    check_rest(a, "dots1", ARCHITECTURE, neutral=NEUTRAL)
    mixers = [
        c.attention(qkv_bias=bias, output_bias=bias, window=each) for each in windows
    ]
    return c.model("dots1", stacked(mixers, first, dense, moe()))


TENSORS = (
    *FRAME,
    *PROJECTIONS,
    *HEAD_NORMS,
    *EXPERTS,
    *CHOICE_BIAS,
    *shared_expert("shared_experts"),
    *DENSE,
)

_RELEASED: dict[str, Any] = {
    "architectures": [ARCHITECTURE],
    "model_type": "dots1",
    "attention_bias": False,
    "eos_token_id": 151645,
    "first_k_dense_replace": 1,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 10944,
    "max_position_embeddings": 32768,
    "moe_intermediate_size": 1408,
    "n_routed_experts": 128,
    "n_shared_experts": 2,
    "norm_topk_prob": True,
    "num_attention_heads": 32,
    "num_experts_per_tok": 6,
    "num_hidden_layers": 62,
    "num_key_value_heads": 32,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000000,
    "routed_scaling_factor": 2.5,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "vocab_size": 152064,
}

_TEST = {
    "architectures": [ARCHITECTURE],
    "model_type": "dots1",
    "vocab_size": 97,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "attention_bias": True,
    "first_k_dense_replace": 1,
    "intermediate_size": 40,
    "moe_intermediate_size": 24,
    "n_routed_experts": 16,
    "n_shared_experts": 2,
    "norm_topk_prob": True,
    "num_experts_per_tok": 4,
    "routed_scaling_factor": 2.5,
    "max_position_embeddings": 256,
    "sliding_window": 16,
    "max_window_layers": 2,
}

DOTS1 = Family(
    name="dots1",
    model_type="dots1",
    architectures=(ARCHITECTURE,),
    read_config=read_config,
    tensors=TENSORS,
    ignored=BOOKKEEPING,
    tied=(("head.weight", "embed.weight"),),
    released={"dots.llm1": _RELEASED},
    test_configs=(_TEST,),
)
