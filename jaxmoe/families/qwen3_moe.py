"""Qwen3-MoE: its config.json, its tensors, its released sizes.

Experts are stored as 2-D tensors each, or fused into 3-D stacks.
"""

from functools import partial
from typing import Any

from jaxmoe.config import (
    AttentionConfig,
    DenseConfig,
    LayerConfig,
    ModelConfig,
    MoEConfig,
    NormConfig,
    RopeConfig,
    SharedConfig,
)
from jaxmoe.families.attributes import (
    COUNT,
    EXPERT_COUNT,
    FLAG,
    INDICES,
    LAYER_COUNT,
    NAMES,
    POSITIVE,
    REAL,
    Attributes,
    Report,
)
from jaxmoe.families.base import Family
from jaxmoe.families.common_config import check_rest
from jaxmoe.families.common_tensors import (
    BOOKKEEPING,
    DENSE,
    EXPERTS,
    FRAME,
    HEAD_NORMS,
    PROJECTIONS,
)
from jaxmoe.families.generation import read_generation, read_token_ids
from jaxmoe.families.rope import context_length, read_rope
from jaxmoe.router.scores import SoftmaxScores

ARCHITECTURE = "Qwen3MoeForCausalLM"

IGNORED = {"not read by transformers' Qwen3-MoE": "max_window_layers"}
"""Names of the attributes that change no answer, by the reason why."""

NEUTRAL: dict[str, Any] = {
    "qkv_bias": False,
    "shared_expert_intermediate_size": 0,
    "use_qk_norm": True,
}
"""Attributes accepted at this value, which is what the model does anyway."""


# -- config.json ---------------------------------------------------------------


def read_config(a: Attributes, g: Attributes) -> ModelConfig:
    """The model that config.json `a` and generation_config.json `g` describe."""
    vocab_size = a.take("vocab_size", POSITIVE)
    d_model = a.take("hidden_size", POSITIVE)
    max_length = a.take("max_position_embeddings", POSITIVE, 32768)
    rope = read_rope(a, max_length)
    mixer = _attention(a, d_model, rope)
    feed_forwards = read_feed_forwards(a)
    norm_eps = a.take("rms_norm_eps", REAL, 1e-6)
    tied = a.take("tie_word_embeddings", FLAG, False)
    stop_ids, pad_id = read_token_ids(a, g, vocab_size)
    generation = read_generation(g)
    windowed = mixer.keywords["window"] is not None
    _check(
        a, ["sliding_attention" if windowed else "full_attention"] * len(feed_forwards)
    )
    return ModelConfig(
        family="qwen3_moe",
        vocab_size=vocab_size,
        d_model=d_model,
        layers=tuple(LayerConfig(mixer(), make()) for make in feed_forwards),
        norm=NormConfig(norm_eps),
        tie_embeddings=tied,
        context_length=context_length(rope, max_length),
        stop_ids=stop_ids,
        pad_id=pad_id,
        generation=generation,
    )


