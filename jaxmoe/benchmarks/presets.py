"""Shapes to measure, as config.json has them: from tiny to released ones.

A preset also says how long a prompt its decoding starts from.
"""

import math
from dataclasses import dataclass
from typing import Any

from jaxmoe.config import ModelConfig
from jaxmoe.families.config_json import from_hf
from jaxmoe.families.registry import released_config
from jaxmoe.nn.decoder import abstract_params

COMMON: dict[str, Any] = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "attention_bias": False,
    "bos_token_id": None,
    "decoder_sparse_step": 1,
    "dtype": "bfloat16",
    "hidden_act": "silu",
    "max_position_embeddings": 32768,
    "mlp_only_layers": [],
    "model_type": "qwen3_moe",
    "norm_topk_prob": True,
    "rms_norm_eps": 1e-6,
    "rope_parameters": {"rope_theta": 1e6, "rope_type": "default"},
    "tie_word_embeddings": False,
    "use_sliding_window": False,
}
NAMES = (
    *("num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads"),
    *("head_dim", "num_local_experts", "num_experts_per_tok", "moe_intermediate_size"),
    *("intermediate_size", "vocab_size"),
)


@dataclass(frozen=True)
class Preset:
    """shape: values of `NAMES`, or the name of a released model (`Family.released`).

    prompt: tokens before the first step of decoding. prefills: lengths of prompt whose
    prefill is timed.
    """

    shape: tuple[int, ...] | str
    prompt: int = 128
    prefills: tuple[int, ...] = (128, 1024)

    @property
    def attributes(self) -> dict[str, Any]:
        """What config.json would hold."""
        if isinstance(self.shape, str):
            released = released_config(self.shape)
            assert released is not None, self.shape
            return released
        return COMMON | dict(zip(NAMES, self.shape, strict=True))

    @property
    def config(self) -> ModelConfig:
        """The same, read."""
        return from_hf(self.attributes)


PRESETS = {
    "tiny": Preset((3, 64, 4, 2, 16, 16, 4, 32, 128, 1024), 16, (16, 64)),
    "small": Preset((4, 256, 8, 2, 32, 64, 8, 64, 512, 4096)),
    "bench": Preset(
        (4, 1024, 16, 4, 128, 128, 8, 384, 3072, 32000), 128, (16, 128, 512, 1024)
    ),
    "30b-8": Preset(
        (8, 2048, 32, 4, 128, 128, 8, 768, 6144, 151936), 1024, (1024, 4096)
    ),
    "30b": Preset(
        (48, 2048, 32, 4, 128, 128, 8, 768, 6144, 151936), 1024, (1024, 4096)
    ),
    "next-80b": Preset("next-80b", 1024, (1024, 4096)),
}


def default(backend: str) -> str:
    """The preset for a machine, where none is asked for."""
    return "bench" if backend == "cpu" else "30b"


def largest_for(backend: str, memory: int | None) -> str:
    """The largest preset whose bfloat16 weights leave a sixth of the memory free.

    memory: bytes of one device; None where it does not say.
    """
    first = default(backend)
    if memory is None or backend == "cpu":
        return first
    for name in reversed(list(PRESETS)[: list(PRESETS).index(first) + 1]):
        weights = 2 * sum(
            math.prod(leaf.shape)
            for leaf in abstract_params(PRESETS[name].config).values()
        )
        if weights * 6 / 5 <= memory:
            return name
    return list(PRESETS)[0]


def makes_weights(preset: str, backend: str) -> bool:
    """Whether a machine of this kind has room for the weights of a preset."""
    order = list(PRESETS)
    return order.index(preset) <= order.index(default(backend))
