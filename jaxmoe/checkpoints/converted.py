"""Converted checkpoints: directories with our manifest, local or on gs://."""

import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax

from jaxmoe.checkpoints.gcs import fetch_small_files
from jaxmoe.checkpoints.manifest import (
    OLD_FORMAT,
    Manifest,
    ParamSpec,
    earlier_names,
    read_manifest,
    renamed,
)
from jaxmoe.checkpoints.placement import STAGING_BYTES
from jaxmoe.checkpoints.small_files import check_small_files
from jaxmoe.checkpoints.store import restore
from jaxmoe.config import ModelConfig
from jaxmoe.families.config_json import load_hf_config
from jaxmoe.nn.decoder import abstract_params
from jaxmoe.typing import Array


@dataclass(frozen=True)
class ConvertedSource:
    """A directory that `python -m convert` wrote; a `Source`.

    path: as given, perhaps on gs://. directory: its small files, here. verify: whether
    what is read is compared with the manifest's checksums.
    """

    path: str | os.PathLike
    directory: Path
    manifest: Manifest
    config: ModelConfig
    verify: bool = True

    @classmethod
    def open(
        cls,
        path: str | os.PathLike,
        *,
        verify: bool = True,
        overrides: Mapping[str, Any] | None = None,
        ignore: Sequence[str] = (),
    ) -> "ConvertedSource":
        """Reads manifest and config.

        verify: compare config, tokenizer, templates and weights with the manifest.
        overrides, ignore: as in `jaxmoe.load`.

        Raises:
          FileNotFoundError: `path` is no checkpoint.
          OSError: Google Cloud Storage refuses, or cannot be reached.
          ValueError: a manifest or config that is damaged or not supported; small files
            that are not those that were converted.

        Warns:
          UserWarning: an older checkpoint, whose small files cannot be checked.
        """
        manifest = read_manifest(path)
        directory = fetch_small_files(path)
        if verify and manifest.format == OLD_FORMAT:
            warnings.warn(
                f"{os.fspath(path)} was converted by an earlier version: its config "
                "and tokenizer have no checksums and are taken as they are, and each "
                "parameter is read whole to be checked; convert the source again",
                UserWarning,
                stacklevel=2,
            )
        elif verify:
            check_small_files(directory, manifest.files)
        config = load_hf_config(directory, overrides, ignore)
        if manifest.weights != "float":
            config = replace(config, weights=manifest.weights)
        return cls(path, directory, manifest, config, verify)

    @property
    def params(self) -> dict[str, ParamSpec]:
        """Shape and type of each parameter in the store."""
        params = self.manifest.params
        return renamed(params, earlier_names(abstract_params(self.config), params))

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
        return restore(
            self.path, abstract, jobs=jobs, staging=staging, verify=self.verify
        )
