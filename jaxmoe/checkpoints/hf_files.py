"""Weights as Hugging Face safetensors: which files there are, and writing them.

A 2-D tensor per expert and matrix, in shards where there are many bytes.
"""

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from jaxmoe.checkpoints import safetensors, weight_files
from jaxmoe.checkpoints.plan import Piece, default_tensors, make_plan
from jaxmoe.config import ModelConfig
from jaxmoe.families.base import Family
from jaxmoe.families.config_json import from_hf
from jaxmoe.families.registry import family_of
from jaxmoe.nn.decoder import abstract_params

SHARD_BYTES = 4 << 30
METADATA = {"format": "pt"}


@dataclass(frozen=True)
class Layout:
    """The files to write; `index` is the text of the index, None for a single file."""

    headers: tuple[safetensors.Header, ...]
    index: str | None


def default_layout(
    family: Family, params: Mapping[str, Any], shard_bytes: int = SHARD_BYTES
) -> Layout:
    """The files of a model that came from none; `params` have shape and dtype."""
    shards: list[list[tuple[str, str, tuple[int, ...]]]] = [[]]
    size = 0
    for name, dtype, shape in default_tensors(family, params):
        nbytes = math.prod(shape) * dtype.itemsize
        if shards[-1] and size + nbytes > shard_bytes:
            shards.append([])
            size = 0
        shards[-1].append((name, safetensors.TAGS[dtype.name], shape))
        size += nbytes
    if len(shards) == 1:
        return Layout(
            (safetensors.make_header(weight_files.SINGLE, shards[0], METADATA),), None
        )
    headers = [
        safetensors.make_header(
            f"model-{i:05}-of-{len(shards):05}.safetensors", s, METADATA
        )
        for i, s in enumerate(shards, 1)
    ]
    return Layout(tuple(headers), index_text(headers))


def layout_of(config: ModelConfig, shard_bytes: int = SHARD_BYTES) -> Layout:
    """The files of a model in bfloat16."""
    params = abstract_params(config, ml_dtypes.bfloat16)
    return default_layout(family_of(config), params, shard_bytes)


def index_text(
    headers: list[safetensors.Header], before: dict[str, Any] | None = None
) -> str:
    """The text of the index of all shards.

    Args:
      before: an index whose other metadata is kept.
    """
    tensors = [tensor for header in headers for tensor in header.tensors]
    metadata = dict((before or {}).get("metadata") or {})
    metadata["total_size"] = sum(tensor.nbytes for tensor in tensors)
    weight_map = {t.name: t.file for t in sorted(tensors, key=lambda t: t.name)}
    index = {"metadata": metadata, "weight_map": weight_map}
    return json.dumps(index, indent=2) + "\n"


def write_tensors(
    directory: Path, layout: Layout, content: Callable[[safetensors.Tensor], Any]
) -> int:
    """Writes the files of a layout.

    Args:
      content: the bytes of a tensor, or a buffer; asked in the order of the files.

    Returns:
      The size of all files in bytes.
    """
    for header in layout.headers:
        raw = header.text.encode()
        with (directory / header.file).open("wb") as file:
            file.write(len(raw).to_bytes(8, "little") + raw)
            for tensor in sorted(header.tensors, key=lambda t: t.offset):
                file.write(content(tensor))
    if layout.index is not None:
        (directory / weight_files.INDEX).write_text(layout.index, encoding="utf-8")
    return sum(header.nbytes for header in layout.headers)


def write_weights(
    directory: Path,
    config: dict[str, Any],
    values: Callable[[safetensors.Tensor], np.ndarray],
) -> int:
    """Writes the tensors of a model, whose `values` are asked in order; their bytes."""

    def content(tensor: safetensors.Tensor) -> bytes:
        return values(tensor).astype(safetensors.DTYPES[tensor.dtype]).tobytes()

    return write_tensors(directory, layout_of(from_hf(config)), content)


def write_params(
    directory: Path, config: dict[str, Any], params: Mapping[str, np.ndarray]
) -> int:
    """Writes weights that have our names (`jaxmoe.nn.decoder.abstract_params`)."""
    parsed = from_hf(config)
    tensors = {t.name: t for h in layout_of(parsed).headers for t in h.tensors}
    plan = make_plan(family_of(parsed), tensors, abstract_params(parsed))
    places: dict[str, list[tuple[str, Piece]]] = {name: [] for name in tensors}
    for fill in plan.fills.values():
        for piece in fill.pieces:
            places[piece.tensor.name].append((fill.param, piece))

    def values(tensor: safetensors.Tensor) -> np.ndarray:
        runs = sorted(places[tensor.name], key=lambda found: found[1].first)
        parts = [params[n].reshape(-1)[p.start : p.stop] for n, p in runs]
        return np.concatenate(parts).reshape(tensor.shape)

    return write_weights(directory, config, values)
