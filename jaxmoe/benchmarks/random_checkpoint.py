"""A Hugging Face checkpoint of Qwen3-MoE with random weights, for trying things."""

import json
import math
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from jaxmoe.benchmarks.presets import PRESETS as SHAPES
from jaxmoe.checkpoints.hf_files import write_weights
from jaxmoe.checkpoints.safetensors import Tensor
from jaxmoe.checkpoints.small_files import TOKENIZER_FILES
from jaxmoe.text.babble import BYTES, write_tokenizer
from jaxmoe.text.tokenizer import Tokenizer

PRESETS = ("tiny", "small", "bench")
"""Of `jaxmoe.benchmarks.presets`, those to write to a disk."""
SAMPLING = {"do_sample": True, "temperature": 0.6, "top_k": 20, "top_p": 0.95}
GAINS = {"mlp.gate.weight": 2.5, "lm_head.weight": 3.0}
"""Over 1 / sqrt(fan-in): routers that are sharp, next tokens neither sure nor noise."""


def write_checkpoint(
    out: Path,
    *,
    preset: str = "tiny",
    seed: int = 0,
    changes: Mapping[str, Any] | None = None,
    tokenizer: Path | None = None,
) -> int:
    """Writes the directory `out`, under a temporary name until it is complete.

    Args:
      preset: one of `PRESETS`.
      seed: of the weights.
      changes: attributes of config.json in place of the preset's.
      tokenizer: a directory whose tokenizer is copied; None for bytes and syllables.

    Returns:
      The bytes of the weights.

    Raises:
      FileExistsError: `out` is there.
      FileNotFoundError: no tokenizer.json in `tokenizer`.
      ValueError: attributes that make no model.
    """
    if out.exists() or out.is_symlink():
        raise FileExistsError(f"{out} exists; remove it or choose another")
    parent = out.resolve().parent
    parent.mkdir(parents=True, exist_ok=True)
    config = SHAPES[preset].attributes | dict(changes or {})
    with tempfile.TemporaryDirectory(dir=parent, prefix=".random-") as scratch:
        made = Path(scratch) / "made"
        made.mkdir()
        nbytes = _write(made, config, seed, tokenizer)
        made.rename(out)
    return nbytes


def _write(
    directory: Path, config: dict[str, Any], seed: int, source: Path | None
) -> int:
    if source is None:
        write_tokenizer(directory, config["vocab_size"])
    else:
        _copy_tokenizer(source, directory)
    tokenizer = Tokenizer.load(directory)
    if tokenizer is None:
        raise FileNotFoundError(f"expected tokenizer.json in {source}, found none")
    config = _write_configs(directory, config, tokenizer)
    head_scale = np.ones(tokenizer.vocab_size, np.float32)
    if source is None:
        head_scale[:BYTES] = 0  # few single bytes are text
    if tokenizer.eos_id is not None:
        head_scale[tokenizer.eos_id] = 2  # answers of tens of tokens, not thousands
    return _write_weights(directory, config, seed, head_scale)


def _write_configs(
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


def _copy_tokenizer(source: Path, directory: Path) -> None:
    """Copies the files of `source` that describe its tokenizer."""
    for path in (path for name in TOKENIZER_FILES for path in source.glob(name)):
        target = directory / path.relative_to(source)
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, target)


def _values(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    values = rng.standard_normal(shape, np.float32)
    if name.endswith("norm.weight"):
        return 1 + 0.1 * values
    if name.endswith(("embed_tokens.weight", ".bias")):
        return values
    gain = next((g for end, g in GAINS.items() if name.endswith(end)), 1.0)
    return values * np.float32(gain / math.sqrt(shape[-1]))


def _write_weights(
    directory: Path, config: dict[str, Any], seed: int, head_scale: np.ndarray
) -> int:
    """Writes random safetensors; their bytes.

    head_scale: float32 [V], multiplies the rows of the output head: 0 keeps a token
      from being likely, more than 1 lets it be likely now and then.
    """
    rng = np.random.default_rng(seed)

    def values(tensor: Tensor) -> np.ndarray:
        drawn = _values(tensor.name, tensor.shape, rng)
        return drawn * head_scale[:, None] if tensor.name == "lm_head.weight" else drawn

    return write_weights(directory, config, values)
