"""The files of the demo model: a Hugging Face directory, and its problems."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxmoe.checkpoints.hf_files import write_params
from jaxmoe.demo.chains import draw_problems
from jaxmoe.demo.encoding import END, PATTERN, VOCAB
from jaxmoe.demo.network import HF_CONFIG
from jaxmoe.files import write_text

GENERATION = {"do_sample": True, "temperature": 0.7, "top_k": 0, "top_p": 1.0}
TOKENIZER = {
    "bos_token": None,
    "clean_up_tokenization_spaces": False,
    "eos_token": END,
    "model_max_length": HF_CONFIG["max_position_embeddings"],
    "pad_token": END,
    "tokenizer_class": "PreTrainedTokenizerFast",
    "unk_token": None,
}
IDS = {"eos_token_id": VOCAB.index(END), "pad_token_id": VOCAB.index(END)}
ATTRIBUTES = {"vocab_size": len(VOCAB)} | IDS
"""What the tokenizer says of config.json."""
PROBLEMS = 512


def write_model(
    directory: Path, params: Mapping[str, np.ndarray], attributes: dict[str, Any]
) -> None:
    """Writes config, tokenizer and bfloat16 weights into an empty directory."""
    config = HF_CONFIG | attributes
    _write_json(directory / "config.json", config)
    _write_json(directory / "generation_config.json", GENERATION | IDS)
    _write_tokenizer(directory)
    write_params(directory, config, params)


def write_problems(path: Path) -> None:
    """Writes the problems that the model is tested on."""
    rows = {
        split: [[p.prompt, band] for p, band in draw_problems(split, PROBLEMS, 0)]
        for split in ("validation", "test")
    }
    lines = (
        json.dumps(split) + ": [\n" + ",\n".join(map(json.dumps, drawn)) + "\n]"
        for split, drawn in rows.items()
    )
    write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")


def _write_json(path: Path, value: dict[str, Any]) -> None:
    text = json.dumps(value, indent=2, sort_keys=True) + "\n"
    path.write_text(text, encoding="utf-8")


def _write_tokenizer(directory: Path) -> None:
    """A token for each word of `VOCAB`; text with other words is refused."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    backend = Tokenizer(models.WordLevel({text: i for i, text in enumerate(VOCAB)}))
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(PATTERN), "isolated")
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens([END])
    backend.save(str(directory / "tokenizer.json"))
    _write_json(directory / "tokenizer_config.json", TOKENIZER)
