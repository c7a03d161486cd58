"""Tensor rules that families share: names and layouts that many models have.

Attention: [H*A, D] is [H, A, D], [D, H*A] is [D, H, A]. Mixture layers: gate_up
[E, 2, F, D] and down [E, D, F]. Dense layers: gate_up [2, F, D] and down [D, F].
"""

from jaxmoe.families.base import TensorRule

BOOKKEEPING = (
    "*.rotary_emb.inv_freq",
    "*.rotary_emb.original_inv_freq",
    "*._extra_state",
)
"""Patterns of tensors that follow from the config, or that a trainer left behind."""

LAYER = "model.layers.{i}."
ATTENTION = LAYER + "self_attn."
EXPERT = LAYER + "mlp.experts.{e}."
MIXER = "layers.{i}.mixer."
FF = "layers.{i}.feed_forward."
# Stated, because it tells the dense gate_up [2, F, D] from the experts' [E, 2, F, D].
_2D = (1, 1)
_3D = (1, 1, 1)

FRAME = (
    TensorRule("model.embed_tokens.weight", "embed.weight"),
    TensorRule("model.norm.weight", "final_norm.scale"),
    TensorRule("lm_head.weight", "head.weight"),
    TensorRule(LAYER + "input_layernorm.weight", "layers.{i}.mixer_norm.scale"),
    TensorRule(LAYER + "post_attention_layernorm.weight", "layers.{i}.ff_norm.scale"),
)
"""Embedding, head, and the norms before mixers and feed-forwards."""

PROJECTIONS = (
    TensorRule(ATTENTION + "q_proj.weight", MIXER + "q.weight", merge=(2, 1)),
    TensorRule(ATTENTION + "k_proj.weight", MIXER + "k.weight", merge=(2, 1)),
    TensorRule(ATTENTION + "v_proj.weight", MIXER + "v.weight", merge=(2, 1)),
    TensorRule(ATTENTION + "o_proj.weight", MIXER + "o.weight", merge=(1, 2)),
    TensorRule(ATTENTION + "q_proj.bias", MIXER + "q.bias", merge=(2,)),
    TensorRule(ATTENTION + "k_proj.bias", MIXER + "k.bias", merge=(2,)),
    TensorRule(ATTENTION + "v_proj.bias", MIXER + "v.bias", merge=(2,)),
    TensorRule(ATTENTION + "o_proj.bias", MIXER + "o.bias"),
)
"""Query, key, value and output projections."""

HEAD_NORMS = (
    TensorRule(ATTENTION + "q_norm.weight", MIXER + "q_norm.scale"),
    TensorRule(ATTENTION + "k_norm.weight", MIXER + "k_norm.scale"),
)
"""Norms of queries and keys, [A] of each head."""

PROJECTION_NORMS = (
    TensorRule(ATTENTION + "q_norm.weight", MIXER + "q_norm.scale", merge=(2,)),
    TensorRule(ATTENTION + "k_norm.weight", MIXER + "k_norm.scale", merge=(2,)),
)
"""Norms of queries and keys, [H*A] over the whole projection."""

LATENTS = (
    TensorRule(ATTENTION + "q_proj.weight", MIXER + "q", merge=(2, 1)),
    TensorRule(ATTENTION + "q_a_proj.weight", MIXER + "q_down"),
    TensorRule(ATTENTION + "q_a_layernorm.weight", MIXER + "q_norm.scale"),
    TensorRule(ATTENTION + "q_b_proj.weight", MIXER + "q_up", merge=(2, 1)),
    TensorRule(ATTENTION + "kv_a_proj_with_mqa.weight", MIXER + "kv_down"),
    TensorRule(ATTENTION + "kv_a_layernorm.weight", MIXER + "kv_norm.scale"),
    TensorRule(ATTENTION + "kv_b_proj.weight", MIXER + "kv_up", merge=(2, 1)),
    TensorRule(ATTENTION + "o_proj.weight", MIXER + "o.weight", merge=(1, 2)),
)
"""Latent attention: of kv_b's rows of a head those of its key come first."""

EXPERTS = (
    TensorRule(LAYER + "mlp.gate.weight", FF + "router.weight"),
    TensorRule(EXPERT + "gate_proj.weight", FF + "gate_up", place=("e", 0), merge=_2D),
    TensorRule(EXPERT + "up_proj.weight", FF + "gate_up", place=("e", 1), merge=_2D),
    TensorRule(EXPERT + "down_proj.weight", FF + "down", place=("e",), merge=_2D),
    TensorRule(LAYER + "mlp.experts.gate_up_proj", FF + "gate_up", merge=(1, 2, 1)),
    TensorRule(LAYER + "mlp.experts.down_proj", FF + "down", merge=_3D),
)
"""Router and experts: 2-D tensors of each, or fused into 3-D stacks."""

_BLOCK = LAYER + "block_sparse_moe."
_BLOCK_EXPERT = _BLOCK + "experts.{e}."
BLOCK_EXPERTS = (
    TensorRule(_BLOCK + "gate.weight", FF + "router.weight"),
    TensorRule(_BLOCK_EXPERT + "w1.weight", FF + "gate_up", ("e", 0), _2D),
    TensorRule(_BLOCK_EXPERT + "w3.weight", FF + "gate_up", ("e", 1), _2D),
    TensorRule(_BLOCK_EXPERT + "w2.weight", FF + "down", ("e",), _2D),
)
"""Router and experts under the names of Mixtral's."""

DENSE = (
    TensorRule(LAYER + "mlp.gate_proj.weight", FF + "gate_up", place=(0,), merge=_2D),
    TensorRule(LAYER + "mlp.up_proj.weight", FF + "gate_up", place=(1,), merge=_2D),
    TensorRule(LAYER + "mlp.down_proj.weight", FF + "down", merge=_2D),
)
"""Gated feed-forwards of dense layers."""

CHOICE_BIAS = (
    TensorRule(LAYER + "mlp.gate.e_score_correction_bias", FF + "router.choice_bias"),
)
"""What the choice of experts is biased by."""


def shared_expert(prefix: str) -> tuple[TensorRule, ...]:
    """The expert that all tokens have, named `prefix` within a layer's `mlp`."""
    name, param = LAYER + f"mlp.{prefix}.", FF + "shared."
    return (
        TensorRule(name + "gate_proj.weight", param + "gate_up", (0,), _2D),
        TensorRule(name + "up_proj.weight", param + "gate_up", (1,), _2D),
        TensorRule(name + "down_proj.weight", param + "down", merge=_2D),
    )
