"""The JSON files of a random Qwen3-MoE model, in the form that transformers writes."""

import json
import shutil
from pathlib import Path
from typing import Any

from jaxmoe.benchmarks import presets
from jaxmoe.text.tokenizer import TOKENIZER_FILES, Tokenizer

PRESETS = ("tiny", "small", "bench")
"""Of `jaxmoe.benchmarks.presets`, those to write to a disk."""
SAMPLING = {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95}


def preset(name: str, changes: dict[str, Any]) -> dict[str, Any]:
    """The attributes of config.json, before the tokenizer's."""
    return presets.PRESETS[name].attributes | changes


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
