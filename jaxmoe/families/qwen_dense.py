"""Dense Qwen3 and Qwen2 (and Qwen2.5): a base of verifiers, and models to compare with.

Qwen2 has biases of queries, keys and values; Qwen3 norms queries and keys instead.
"""

from collections.abc import Callable
from typing import Any

from jaxmoe.config import ModelConfig
from jaxmoe.families.attributes import COUNT, FLAG, POSITIVE, Attributes
from jaxmoe.families.base import Family
from jaxmoe.families.common_config import (
    Common,
    check_rest,
    read_common,
    read_windows,
    stacked,
)
from jaxmoe.families.common_tensors import (
    BOOKKEEPING,
    DENSE,
    FRAME,
    HEAD_NORMS,
    PROJECTIONS,
)

QWEN3_CLASS, QWEN2_CLASS = "Qwen3ForCausalLM", "Qwen2ForCausalLM"


def read_qwen3(a: Attributes, g: Attributes) -> ModelConfig:
    """The Qwen3 that config.json `a` and generation_config.json `g` describe."""
    bias = a.take("attention_bias", FLAG, False)
    c = read_common(a, g, max_length=32768, head_dim=128, kv_heads=32)
    more = {"qkv_bias": bias, "output_bias": bias, "qk_norm": "head"}
    make = _model(a, c, more)
    check_rest(a, "qwen3", QWEN3_CLASS)
    return make("qwen3")


def read_qwen2(a: Attributes, g: Attributes) -> ModelConfig:
    """The Qwen2 that config.json `a` and generation_config.json `g` describe."""
    make = read_qwen2_layers(a, g)
    check_rest(a, "qwen2", QWEN2_CLASS)
    return make("qwen2")


def read_qwen2_layers(a: Attributes, g: Attributes) -> Callable[[str], ModelConfig]:
    """A dense Qwen2 by the name of its family, built once the file is known."""
    c = read_common(a, g, max_length=32768, kv_heads=32)
    return _model(a, c, {"qkv_bias": True, "qk_norm": None})


def _model(
    a: Attributes, c: Common, mixer: dict[str, Any]
) -> Callable[[str], ModelConfig]:
    hidden = a.take("intermediate_size", POSITIVE)
    window = a.take("sliding_window", COUNT, 4096, None)
    used = a.take("use_sliding_window", FLAG, False)
    first = a.take("max_window_layers", COUNT, 28, 28)
    window = window if used else None
    sliding = [window is not None and i >= first for i in range(c.num_layers)]
    windows = read_windows(a, c.num_layers, window, sliding)

    def make(family: str) -> ModelConfig:
        mixers = [c.attention(**mixer, window=each) for each in windows]
        return c.model(family, stacked(mixers, c.num_layers, hidden, None))

    return make


_QWEN3_8B: dict[str, Any] = {
    "architectures": [QWEN3_CLASS],
    "model_type": "qwen3",
    "attention_bias": False,
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "head_dim": 128,
    "hidden_act": "silu",
    "hidden_size": 4096,
    "intermediate_size": 12288,
    "max_position_embeddings": 40960,
    "max_window_layers": 36,
    "num_attention_heads": 32,
    "num_hidden_layers": 36,
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-06,
    "rope_scaling": None,
    "rope_theta": 1000000,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "use_sliding_window": False,
    "vocab_size": 151936,
}
_QWEN2_7B: dict[str, Any] = {
    "architectures": [QWEN2_CLASS],
    "model_type": "qwen2",
    "bos_token_id": 151643,
    "eos_token_id": 151645,
    "hidden_act": "silu",
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "max_position_embeddings": 32768,
    "max_window_layers": 28,
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-06,
    "rope_theta": 1000000.0,
    "sliding_window": 131072,
    "tie_word_embeddings": False,
    "use_sliding_window": False,
    "vocab_size": 152064,
}
_TEST = {
    "vocab_size": 97,
    "hidden_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 8,
    "num_key_value_heads": 2,
    "intermediate_size": 40,
    "max_position_embeddings": 256,
    "use_sliding_window": True,
    "sliding_window": 16,
    "max_window_layers": 2,
}
_TEST3 = _TEST | {
    "architectures": [QWEN3_CLASS],
    "model_type": "qwen3",
    "head_dim": 16,
    "attention_bias": True,
}
_TEST2 = _TEST | {"architectures": [QWEN2_CLASS], "model_type": "qwen2"}

QWEN3 = Family(
    name="qwen3",
    model_type="qwen3",
    architectures=(QWEN3_CLASS,),
    read_config=read_qwen3,
    tensors=(*FRAME, *PROJECTIONS, *HEAD_NORMS, *DENSE),
    ignored=BOOKKEEPING,
    tied=(("head.weight", "embed.weight"),),
    released={"qwen3-8b": _QWEN3_8B},
    test_configs=(_TEST3,),
)
QWEN2 = Family(
    name="qwen2",
    model_type="qwen2",
    architectures=(QWEN2_CLASS,),
    read_config=read_qwen2,
    tensors=(*FRAME, *PROJECTIONS, *DENSE),
    ignored=BOOKKEEPING,
    tied=(("head.weight", "embed.weight"),),
    released={"qwen2.5-7b": _QWEN2_7B},
    test_configs=(_TEST2 | {"tie_word_embeddings": True},),
)
