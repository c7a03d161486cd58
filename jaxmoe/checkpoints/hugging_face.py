"""Hugging Face checkpoints: a directory of config.json, tokenizer and safetensors."""

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from jaxmoe.checkpoints.errors import CheckpointError
from jaxmoe.checkpoints.manifest import Manifest, ParamSpec
from jaxmoe.checkpoints.placement import STAGING_BYTES
from jaxmoe.checkpoints.plan import Fill, Plan, make_plan
from jaxmoe.checkpoints.safetensors import Files
from jaxmoe.checkpoints.shards import read_params
from jaxmoe.checkpoints.stream import Reader, in_parallel
from jaxmoe.checkpoints.weight_files import Weights, open_weights
from jaxmoe.config import ModelConfig
from jaxmoe.families.config_json import load_hf_config
from jaxmoe.families.registry import family_of
from jaxmoe.nn.decoder import abstract_params
from jaxmoe.typing import Array


@dataclass(frozen=True)
class HuggingFaceSource:
    """A checked Hugging Face directory; a `jaxmoe.checkpoints.source.Source`.

    weights: the checked files. plan: which tensors make up which parameter.
    """

    weights: Weights
    config: ModelConfig
    plan: Plan

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        overrides: Mapping[str, Any] | None = None,
        ignore: Sequence[str] = (),
    ) -> "HuggingFaceSource":
        """Reads config and headers, and looks at everything that can be wrong.

        overrides, ignore: as in `jaxmoe.load`.

        Raises:
          CheckpointError: files, index or tensors that do not fit.
          ValueError, FileNotFoundError: config.json, as `load_hf_config`.
        """
        weights = open_weights(directory)
        config = load_hf_config(directory, overrides, ignore)
        layers, tensors = len(config.layers), len(weights.tensors)
        if layers > tensors:
            raise CheckpointError(
                f"{directory}: config.json asks for {layers} layers, the files hold "
                f"{tensors} tensors; config.json and weights are of different models"
            )
        params = abstract_params(config)
        return cls(
            weights, config, make_plan(family_of(config), weights.tensors, params)
        )

    @property
    def directory(self) -> Path:
        """The directory, which holds the small files too."""
        return self.weights.directory

    @property
    def params(self) -> dict[str, ParamSpec]:
        """Shape and type of each parameter in the files."""
        fills = self.plan.fills.items()
        return {name: ParamSpec(fill.shape, fill.dtype.name) for name, fill in fills}

    def digest(self) -> str:
        """The digest that the manifest would have, were this converted.

        Reads all weights, to know their checksums.
        """
        params = self.params
        found: dict[str, ParamSpec] = {}

        def scan(fill: Fill, stop: threading.Event):
            spec = params[fill.param]
            crc = Reader(files, fill, spec, stop).crc32()
            found[fill.param] = ParamSpec(spec.shape, spec.dtype, crc)

        names = [header.file for header in self.weights.headers]
        with Files(self.directory, names) as files:
            in_parallel(scan, self.plan.fills.values(), jobs=4)
        return Manifest(self.config.family, found).digest

    def read(
        self,
        abstract: Mapping[str, jax.ShapeDtypeStruct],
        *,
        jobs: int = 4,
        staging: int = STAGING_BYTES,
    ) -> dict[str, Array]:
        """The parameters; see `read_params`."""
        return read_params(
            self.weights, self.plan, abstract, jobs=jobs, staging=staging
        )