def _attention(
    a: Attributes, d_model: int, rope: RopeConfig
) -> partial[AttentionConfig]:
    """The mixer of every layer, built once the whole file is known to be good."""
    heads = a.take("num_attention_heads", POSITIVE)
    kv_heads = a.take("num_key_value_heads", POSITIVE)
    head_dim = a.take("head_dim", POSITIVE, d_model // heads, d_model // heads)
    window = a.take("sliding_window", COUNT, 4096, None)
    windowed = a.take("use_sliding_window", FLAG, False)
    if windowed and window == 0:
        a.wrong("sliding_window", 0, "a positive integer or null")
    bias = a.take("attention_bias", FLAG, False)
    return partial(
        AttentionConfig,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        rope=rope,
        qkv_bias=bias,
        output_bias=bias,
        window=window if windowed else None,
    )


def read_feed_forwards(
    a: Attributes, *, normalise: bool = False, shared: SharedConfig | None = None
) -> list[partial[MoEConfig] | partial[DenseConfig]]:
    """One per layer; dense where `mlp_only_layers` or `decoder_sparse_step` say so.

    normalise: what `norm_topk_prob` is where the file has none. shared: part of each
      mixture.
    """
    num_layers = a.take("num_hidden_layers", LAYER_COUNT)
    num_experts = _num_experts(a)
    step = a.take("decoder_sparse_step", POSITIVE, 1)
    dense = set(a.take("mlp_only_layers", INDICES, [], []))
    dense |= {i for i in range(num_layers) if not num_experts or (i + 1) % step}
    needs_dense = any(i in dense for i in range(num_layers)) and num_experts is not None
    # Released configs state it even where no layer uses it.
    missing = {} if needs_dense else {"default": 0, "null": 0}
    mlp = partial(DenseConfig, a.take("intermediate_size", POSITIVE, **missing))
    moe = partial(
        MoEConfig,
        num_experts=num_experts or 0,
        experts_per_token=a.take("num_experts_per_tok", POSITIVE),
        hidden=a.take("moe_intermediate_size", POSITIVE),
        scoring=SoftmaxScores(a.take("norm_topk_prob", FLAG, normalise)),
        shared=shared,
    )
    return [mlp if i in dense else moe for i in range(num_layers)]


def _num_experts(a: Attributes) -> int | None:
    """`num_experts`, or `num_local_experts` as transformers 5 writes it."""
    old = a.take("num_experts", EXPERT_COUNT, None)
    new = a.take("num_local_experts", EXPERT_COUNT, None)
    if old is None and new is None:
        a.report.missing.append("num_experts")
    if None not in (old, new) and old != new:
        a.wrong("num_experts", old, f"the same as num_local_experts = {new}")
    return old if new is None else new


def _check(a: Attributes, layers: list[str]):
    """Attributes that say what the code does anyway, or refuse."""
    kinds = a.take("layer_types", NAMES, layers, layers)
    if kinds != layers:
        wanted = f'"{layers[0]}" for each of {len(layers)} layers, as'
        a.wrong("layer_types", kinds, f"{wanted} use_sliding_window says")
    check_rest(a, "qwen3_moe", ARCHITECTURE, ignored=IGNORED, neutral=NEUTRAL)


# -- tensors -------------------------------------------------------------------

TENSORS = (*FRAME, *PROJECTIONS, *HEAD_NORMS, *EXPERTS, *DENSE)

# -- sizes ---------------------------------------------------------------------

RELEASED: dict[str, dict[str, Any]] = {
    "30b": {
        "architectures": ["Qwen3MoeForCausalLM"],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 151643,
        "decoder_sparse_step": 1,
        "eos_token_id": 151645,
        "head_dim": 128,
        "hidden_act": "silu",
        "hidden_size": 2048,
        "initializer_range": 0.02,
        "intermediate_size": 6144,
        "max_position_embeddings": 40960,
        "max_window_layers": 48,
        "mlp_only_layers": [],
        "model_type": "qwen3_moe",
        "moe_intermediate_size": 768,
        "norm_topk_prob": True,
        "num_attention_heads": 32,
        "num_experts": 128,
        "num_experts_per_tok": 8,
        "num_hidden_layers": 48,
        "num_key_value_heads": 4,
        "output_router_logits": False,
        "rms_norm_eps": 1e-06,
        "rope_scaling": None,
        "rope_theta": 1000000.0,
        "router_aux_loss_coef": 0.001,
        "sliding_window": None,
        "tie_word_embeddings": False,
        "torch_dtype": "bfloat16",
        "transformers_version": "4.51.0",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": 151936,
    },
}
RELEASED["235b"] = RELEASED["30b"] | {
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "max_window_layers": 94,
    "moe_intermediate_size": 1536,
    "num_attention_heads": 64,
    "num_hidden_layers": 94,
}
"""config.json of Qwen/Qwen3-30B-A3B and of Qwen/Qwen3-235B-A22B."""

RELEASED_GENERATION: dict[str, Any] = {
    "bos_token_id": 151643,
    "do_sample": True,
    "eos_token_id": [151645, 151643],
    "pad_token_id": 151643,
    "temperature": 0.6,
    "top_k": 20,
    "top_p": 0.95,
}
"""generation_config.json of both."""

_TEST: dict[str, Any] = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "head_dim": 8,
    "hidden_size": 32,
    "max_position_embeddings": 256,
    "model_type": "qwen3_moe",
    "moe_intermediate_size": 16,
    "norm_topk_prob": True,
    "num_attention_heads": 4,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "num_hidden_layers": 3,
    "num_key_value_heads": 2,
    "vocab_size": 64,
}

WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How the tokenizer cuts text, as its released tokenizer.json says."""

QWEN3_MOE = Family(
    name="qwen3_moe",
    model_type="qwen3_moe",
    architectures=(ARCHITECTURE,),
    read_config=read_config,
    tensors=TENSORS,
    ignored=BOOKKEEPING,
    tied=(("head.weight", "embed.weight"),),
    byte_level=dict.fromkeys(("Qwen2Tokenizer", "Qwen2TokenizerFast"), WORDS),
    formats=("FP8",),
    released=RELEASED,
    test_configs=(
        _TEST,
        _TEST | {"mlp_only_layers": [1], "intermediate_size": 48},
        _TEST | {"tie_word_embeddings": True, "norm_topk_prob": False},
        _TEST | {"attention_bias": True},
        _TEST | {"use_sliding_window": True, "sliding_window": 16},
    ),
)


def _released(size: str) -> ModelConfig:
    report = Report()
    return read_config(
        Attributes(RELEASED[size], report), Attributes(RELEASED_GENERATION, report)
    )


QWEN3_30B_A3B = _released("30b")
"""Shapes of Qwen/Qwen3-30B-A3B (no weights)."""

QWEN3_235B_A22B = _released("235b")
"""Shapes of Qwen/Qwen3-235B-A22B (no weights)."""
