"""ERNIE 4.5 (`ernie4_5_moe`): config.json, tensors, released size.

Neighbouring coordinates of heads turn together. Experts are scored by a softmax and
chosen by it plus a bias; the sum that weights are divided by is bounded from below.
"""

from dataclasses import replace
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
    POSITIVE,
    REAL,
    Attributes,
    Kind,
)
from jaxmoe.families.base import Family, TensorRule
from jaxmoe.families.common_config import check_rest, read_common, require
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

ARCHITECTURE = "Ernie4_5_MoeForCausalLM"
END = Kind(
    "a layer, or -1 for the last",
    lambda x: isinstance(x, int) and not isinstance(x, bool) and -1 <= x < 2**31,
    -1,
)
IGNORED = {
    "where remote code lies": "auto_map",
    "training only": "moe_capacity moe_aux_loss_lambda moe_group",
    "layers after the last, which predict further tokens": "num_nextn_predict_layers",
}
NEUTRAL: dict[str, Any] = {
    "moe_gate": "topk",
    "moe_use_aux_free": True,
    "use_rmsnorm": True,
}


def read_config(a: Attributes, g: Attributes) -> ModelConfig:
    """The model that config.json `a` and generation_config.json `g` describe."""
    c = read_common(
        a,
        g,
        max_length=131072,
        eps=1e-5,
        theta=500_000.0,
        kv_heads=4,
        tied=True,
        eos=2,
        pad=0,
    )
    start = a.take("moe_layer_start_index", COUNT, 1)
    end = a.take("moe_layer_end_index", END, -1)
    step = a.take("moe_layer_interval", POSITIVE, 1)
    end = c.num_layers - 1 if end == -1 else end
    mixtures = {i for i in range(start, end + 1) if (i + 1) % step == 0}
    dense = a.take("intermediate_size", POSITIVE, 12288)
    hidden = a.take("moe_intermediate_size", POSITIVE)
    experts = a.take("moe_num_experts", EXPERT_COUNT)
    chosen = a.take("moe_k", POSITIVE)
    shared = a.take("moe_num_shared_experts", COUNT, 2, 0)
    least = a.take("moe_norm_min", REAL, 1e-12)
    # It would add biases to every projection.
    require(a, use_bias=False)
    check_rest(a, "ernie4_5_moe", ARCHITECTURE, ignored=IGNORED, neutral=NEUTRAL)
    moe = MoEConfig(
        experts,
        chosen,
        hidden,
        SoftmaxScores(True, least, choice_bias=True),
        shared=SharedConfig(shared * hidden) if shared else None,
    )
    mixer = c.attention(qk_norm=None)
    mixer = replace(mixer, rope=replace(mixer.rope, pairs="neighbours"))
    layers = [
        LayerConfig(mixer, moe if i in mixtures else DenseConfig(dense))
        for i in range(c.num_layers)
    ]
    return c.model("ernie4_5_moe", layers)


TENSORS = (
    *FRAME,
    *PROJECTIONS,
    *EXPERTS,
    TensorRule(
        LAYER + "mlp.moe_statics.e_score_correction_bias",
        FF + "router.choice_bias",
        merge=(0, 1),
    ),
    *shared_expert("shared_experts"),
    *DENSE,
)

_RELEASED: dict[str, Any] = {
    "architectures": [ARCHITECTURE],
    "model_type": "ernie4_5_moe",
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_act": "silu",
    "hidden_size": 2560,
    "intermediate_size": 12288,
    "max_position_embeddings": 131072,
    "moe_intermediate_size": 1536,
    "moe_k": 6,
    "moe_layer_end_index": 27,
    "moe_layer_interval": 1,
    "moe_layer_start_index": 1,
    "moe_num_experts": 64,
    "moe_num_shared_experts": 2,
    "num_attention_heads": 20,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "pad_token_id": 0,
    "rms_norm_eps": 1e-05,
    "rope_scaling": None,
    "rope_theta": 500000.0,
    "tie_word_embeddings": True,
    "use_bias": False,
    "vocab_size": 103424,
}

_TEST = {
    "architectures": [ARCHITECTURE],
    "model_type": "ernie4_5_moe",
    "vocab_size": 97,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "intermediate_size": 40,
    "moe_intermediate_size": 24,
    "moe_num_experts": 16,
    "moe_k": 4,
    "max_position_embeddings": 256,
}

ERNIE4_5_MOE = Family(
    name="ernie4_5_moe",
    model_type="ernie4_5_moe",
    architectures=(ARCHITECTURE,),
    read_config=read_config,
    tensors=TENSORS,
    ignored=BOOKKEEPING,
    beyond=("model.mtp_", LAYER),
    tied=(("head.weight", "embed.weight"),),
    released={"ernie-4.5-21b-a3b": _RELEASED},
    test_configs=(
        _TEST,
        # A least sum that binds in most rows.
        _TEST
        | {"moe_norm_min": 0.5, "moe_num_shared_experts": 0}
        | {"moe_layer_start_index": 0, "moe_layer_interval": 2}
        | {"tie_word_embeddings": False},
    ),
)
