"""DeepSeek-V2 (arXiv 2405.04434): its config.json, its tensors, its released sizes.

Latent attention; dense layers first, then mixtures with shared experts. The chosen
experts' probabilities are multiplied by a constant and not divided by their sum. The
large model chooses groups of experts first, by the best expert of each.
"""

from collections.abc import Callable
from typing import Any

from jaxmoe.config import ModelConfig, MoEConfig, SharedConfig
from jaxmoe.families.attributes import EXPERT_COUNT, POSITIVE, REAL, TEXT, Attributes
from jaxmoe.families.base import Family
from jaxmoe.families.common_config import check_rest, dense_first, stacked
from jaxmoe.families.common_tensors import (
    BOOKKEEPING,
    DENSE,
    EXPERTS,
    FRAME,
    LATENTS,
    shared_expert,
)
from jaxmoe.families.latent_attention import IGNORED, read_latent
from jaxmoe.router.scores import Groups, SoftmaxScores

ARCHITECTURE = "DeepseekV2ForCausalLM"
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
    c, mixer = read_latent(a, g, max_length=2048, eos=2)
    moe = _mixture(a)
    first, dense = dense_first(a, c.num_layers, 0)
    check_rest(a, "deepseek_v2", ARCHITECTURE, ignored=IGNORED, neutral=NEUTRAL)
    mixers = [mixer()] * c.num_layers
    return c.model("deepseek_v2", stacked(mixers, first, dense, moe()))


def _mixture(a: Attributes) -> Callable[[], MoEConfig]:
    """The mixture, built once the whole file is known to be good."""
    hidden = a.take("moe_intermediate_size", POSITIVE)
    shared = a.take("n_shared_experts", POSITIVE, 2, None)
    experts = a.take("n_routed_experts", EXPERT_COUNT, 64)
    chosen = a.take("num_experts_per_tok", POSITIVE)
    scoring = _scoring(a)

    def make() -> MoEConfig:
        beside = None if shared is None else SharedConfig(shared * hidden)
        return MoEConfig(experts, chosen, hidden, scoring(), shared=beside)

    return make


def _scoring(a: Attributes) -> Callable[[], SoftmaxScores]:
    method = a.take("topk_method", TEXT, "greedy", "greedy")
    scale = a.take("routed_scaling_factor", REAL, 1.0)
    count = a.take("n_group", POSITIVE, None, None)
    kept = a.take("topk_group", POSITIVE, None, None)
    grouped = method == "group_limited_greedy"
    if not grouped and method != "greedy":
        a.wrong("topk_method", method, '"greedy" or "group_limited_greedy"')
    for name, value in (("n_group", count), ("topk_group", kept)):
        if grouped and value is None:
            a.wrong(name, value, "a positive integer, for group_limited_greedy")
    if grouped and count and kept and kept > count:
        a.wrong("topk_group", kept, f"at most n_group = {count}")

    def make() -> SoftmaxScores:
        groups = Groups(count, kept, best=1) if grouped else None
        return SoftmaxScores(
            normalise=False, weight_type="float32", scale=scale, groups=groups
        )

    return make


# -- tensors -------------------------------------------------------------------

TENSORS = (
    *FRAME,
    *LATENTS,
    *EXPERTS,
    *shared_expert("shared_experts"),
    *DENSE,
)

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
