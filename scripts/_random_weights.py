"""Random weights as Hugging Face safetensors."""

import math
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from convert import hf
from convert.families import FAMILIES
from convert.to_hf import default_layout
from jaxmoe.hf_config import from_hf
from jaxmoe.nn.decoder import abstract_params

GAINS = {"mlp.gate.weight": 2.5, "lm_head.weight": 3.0}
"""Over 1 / sqrt(fan-in): routers that are sharp, next tokens neither sure nor noise."""


def _values(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    values = rng.standard_normal(shape, np.float32)
    if name.endswith("norm.weight"):
        return 1 + 0.1 * values
    if name.endswith(("embed_tokens.weight", ".bias")):
        return values
    gain = next((g for end, g in GAINS.items() if name.endswith(end)), 1.0)
    return values * np.float32(gain / math.sqrt(shape[-1]))


def write_weights(
    directory: Path, config: dict[str, Any], seed: int, head_scale: np.ndarray
) -> int:
    """Writes bfloat16 safetensors, one 2-D tensor per expert and matrix; their bytes.

    head_scale: float32 [V], multiplies the rows of the output head: 0 keeps a token
      from being likely, more than 1 lets it be likely now and then.
    """
    parsed = from_hf(config)
    params = abstract_params(parsed, ml_dtypes.bfloat16)
    layout = default_layout(FAMILIES[parsed.family], params)
    rng = np.random.default_rng(seed)
    for header in layout.headers:
        raw = header.text.encode()
        with (directory / header.file).open("wb") as file:
            file.write(len(raw).to_bytes(8, "little") + raw)
            for tensor in sorted(header.tensors, key=lambda t: t.offset):
                values = _values(tensor.name, tensor.shape, rng)
                if tensor.name == "lm_head.weight":
                    values *= head_scale[:, None]
                file.write(values.astype(ml_dtypes.bfloat16).tobytes())
    if layout.index is not None:
        (directory / hf.INDEX).write_text(layout.index, encoding="utf-8")
    return sum(header.nbytes for header in layout.headers)
