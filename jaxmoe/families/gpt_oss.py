"""GPT-OSS (arXiv 2508.10925): its config.json, its tensors, its released sizes.

Every other layer attends to the last positions only, every head has a sink, nothing is
normed but layers' inputs, all projections and experts have biases, and the experts'
activation is clipped. Gate and up of an expert's hidden unit lie side by side: as
released in MXFP4, blocks and scales that are kept so; as transformers saves it, floats
with their inputs first.
"""

from typing import Any

from jaxmoe.config import (
    AttentionConfig,
    LayerConfig,
    ModelConfig,
    MoEConfig,
    NormConfig,
    WeightFormat,
)
from jaxmoe.families.attributes import (
    EXPERT_COUNT,
    FLAG,
    LAYER_COUNT,
    NAMES,
    POSITIVE,
    REAL,
    Attributes,
    quote,
)
from jaxmoe.families.base import Family, TensorRule
from jaxmoe.families.common_config import FULL, SLIDING, check_rest, read_windows
from jaxmoe.families.common_tensors import (
    ATTENTION,
    BOOKKEEPING,
    FF,
    FRAME,
    LAYER,
    MIXER,
    PROJECTIONS,
)
from jaxmoe.families.generation import read_generation, read_token_ids
from jaxmoe.families.rope import context_length, read_rope
from jaxmoe.ops.activations import ClippedSwiGLU
from jaxmoe.router.scores import SoftmaxScores

ARCHITECTURE = "GptOssForCausalLM"
THETA = 150_000.0

ROPE = {
    "rope_type": "yarn",
    "factor": 32.0,
    "beta_fast": 32.0,
    "beta_slow": 1.0,
    "truncate": False,
    "original_max_position_embeddings": 4096,
}
"""What transformers takes where config.json names no rope."""


# -- config.json ---------------------------------------------------------------


