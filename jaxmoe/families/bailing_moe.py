"""Ling (`bailing_moe`): both generations, their tensors, their released sizes.

Ling 1.5 is Qwen3-MoE without norms of queries and keys, with shared experts. Ling 2.0
(arXiv 2510.22115) has those norms, turns half of each head, and scores experts by
sigmoids with a bias of choice, in groups. Both write one `model_type`; `architectures`
tells them apart. Queries, keys and values lie in one tensor, one after the other.
transformers has neither; what remote code reads is written from that code.
"""

from typing import Any

from jaxmoe.config import ModelConfig, MoEConfig, SharedConfig
from jaxmoe.families.attributes import (
    COUNT,
    EXPERT_COUNT,
    FLAG,
    POSITIVE,
    REAL,
    Attributes,
)
from jaxmoe.families.base import Family, TensorRule
from jaxmoe.families.common_config import (
    check_rest,
    dense_first,
    read_common,
    read_groups,
    require,
    stacked,
)
from jaxmoe.families.common_tensors import (
    BOOKKEEPING,
    DENSE,
    EXPERTS,
    FF,
    FRAME,
    LAYER,
    MIXER,
    shared_expert,
)
from jaxmoe.router.scores import SigmoidScores, SoftmaxScores

FIRST, SECOND = "BailingMoeForCausalLM", "BailingMoeV2ForCausalLM"
EOS_FIRST, EOS_SECOND = 126081, 156892

IGNORED = {
    "where remote code lies": "auto_map",
    "training only": "ep_size mtp_loss_scaling_factor",
    "layers after the last, which predict further tokens": "num_nextn_predict_layers",
}
NEUTRAL: dict[str, Any] = {
    "embedding_dropout": 0.0,
    "output_dropout": 0.0,
    "norm_softmax": False,
    "use_sliding_window": False,
    "use_rmsnorm": True,
}


def read_first(a: Attributes, g: Attributes) -> ModelConfig:
    """The Ling 1.5 that config.json `a` and generation_config.json `g` describe."""
    c = read_common(a, g, max_length=16384, eps=1e-5)
    # The remote code's default, and that of more biases than are read here.
    if a.take("use_bias", FLAG, True):
        a.wrong("use_bias", True, "false, stated")
    bias = a.take("use_qkv_bias", FLAG, False)
    chosen = a.take("num_experts_per_tok", POSITIVE)
    normalise = a.take("norm_topk_prob", FLAG, True) and chosen > 1
    hidden, shared = a.take("moe_intermediate_size", POSITIVE), _shared(a)
    experts = a.take("num_experts", EXPERT_COUNT)
    first, dense = dense_first(a, c.num_layers, 0)
    # Either would divide the head's columns, or choose by another router.
    require(a, norm_head=False, multi_gate=False)
    check_rest(a, "bailing_moe", FIRST, ignored=IGNORED, neutral=NEUTRAL)
    moe = MoEConfig(
        experts,
        chosen,
        hidden,
        SoftmaxScores(normalise, weight_type="float32"),
        shared=SharedConfig(shared * hidden) if shared else None,
    )
    mixer = c.attention(qkv_bias=bias, qk_norm=None)
    return c.model("bailing_moe", stacked([mixer] * c.num_layers, first, dense, moe))


def read_second(a: Attributes, g: Attributes) -> ModelConfig:
    """The Ling 2.0 that config.json `a` and generation_config.json `g` describe."""
    c = read_common(a, g, max_length=32768, theta=600_000.0, partial=1.0)
    bias = a.take("use_qkv_bias", FLAG, False)
    norm = "head" if a.take("use_qk_norm", FLAG, True) else None
    chosen = a.take("num_experts_per_tok", POSITIVE)
    hidden, shared = a.take("moe_intermediate_size", POSITIVE), _shared(a)
    experts = a.take("num_experts", EXPERT_COUNT)
    scale = a.take("routed_scaling_factor", REAL, 1.0)
    groups = read_groups(a, best=2)
    first, dense = dense_first(a, c.num_layers, 0)
    require(
        a,
        use_bias=False,
        # The remote code divides by the sum whatever this says.
        norm_topk_prob=True,
        score_function="sigmoid",
        router_dtype="fp32",
        moe_router_enable_expert_bias=True,
        using_split_qkv_in_self_attention=False,
        moe_shared_expert_intermediate_size=hidden,
        rotary_dim=c.rope.turned(c.head_dim),
    )
    check_rest(a, "bailing_moe_v2", SECOND, ignored=IGNORED, neutral=NEUTRAL)
    scoring = SigmoidScores(
        chosen > 1, weight_type="float32", scale=scale, choice_bias=True, groups=groups
    )
    moe = MoEConfig(
        experts,
        chosen,
        hidden,
        scoring,
        shared=SharedConfig(shared * hidden) if shared else None,
    )
    mixer = c.attention(qkv_bias=bias, qk_norm=norm)
    layers = stacked([mixer] * c.num_layers, first, dense, moe)
    return c.model("bailing_moe_v2", layers)


