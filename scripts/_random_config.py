"""The JSON files of a random Qwen3-MoE model, in the form that transformers writes."""

import json
import shutil
from pathlib import Path
from typing import Any

from jaxmoe.text.tokenizer import TOKENIZER_FILES, Tokenizer

CONFIG: dict[str, Any] = {
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
SHAPES = (
    *("num_hidden_layers", "hidden_size", "num_attention_heads", "num_key_value_heads"),
    *("head_dim", "num_local_experts", "num_experts_per_tok", "moe_intermediate_size"),
    *("intermediate_size", "vocab_size"),
)
PRESETS = {
    "tiny": (3, 64, 4, 2, 16, 16, 4, 32, 128, 1024),
    "small": (4, 256, 8, 2, 32, 64, 8, 64, 512, 4096),
    "bench": (4, 1024, 16, 4, 128, 128, 8, 384, 3072, 32000),
}
"""Values of `SHAPES` by name."""
SAMPLING = {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95}


def preset(name: str, changes: dict[str, Any]) -> dict[str, Any]:
    """The attributes of config.json, before the tokenizer's."""
    return CONFIG | dict(zip(SHAPES, PRESETS[name], strict=True)) | changes


def write_configs(
    directory: Path, config: dict[str, Any], tokenizer: Tokenizer
) -> dict[str, Any]:
    """Writes config.json and generation_config.json; the whole of the former."""
    end, pad = tokenizer.eos_id, tokenizer.pad_id
    ids = {"eos_token_id": end, "pad_token_id": pad}
    config = config | ids | {"vocab_size": tokenizer.vocab_size}
    stops = [i for i in dict.fromkeys((end, pad)) if i is not None]
    generation = SAMPLING | ids | {"eos_token_id": stops or None}
    files = {"config.json": config, "generation_config.json": generation}
    for name, value in files.items():
        text = json.dumps(value, indent=2, sort_keys=True) + "\n"
        (directory / name).write_text(text, encoding="utf-8")
    return config


def copy_tokenizer(source: Path, directory: Path):
    """Copies the files of `source` that describe its tokenizer."""
    for path in (path for name in TOKENIZER_FILES for path in source.glob(name)):
        target = directory / path.relative_to(source)
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, target)
