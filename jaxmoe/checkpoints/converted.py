"""Converted checkpoints: directories with our manifest, local or on gs://."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import jax

from jaxmoe.checkpoints.gcs import fetch_small_files
from jaxmoe.checkpoints.manifest import Manifest, ParamSpec, read_manifest
from jaxmoe.checkpoints.placement import STAGING_BYTES
from jaxmoe.checkpoints.store import restore
from jaxmoe.config import ModelConfig
from jaxmoe.families.config_json import load_hf_config
from jaxmoe.typing import Array


@dataclass(frozen=True)
class ConvertedSource:
    """A directory that `python -m convert` wrote; a `Source`.

    path: as given, perhaps on gs://. directory: its small files, here.
    """

    path: str | os.PathLike
    directory: Path
    manifest: Manifest
    config: ModelConfig

    @classmethod
    def open(cls, path: str | os.PathLike) -> "ConvertedSource":
        """Reads manifest and config.

        Raises:
          FileNotFoundError: `path` is no checkpoint.
          OSError: Google Cloud Storage refuses, or cannot be reached.
          ValueError: a manifest or config that is damaged or not supported.
        """
        manifest = read_manifest(path)
        directory = fetch_small_files(path)
        return cls(path, directory, manifest, load_hf_config(directory))

    @property
    def params(self) -> dict[str, ParamSpec]:
        """Shape and type of each parameter in the store."""
        return self.manifest.params

    def digest(self) -> str:
        """The manifest's digest."""
        return self.manifest.digest

    def read(
        self,
        abstract: Mapping[str, jax.ShapeDtypeStruct],
        *,
        jobs: int = 4,
        staging: int = STAGING_BYTES,
    ) -> dict[str, Array]:
        """The parameters; see `jaxmoe.checkpoints.store.restore`."""
        return restore(self.path, abstract, jobs=jobs, staging=staging)
