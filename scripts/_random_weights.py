"""Random weights for a model."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from _weight_files import write_weights

from jaxmoe.checkpoints.safetensors import Tensor

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


def write_random(
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
