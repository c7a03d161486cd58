"""DeepSeek-V2 (arXiv 2405.04434): its config.json, its tensors, its released sizes.

Latent attention; dense layers first, then mixtures with shared experts. The chosen
experts' probabilities are multiplied by a constant and not divided by their sum. The
large model chooses groups of experts first, by the best expert of each.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from jaxmoe.config import (
    DenseConfig,
    LayerConfig,
    ModelConfig,
    MoEConfig,
    NormConfig,
    SharedConfig,
)
from jaxmoe.families.attributes import (
    COUNT,
    EXPERT_COUNT,
    FLAG,
    LAYER_COUNT,
    NAMES,
    POSITIVE,
    REAL,
    TEXT,
    Attributes,
    quote,
)
from jaxmoe.families.base import Family
from jaxmoe.families.common_tensors import (
    BOOKKEEPING,
    DENSE,
    EXPERTS,
    FRAME,
    LATENTS,
    SHARED_EXPERTS,
)
from jaxmoe.families.generation import read_generation, read_token_ids
from jaxmoe.families.latent_attention import read_latent_attention
from jaxmoe.families.rope import context_length
from jaxmoe.families.unread import refuse_unread
from jaxmoe.router.scores import Groups, SoftmaxScores

ARCHITECTURE = "DeepseekV2ForCausalLM"
EOS = 2
"""What transformers takes where config.json names none."""

IGNORED = {
    "training only": "aux_loss_alpha seq_aux",
    "how the original code was run": "auto_map ep_size pretraining_tp",
}
"""Names of the attributes that change no answer, by the reason why."""

NEUTRAL: dict[str, Any] = {
    "attention_bias": False,
    "mlp_bias": False,
    "moe_layer_freq": 1,
    "norm_topk_prob": False,
    "scoring_func": "softmax",
}
"""Attributes accepted at this value. transformers reads none of the last three."""


def read_config(a: Attributes, g: Attributes) -> ModelConfig:
    """The model that config.json `a` and generation_config.json `g` describe."""
    vocab_size = a.take("vocab_size", POSITIVE)
    d_model = a.take("hidden_size", POSITIVE)
    num_layers = a.take("num_hidden_layers", LAYER_COUNT)
    max_length = a.take("max_position_embeddings", POSITIVE, 2048)
    mixer, rope = read_latent_attention(a, max_length, "neighbours")
    scoring = _scoring(a)
    feed_forwards = read_feed_forwards(a, num_layers, scoring, dense=0, shared=2)
    norm = a.take("rms_norm_eps", REAL, 1e-6)
    tied = a.take("tie_word_embeddings", FLAG, False)
    stop_ids, pad_id = read_token_ids(a, g, vocab_size, eos=EOS)
    generation = read_generation(g)
    check_names(a, ARCHITECTURE)
    refuse_unread(a, IGNORED, NEUTRAL)
    a.report.raise_if_any("deepseek_v2")
    return ModelConfig(
        family="deepseek_v2",
        vocab_size=vocab_size,
        d_model=d_model,
        layers=tuple(LayerConfig(mixer(), make()) for make in feed_forwards),
        norm=NormConfig(norm),
        tie_embeddings=tied,
        context_length=context_length(rope, max_length),
        stop_ids=stop_ids,
        pad_id=pad_id,
        generation=generation,
    )


def read_feed_forwards(
    a: Attributes,
    num_layers: int,
    scoring: Callable[[], Any],
    *,
    dense: int,
    shared: int,
) -> Sequence[Callable[[], DenseConfig | MoEConfig]]:
    """A dense feed-forward for the first layers, a mixture for the rest.

    Args:
      a: config.json.
      num_layers: how many there are.
      scoring: makes the rule, once the whole file is known to be good.
      dense, shared: the family's own `first_k_dense_replace`, `n_shared_experts`.
    """
    first = min(num_layers, a.take("first_k_dense_replace", COUNT, dense))
    # Released configs state it even where no layer uses it.
    missing = {} if first else {"default": 0, "null": 0}
    mlp = partial(DenseConfig, a.take("intermediate_size", POSITIVE, **missing))
    hidden = a.take("moe_intermediate_size", POSITIVE)
    number = a.take("n_shared_experts", POSITIVE, shared, None)
    num_experts = a.take("n_routed_experts", EXPERT_COUNT)
    chosen = a.take("num_experts_per_tok", POSITIVE)

    def moe() -> MoEConfig:
        beside = None if number is None else SharedConfig(number * hidden)
        return MoEConfig(num_experts, chosen, hidden, scoring(), shared=beside)

    return [mlp] * first + [moe] * (num_layers - first)


def _scoring(a: Attributes) -> Callable[[], SoftmaxScores]:
    method = a.take("topk_method", TEXT, "greedy", "greedy")
    scale = a.take("routed_scaling_factor", REAL, 1.0)
    count = a.take("n_group", COUNT, None, None)
    kept = a.take("topk_group", COUNT, None, None)
    grouped = method == "group_limited_greedy"
    if not grouped and method != "greedy":
        a.wrong("topk_method", method, '"greedy" or "group_limited_greedy"')
    for name, value in (("n_group", count), ("topk_group", kept)):
        if grouped and not value:
            a.wrong(name, value, "a positive integer, for group_limited_greedy")

    def make() -> SoftmaxScores:
        groups = Groups(count, kept, best=1) if grouped else None
        return SoftmaxScores(
            normalise=False, weight_type="float32", scale=scale, groups=groups
        )

    return make


def check_names(a: Attributes, architecture: str):
    """Attributes that say what the code does anyway, or refuse."""
    if (act := a.take("hidden_act", TEXT, "silu")) != "silu":
        a.wrong("hidden_act", act, '"silu"')
    names = a.take("architectures", NAMES, [architecture], [architecture])
    if architecture not in names:
        a.wrong("architectures", names, quote([architecture]))


# -- tensors -------------------------------------------------------------------

TENSORS = (*FRAME, *LATENTS, *EXPERTS, *SHARED_EXPERTS, *DENSE)

# -- sizes ---------------------------------------------------------------------

_YARN = {
    "beta_fast": 32,
    "beta_slow": 1,
    "factor": 40,
    "mscale": 0.707,
    "mscale_all_dim": 0.707,
    "original_max_position_embeddings": 4096,
    "type": "yarn",
}

RELEASED: dict[str, dict[str, Any]] = {
    "deepseek-v2-lite": {
        "architectures": [ARCHITECTURE],
        "attention_bias": False,
        "attention_dropout": 0.0,
        "aux_loss_alpha": 0.001,
        "bos_token_id": 100000,
        "eos_token_id": 100001,
        "first_k_dense_replace": 1,
        "hidden_act": "silu",
        "hidden_size": 2048,
        "initializer_range": 0.02,
        "intermediate_size": 10944,
        "kv_lora_rank": 512,
        "max_position_embeddings": 163840,
        "model_type": "deepseek_v2",
        "moe_intermediate_size": 1408,
        "moe_layer_freq": 1,
        "n_group": 1,
        "n_routed_experts": 64,
        "n_shared_experts": 2,
        "norm_topk_prob": False,
        "num_attention_heads": 16,
        "num_experts_per_tok": 6,
        "num_hidden_layers": 27,
        "num_key_value_heads": 16,
        "pretraining_tp": 1,
        "q_lora_rank": None,
        "qk_nope_head_dim": 128,
        "qk_rope_head_dim": 64,
        "rms_norm_eps": 1e-06,
        "rope_scaling": _YARN,
        "rope_theta": 10000,
        "routed_scaling_factor": 1.0,
        "scoring_func": "softmax",
        "seq_aux": True,
        "tie_word_embeddings": False,
        "topk_group": 1,
        "topk_method": "greedy",
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "v_head_dim": 128,
        "vocab_size": 102400,
    },
}
RELEASED["deepseek-v2"] = RELEASED["deepseek-v2-lite"] | {
    "hidden_size": 5120,
    "intermediate_size": 12288,
    "moe_intermediate_size": 1536,
    "n_group": 8,
    "n_routed_experts": 160,
    "num_attention_heads": 128,
    "num_hidden_layers": 60,
    "num_key_value_heads": 128,
    "q_lora_rank": 1536,
    "rope_scaling": _YARN | {"mscale": 1.0, "mscale_all_dim": 1.0},
    "routed_scaling_factor": 16.0,
    "topk_group": 3,
    "topk_method": "group_limited_greedy",
}
"""config.json of deepseek-ai/DeepSeek-V2-Lite and of deepseek-ai/DeepSeek-V2."""

_TEST: dict[str, Any] = {
    "architectures": [ARCHITECTURE],
    "model_type": "deepseek_v2",
    "eos_token_id": 7,
    "first_k_dense_replace": 1,
    "hidden_size": 64,
    "intermediate_size": 80,
    "kv_lora_rank": 32,
    "max_position_embeddings": 512,
    "moe_intermediate_size": 36,
    "n_routed_experts": 16,
    "n_shared_experts": 2,
    "num_attention_heads": 8,
    "num_experts_per_tok": 4,
    "num_hidden_layers": 3,
    "num_key_value_heads": 8,
    "pad_token_id": 1,
    "q_lora_rank": None,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "rms_norm_eps": 1e-5,
    "rope_scaling": _YARN | {"original_max_position_embeddings": 64},
    "v_head_dim": 12,
    "vocab_size": 96,
}
"""No two widths alike; an eps that is not the latents'."""

DEEPSEEK_V2 = Family(
    name="deepseek_v2",
    model_type="deepseek_v2",
    architectures=(ARCHITECTURE,),
    read_config=read_config,
    tensors=TENSORS,
    ignored=BOOKKEEPING,
    tied=(("head.weight", "embed.weight"),),
    released=RELEASED,
    test_configs=(
        _TEST,
        _TEST
        | {
            "n_group": 4,
            "q_lora_rank": 20,
            "routed_scaling_factor": 16.0,
            "topk_group": 2,
            "topk_method": "group_limited_greedy",
        },
        _TEST | {"tie_word_embeddings": True, "rope_scaling": None},
    ),
)
