"""Weights as Hugging Face safetensors: bfloat16, a 2-D tensor per expert and matrix."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from convert.to_hf import Layout, default_layout
from jaxmoe.checkpoints import safetensors, weight_files
from jaxmoe.checkpoints.plan import make_plan
from jaxmoe.config import ModelConfig
from jaxmoe.families.config_json import from_hf
from jaxmoe.families.registry import family_of
from jaxmoe.nn.decoder import abstract_params


def write_weights(
    directory: Path,
    config: dict[str, Any],
    values: Callable[[safetensors.Tensor], np.ndarray],
) -> int:
    """Writes the tensors of a model, whose `values` are asked in order; their bytes."""
    layout = _layout(from_hf(config))
    for header in layout.headers:
        raw = header.text.encode()
        with (directory / header.file).open("wb") as file:
            file.write(len(raw).to_bytes(8, "little") + raw)
            for tensor in sorted(header.tensors, key=lambda t: t.offset):
                file.write(values(tensor).astype(ml_dtypes.bfloat16).tobytes())
    if layout.index is not None:
        (directory / weight_files.INDEX).write_text(layout.index, encoding="utf-8")
    return sum(header.nbytes for header in layout.headers)


def write_params(
    directory: Path, config: dict[str, Any], params: Mapping[str, np.ndarray]
) -> int:
    """Writes weights that have our names (`jaxmoe.nn.decoder.abstract_params`)."""
    parsed = from_hf(config)
    tensors = {t.name: t for h in _layout(parsed).headers for t in h.tensors}
    plan = make_plan(family_of(parsed), tensors, abstract_params(parsed))
    places = {
        piece.tensor.name: (fill.param, piece)
        for fill in plan.fills.values()
        for piece in fill.pieces
    }

    def values(tensor: safetensors.Tensor) -> np.ndarray:
        param, piece = places[tensor.name]
        part = params[param].reshape(-1)[piece.start : piece.stop]
        return part.reshape(tensor.shape)

    return write_weights(directory, config, values)


def _layout(config: ModelConfig) -> Layout:
    params = abstract_params(config, ml_dtypes.bfloat16)
    return default_layout(family_of(config), params)
