"""Qwen3-Next: its config.json, its tensors, its released size.

Three layers of Gated DeltaNet, then one of attention whose heads have gates and are
turned in part; norms hold the difference of their weight from 1. Feed-forwards are
those of Qwen3-MoE, with a shared expert behind a gate.
"""

from functools import partial
from typing import Any

from jaxmoe.config import (
    AttentionConfig,
    DeltaConfig,
    LayerConfig,
    ModelConfig,
    NormConfig,
    SharedConfig,
)
from jaxmoe.families.attributes import (
    FLAG,
    NAMES,
    POSITIVE,
    REAL,
    Attributes,
    quote,
)
from jaxmoe.families.base import Family, TensorRule
from jaxmoe.families.common_config import check_rest
from jaxmoe.families.common_tensors import (
    BOOKKEEPING,
    DENSE,
    EXPERTS,
    FF,
    FRAME,
    HEAD_NORMS,
    LAYER,
    MIXER,
    PROJECTIONS,
    shared_expert,
)
from jaxmoe.families.generation import read_generation, read_token_ids
from jaxmoe.families.qwen3_moe import read_feed_forwards
from jaxmoe.families.rope import context_length, read_rope

ARCHITECTURE = "Qwen3NextForCausalLM"
RECURRENT, FULL = "linear_attention", "full_attention"
"""The entries of `layer_types`."""

# -- config.json ---------------------------------------------------------------


def read_config(a: Attributes, g: Attributes) -> ModelConfig:
    """The model that config.json `a` and generation_config.json `g` describe."""
    vocab_size = a.take("vocab_size", POSITIVE)
    d_model = a.take("hidden_size", POSITIVE)
    max_length = a.take("max_position_embeddings", POSITIVE, 32768)
    shared = SharedConfig(a.take("shared_expert_intermediate_size", POSITIVE), True)
    feed_forwards = read_feed_forwards(a, normalise=True, shared=shared)
    attention, rope = read_attention(a, max_length)
    mixers = {FULL: attention, RECURRENT: read_delta(a)}
    kinds = read_layer_types(a, len(feed_forwards))
    norm_eps = a.take("rms_norm_eps", REAL, 1e-6)
    tied = a.take("tie_word_embeddings", FLAG, False)
    stop_ids, pad_id = read_token_ids(a, g, vocab_size)
    generation = read_generation(g)
    neutral = {"use_sliding_window": False}
    check_rest(a, "qwen3_next", ARCHITECTURE, neutral=neutral)
    pairs = zip(kinds, feed_forwards, strict=True)
    return ModelConfig(
        family="qwen3_next",
        vocab_size=vocab_size,
        d_model=d_model,
        layers=tuple(LayerConfig(mixers[kind](), make()) for kind, make in pairs),
        norm=NormConfig(norm_eps, cast="last", offset=1.0),
        tie_embeddings=tied,
        context_length=context_length(rope, max_length),
        stop_ids=stop_ids,
        pad_id=pad_id,
        generation=generation,
    )


def read_attention(a: Attributes, max_length: int):
    """The mixer of full layers, built once the file is known to be good; its rope."""
    head_dim = a.take("head_dim", POSITIVE)
    rope = read_rope(a, max_length, head_dim=head_dim, partial=0.25)
    bias = a.take("attention_bias", FLAG, False)
    mixer = partial(
        AttentionConfig,
        num_heads=a.take("num_attention_heads", POSITIVE),
        num_kv_heads=a.take("num_key_value_heads", POSITIVE),
        head_dim=head_dim,
        rope=rope,
        qkv_bias=bias,
        output_bias=bias,
        gate=True,
    )
    return mixer, rope


def read_delta(a: Attributes) -> partial[DeltaConfig]:
    """The mixer of recurrent layers, likewise."""
    return partial(
        DeltaConfig,
        num_key_heads=a.take("linear_num_key_heads", POSITIVE),
        num_value_heads=a.take("linear_num_value_heads", POSITIVE),
        key_dim=a.take("linear_key_head_dim", POSITIVE),
        value_dim=a.take("linear_value_head_dim", POSITIVE),
        conv_size=a.take("linear_conv_kernel_dim", POSITIVE, 4),
    )


