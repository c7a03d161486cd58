"""Qwen3-MoE: experts as 2-D tensors each, or fused into 3-D stacks."""

from convert.rules import Family, Rule

_LAYER = "model.layers.{i}."
_ATTENTION = _LAYER + "self_attn."
_EXPERT = _LAYER + "mlp.experts.{e}."
_MIXER = "layers.{i}.mixer."
_FF = "layers.{i}.feed_forward."
# Stated, because it tells the dense gate_up [2, F, D] from the experts' [E, 2, F, D].
_2D = (1, 1)
_3D = (1, 1, 1)

QWEN3_MOE = Family(
    name="qwen3_moe",
    rules=(
        Rule("model.embed_tokens.weight", "embed.weight"),
        Rule("model.norm.weight", "final_norm.scale"),
        Rule("lm_head.weight", "head.weight"),
        Rule(_LAYER + "input_layernorm.weight", "layers.{i}.mixer_norm.scale"),
        Rule(_LAYER + "post_attention_layernorm.weight", "layers.{i}.ff_norm.scale"),
        # Attention: [H*A, D] is [H, A, D], [D, H*A] is [D, H, A].
        Rule(_ATTENTION + "q_proj.weight", _MIXER + "q.weight", merge=(2, 1)),
        Rule(_ATTENTION + "k_proj.weight", _MIXER + "k.weight", merge=(2, 1)),
        Rule(_ATTENTION + "v_proj.weight", _MIXER + "v.weight", merge=(2, 1)),
        Rule(_ATTENTION + "o_proj.weight", _MIXER + "o.weight", merge=(1, 2)),
        Rule(_ATTENTION + "q_proj.bias", _MIXER + "q.bias", merge=(2,)),
        Rule(_ATTENTION + "k_proj.bias", _MIXER + "k.bias", merge=(2,)),
        Rule(_ATTENTION + "v_proj.bias", _MIXER + "v.bias", merge=(2,)),
        Rule(_ATTENTION + "o_proj.bias", _MIXER + "o.bias"),
        Rule(_ATTENTION + "q_norm.weight", _MIXER + "q_norm.scale"),
        Rule(_ATTENTION + "k_norm.weight", _MIXER + "k_norm.scale"),
        # Mixture layers: gate_up [E, 2, F, D] and down [E, D, F].
        Rule(_LAYER + "mlp.gate.weight", _FF + "router.weight"),
        Rule(_EXPERT + "gate_proj.weight", _FF + "gate_up", place=("e", 0), merge=_2D),
        Rule(_EXPERT + "up_proj.weight", _FF + "gate_up", place=("e", 1), merge=_2D),
        Rule(_EXPERT + "down_proj.weight", _FF + "down", place=("e",), merge=_2D),
        Rule(_LAYER + "mlp.experts.gate_up_proj", _FF + "gate_up", merge=(1, 2, 1)),
        Rule(_LAYER + "mlp.experts.down_proj", _FF + "down", merge=_3D),
        # Dense layers: gate_up [2, F, D] and down [D, F].
        Rule(_LAYER + "mlp.gate_proj.weight", _FF + "gate_up", place=(0,), merge=_2D),
        Rule(_LAYER + "mlp.up_proj.weight", _FF + "gate_up", place=(1,), merge=_2D),
        Rule(_LAYER + "mlp.down_proj.weight", _FF + "down", merge=_2D),
    ),
    ignored=("*.rotary_emb.inv_freq",),
    tied=(("head.weight", "embed.weight"),),
)