def _shared(a: Attributes) -> int:
    """How many experts all tokens have."""
    return a.take("num_shared_experts", COUNT, 0, 0)


# -- tensors -------------------------------------------------------------------

ATTENTION = LAYER + "attention."
QKV = tuple(MIXER + f"{letter}." for letter in "qkv")

TENSORS = (
    TensorRule("model.word_embeddings.weight", "embed.weight"),
    *FRAME[1:],
    TensorRule(
        ATTENTION + "query_key_value.weight",
        tuple(name + "weight" for name in QKV),
        merge=(0, 1),
    ),
    TensorRule(
        ATTENTION + "query_key_value.bias",
        tuple(name + "bias" for name in QKV),
        merge=(0,),
    ),
    TensorRule(ATTENTION + "dense.weight", MIXER + "o.weight", merge=(1, 2)),
    *EXPERTS,
    *shared_expert("shared_experts"),
    *DENSE,
)
SECOND_TENSORS = (
    *TENSORS,
    TensorRule(ATTENTION + "query_layernorm.weight", MIXER + "q_norm.scale"),
    TensorRule(ATTENTION + "key_layernorm.weight", MIXER + "k_norm.scale"),
    TensorRule(LAYER + "mlp.gate.expert_bias", FF + "router.choice_bias"),
)

# -- sizes ---------------------------------------------------------------------

_LITE: dict[str, Any] = {
    "architectures": [FIRST],
    "model_type": "bailing_moe",
    "eos_token_id": EOS_FIRST,
    "first_k_dense_replace": 0,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "intermediate_size": 1408,
    "max_position_embeddings": 32768,
    "moe_intermediate_size": 1408,
    "norm_head": False,
    "norm_topk_prob": True,
    "num_attention_heads": 16,
    "num_experts": 64,
    "num_experts_per_tok": 6,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "num_shared_experts": 2,
    "pad_token_id": EOS_FIRST,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 600000.0,
    "tie_word_embeddings": False,
    "use_bias": False,
    "use_qkv_bias": False,
    "vocab_size": 126464,
}
_MINI: dict[str, Any] = {
    "architectures": [SECOND],
    "model_type": "bailing_moe",
    "eos_token_id": EOS_SECOND,
    "first_k_dense_replace": 1,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 2048,
    "intermediate_size": 5120,
    "max_position_embeddings": 32768,
    "moe_intermediate_size": 512,
    "moe_router_enable_expert_bias": True,
    "n_group": 8,
    "norm_topk_prob": True,
    "num_attention_heads": 16,
    "num_experts": 256,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 20,
    "num_key_value_heads": 4,
    "num_nextn_predict_layers": 0,
    "num_shared_experts": 1,
    "pad_token_id": EOS_SECOND,
    "partial_rotary_factor": 0.5,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 600000.0,
    "routed_scaling_factor": 2.5,
    "router_dtype": "fp32",
    "score_function": "sigmoid",
    "tie_word_embeddings": False,
    "topk_group": 4,
    "use_bias": False,
    "use_qk_norm": True,
    "use_qkv_bias": False,
    "vocab_size": 157184,
}

_TEST_FIRST = {
    "architectures": [FIRST],
    "model_type": "bailing_moe",
    "vocab_size": 97,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "num_experts": 16,
    "num_experts_per_tok": 4,
    "num_shared_experts": 2,
    "moe_intermediate_size": 24,
    "max_position_embeddings": 256,
    "rope_theta": 50000.0,
    "use_bias": False,
    "eos_token_id": 7,
    "pad_token_id": 7,
}
_TEST_SECOND = _TEST_FIRST | {
    "architectures": [SECOND],
    "head_dim": 16,
    "first_k_dense_replace": 1,
    "intermediate_size": 40,
    "num_shared_experts": 1,
    "n_group": 4,
    "topk_group": 2,
    "partial_rotary_factor": 0.5,
    "routed_scaling_factor": 2.5,
    "use_qk_norm": True,
}

BAILING_MOE = Family(
    name="bailing_moe",
    model_type="bailing_moe",
    architectures=(FIRST,),
    read_config=read_first,
    tensors=TENSORS,
    ignored=BOOKKEEPING,
    tied=(("head.weight", "embed.weight"),),
    released={"ling-lite-1.5": _LITE},
    test_configs=(_TEST_FIRST, _TEST_FIRST | {"tie_word_embeddings": True}),
)
BAILING_MOE_V2 = Family(
    name="bailing_moe_v2",
    model_type="bailing_moe",
    architectures=(SECOND,),
    read_config=read_second,
    tensors=SECOND_TENSORS,
    ignored=BOOKKEEPING,
    beyond=(LAYER,),
    tied=(("head.weight", "embed.weight"),),
    released={"ling-mini-2.0": _MINI},
    test_configs=(
        _TEST_SECOND,
        _TEST_SECOND
        | {"n_group": 1, "topk_group": 1, "use_qkv_bias": True, "use_qk_norm": False},
    ),
)