def read_layer_types(a: Attributes, num_layers: int) -> list[str]:
    """The kind of each layer: `layer_types`, or one full in `full_attention_interval`.

    Where the file has both they have to agree.
    """
    interval = a.take("full_attention_interval", POSITIVE, None)
    turn = 4 if interval is None else interval
    regular = [RECURRENT if (i + 1) % turn else FULL for i in range(num_layers)]
    kinds = a.take("layer_types", NAMES, regular, regular)
    strange = sorted(set(kinds) - {RECURRENT, FULL})
    if strange or len(kinds) != num_layers:
        wanted = f"{num_layers} entries, of {quote([RECURRENT, FULL])}"
        a.wrong("layer_types", strange or kinds, wanted)
        return regular
    if interval is not None and kinds != regular:
        a.wrong("full_attention_interval", interval, "what layer_types says")
    return kinds


# -- tensors -------------------------------------------------------------------

DELTA = LAYER + "linear_attn."

GATED_PROJECTIONS = tuple(
    # Rows of queries and gates lie head by head.
    TensorRule(rule.tensor, rule.param, merge=(0, *rule.merge[1:]))
    if "q_proj" in rule.tensor
    else rule
    for rule in PROJECTIONS
)
"""Those of attention: [H*2*A, D] is [H, 2, A, D]."""

DELTA_PARTS = (
    TensorRule(
        DELTA + "conv1d.weight",
        (MIXER + "conv_q", MIXER + "conv_k", MIXER + "conv_v"),
        merge=(2, 1, 1),
    ),
    TensorRule(DELTA + "A_log", MIXER + "a_log", merge=(2,)),
    TensorRule(DELTA + "dt_bias", MIXER + "dt_bias", merge=(2,)),
    TensorRule(DELTA + "norm.weight", MIXER + "norm.scale"),
    TensorRule(DELTA + "out_proj.weight", MIXER + "out.weight", merge=(1, 2)),
)
"""Of recurrent layers, but for what projects their input."""

SHARED = (
    *shared_expert("shared_expert"),
    TensorRule(LAYER + "mlp.shared_expert_gate.weight", FF + "shared.gate"),
)

TENSORS = (
    *FRAME,
    *GATED_PROJECTIONS,
    *HEAD_NORMS,
    *EXPERTS,
    *SHARED,
    *DENSE,
    TensorRule(DELTA + "in_proj_qkvz.weight", MIXER + "qkvz", merge=(2, 1)),
    TensorRule(DELTA + "in_proj_ba.weight", MIXER + "ba", merge=(2, 1)),
    *DELTA_PARTS,
)

# -- sizes ---------------------------------------------------------------------

RELEASED: dict[str, dict[str, Any]] = {
    "next-80b": {
        "architectures": [ARCHITECTURE],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 151643,
        "decoder_sparse_step": 1,
        "eos_token_id": 151645,
        "full_attention_interval": 4,
        "head_dim": 256,
        "hidden_act": "silu",
        "hidden_size": 2048,
        "initializer_range": 0.02,
        "intermediate_size": 5120,
        "linear_conv_kernel_dim": 4,
        "linear_key_head_dim": 128,
        "linear_num_key_heads": 16,
        "linear_num_value_heads": 32,
        "linear_value_head_dim": 128,
        "max_position_embeddings": 262144,
        "mlp_only_layers": [],
        "model_type": "qwen3_next",
        "moe_intermediate_size": 512,
        "norm_topk_prob": True,
        "num_attention_heads": 16,
        "num_experts": 512,
        "num_experts_per_tok": 10,
        "num_hidden_layers": 48,
        "num_key_value_heads": 2,
        "output_router_logits": False,
        "partial_rotary_factor": 0.25,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 10000000,
        "router_aux_loss_coef": 0.001,
        "shared_expert_intermediate_size": 512,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": 151936,
    },
}
"""config.json of Qwen/Qwen3-Next-80B-A3B-Instruct."""

_TEST: dict[str, Any] = {
    "architectures": [ARCHITECTURE],
    "model_type": "qwen3_next",
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
}

QWEN3_NEXT = Family(
    name="qwen3_next",
    model_type="qwen3_next",
    architectures=(ARCHITECTURE,),
    read_config=read_config,
    tensors=TENSORS,
    ignored=BOOKKEEPING,
    beyond=("mtp.",),
    tied=(("head.weight", "embed.weight"),),
    released=RELEASED,
    test_configs=(
        _TEST | {"num_hidden_layers": 8},
        _TEST | {"mlp_only_layers": [1], "intermediate_size": 40},
        _TEST
        | {
            "layer_types": [RECURRENT, FULL, FULL, RECURRENT],
            "linear_num_value_heads": 2,
            "linear_conv_kernel_dim": 3,
            "tie_word_embeddings": True,
            "attention_bias": True,
            "norm_topk_prob": False,
        },
    ),
)