def read_config(a: Attributes, g: Attributes) -> ModelConfig:
    """The model that config.json `a` and generation_config.json `g` describe."""
    vocab_size = a.take("vocab_size", POSITIVE)
    d_model = a.take("hidden_size", POSITIVE)
    max_length = a.take("max_position_embeddings", POSITIVE, 131_072)
    if not a.left.get("rope_scaling") and a.left.get("rope_parameters") is None:
        a.left["rope_parameters"] = ROPE
    rope = read_rope(a, max_length, theta=THETA)
    heads = a.take("num_attention_heads", POSITIVE)
    bias = a.take("attention_bias", FLAG, True)
    mixer = {
        "num_heads": heads,
        "num_kv_heads": a.take("num_key_value_heads", POSITIVE, 8, heads),
        "head_dim": a.take("head_dim", POSITIVE, 64, d_model // heads),
        "rope": rope,
        "qkv_bias": bias,
        "output_bias": bias,
        "qk_norm": None,
        "sinks": True,
    }
    num_layers = a.take("num_hidden_layers", LAYER_COUNT)
    window = a.take("sliding_window", POSITIVE, 128, None)
    # Without names layers 0, 2, ... have a window.
    windows = read_windows(
        a, num_layers, window, [i % 2 == 0 for i in range(num_layers)]
    )
    weights = _weights(a)
    mixture = {
        "num_experts": _agreeing(a, "num_local_experts", "num_experts", EXPERT_COUNT),
        "experts_per_token": _experts_per_token(a),
        "hidden": a.take("intermediate_size", POSITIVE),
        # The softmax over the chosen is what they have of the softmax over all.
        "scoring": SoftmaxScores(normalise=True),
        "bias": True,
        "weights": weights,
    }
    activation = {
        "alpha": a.take("swiglu_alpha", REAL, 1.702),
        "limit": a.take("swiglu_limit", REAL, 7.0),
    }
    norm_eps = a.take("rms_norm_eps", REAL, 1e-5)
    tied = a.take("tie_word_embeddings", FLAG, False)
    stop_ids, pad_id = read_token_ids(a, g, vocab_size)
    generation = read_generation(g)
    _check(a, rope.original_length)
    moe = MoEConfig(**mixture, activation=ClippedSwiGLU(**activation))
    return ModelConfig(
        family="gpt_oss",
        vocab_size=vocab_size,
        d_model=d_model,
        layers=tuple(
            LayerConfig(AttentionConfig(**mixer, window=window), moe)
            for window in windows
        ),
        norm=NormConfig(norm_eps, cast="last"),
        tie_embeddings=tied,
        context_length=context_length(rope, max_length),
        stop_ids=stop_ids,
        pad_id=pad_id,
        generation=generation,
    )


def _weights(a: Attributes) -> WeightFormat:
    """How experts are stored; `refuse_unread` refuses any other quantisation."""
    found = a.left.get("quantization_config")
    if not isinstance(found, dict) or found.get("quant_method") != "mxfp4":
        return "inputs_first"
    del a.left["quantization_config"]
    kept = {"modules_to_not_convert": NOT_CONVERTED} | found
    names = kept.pop("modules_to_not_convert")
    same = NAMES.holds(names) and sorted(names) == sorted(NOT_CONVERTED)
    if kept != {"quant_method": "mxfp4"} or not same:
        wanted = f"mxfp4 of all modules but {quote(NOT_CONVERTED)}"
        a.wrong("quantization_config", found, wanted)
    return "mxfp4"


def _experts_per_token(a: Attributes) -> int:
    return _agreeing(a, "num_experts_per_tok", "experts_per_token", POSITIVE)


def _agreeing(a: Attributes, name: str, other: str, kind) -> int:
    """An attribute that has two names; one of them is enough, both must agree."""
    values = [a.take(n, kind, None) for n in (name, other)]
    found = [value for value in values if value is not None]
    if not found:
        a.report.missing.append(name)
    elif found[0] != found[-1]:
        a.wrong(name, values[0], f"the same as {other} = {values[1]}")
    return found[0] if found else kind.filler


def _check(a: Attributes, original_length: int):
    """Attributes that say what the code does anyway, or refuse.

    `hidden_act` among them: for "silu" transformers runs an activation of its own.
    """
    length = a.take("initial_context_length", POSITIVE, None, None)
    if length is not None and original_length and length != original_length:
        wanted = f"original_max_position_embeddings of the rope = {original_length}"
        a.wrong("initial_context_length", length, wanted)
    check_rest(a, "gpt_oss", ARCHITECTURE)


# -- tensors -------------------------------------------------------------------

EXPERTS = LAYER + "mlp.experts."
NOT_CONVERTED = [
    "model.layers.*.self_attn",
    "model.layers.*.mlp.router",
    "model.embed_tokens",
    "lm_head",
]
"""Modules that are floats beside experts in MXFP4."""

TENSORS = (
    *FRAME,
    *PROJECTIONS,
    TensorRule(ATTENTION + "sinks", MIXER + "sinks"),
    TensorRule(LAYER + "mlp.router.weight", FF + "router.weight"),
    TensorRule(LAYER + "mlp.router.bias", FF + "router.bias"),
    TensorRule(EXPERTS + "gate_up_proj", FF + "gate_up.values", merge=(1, 1, 2)),
    TensorRule(EXPERTS + "down_proj", FF + "down.values"),
    TensorRule(EXPERTS + "gate_up_proj_bias", FF + "gate_up_bias", merge=(1, 2)),
    TensorRule(EXPERTS + "down_proj_bias", FF + "down_bias"),
    *(
        TensorRule(
            f"{EXPERTS}{matrix}_proj_{part}",
            f"{FF}{matrix}.{part}",
            merge=(1, outputs, *rest),
            dtypes=("U8",),
        )
        for matrix, outputs in (("gate_up", 2), ("down", 1))
        for part, rest in (("blocks", (1, 1)), ("scales", (1,)))
    ),
)

# -- text ----------------------------------------------------------------------

MARKS = ("<|start|>", "<|channel|>", "<|constrain|>", "<|message|>", "<|end|>")
"""Special tokens of the harmony format within an answer.

An answer is several messages, each of a channel: `<|channel|>analysis<|message|>...`
thinks, `<|channel|>final<|message|>...` is what is answered. Without these tokens their
words run together. What ends an answer, <|return|> and <|call|>, is no mark.
"""

# -- sizes ---------------------------------------------------------------------

RELEASED: dict[str, dict[str, Any]] = {
    "gpt-oss-20b": {
        "architectures": [ARCHITECTURE],
        "attention_bias": True,
        "attention_dropout": 0.0,
        "eos_token_id": 200002,
        "experts_per_token": 4,
        "head_dim": 64,
        "hidden_act": "silu",
        "hidden_size": 2880,
        "initial_context_length": 4096,
        "initializer_range": 0.02,
        "intermediate_size": 2880,
        "layer_types": [FULL if i % 2 else SLIDING for i in range(24)],
        "max_position_embeddings": 131072,
        "model_type": "gpt_oss",
        "num_attention_heads": 64,
        "num_experts_per_tok": 4,
        "num_hidden_layers": 24,
        "num_key_value_heads": 8,
        "num_local_experts": 32,
        "output_router_logits": False,
        "pad_token_id": 199999,
        "quantization_config": {
            "modules_to_not_convert": NOT_CONVERTED,
            "quant_method": "mxfp4",
        },
        "rms_norm_eps": 1e-05,
        "rope_scaling": ROPE,
        "rope_theta": 150000,
        "router_aux_loss_coef": 0.9,
        "sliding_window": 128,
        "swiglu_limit": 7.0,
        "tie_word_embeddings": False,
        "use_cache": True,
        "vocab_size": 201088,
    },
}
RELEASED["gpt-oss-120b"] = RELEASED["gpt-oss-20b"] | {
    "layer_types": [FULL if i % 2 else SLIDING for i in range(36)],
    "num_hidden_layers": 36,
    "num_local_experts": 128,
}
"""config.json of openai/gpt-oss-20b and openai/gpt-oss-120b."""

# Heads and experts that divide over eight devices; a limit that binds (7 would not).
_TEST: dict[str, Any] = {
    "architectures": [ARCHITECTURE],
    "eos_token_id": 7,
    "head_dim": 16,
    "hidden_size": 64,
    "intermediate_size": 48,
    "max_position_embeddings": 131072,
    "model_type": "gpt_oss",
    "num_attention_heads": 8,
    "num_experts_per_tok": 4,
    "num_hidden_layers": 4,
    "num_key_value_heads": 2,
    "num_local_experts": 16,
    "pad_token_id": 1,
    "rope_scaling": ROPE,
    "rope_theta": 150000,
    "sliding_window": 8,
    "swiglu_limit": 1.0,
    "vocab_size": 96,
}

GPT_OSS = Family(
    name="gpt_oss",
    model_type="gpt_oss",
    architectures=(ARCHITECTURE,),
    read_config=read_config,
    tensors=TENSORS,
    ignored=BOOKKEEPING,
    tied=(("head.weight", "embed.weight"),),
    marks=MARKS,
    formats=("MXFP4",),
    released=RELEASED,
    test_configs=(
        _TEST,
        _TEST
        | {
            "attention_bias": False,
            "layer_types": [FULL, SLIDING, SLIDING, FULL],
            "rope_scaling": None,
            "tie_word_embeddings": True,
        },
        _TEST
        | {
            "intermediate_size": 96,
            "quantization_config": RELEASED["gpt-oss-20b"]["quantization_config"],
        },
    ),
)
