"""Where weights are read from: one protocol, and `open_source`, which finds out."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax

from jaxmoe.checkpoints.bundled import bundled_directory, is_bundled
from jaxmoe.checkpoints.converted import ConvertedSource
from jaxmoe.checkpoints.gcs import place_of
from jaxmoe.checkpoints.hub import download, is_hub_name
from jaxmoe.checkpoints.hugging_face import HuggingFaceSource
from jaxmoe.checkpoints.manifest import MANIFEST, ParamSpec
from jaxmoe.config import ModelConfig
from jaxmoe.typing import Array


@runtime_checkable
class Source(Protocol):
    """A checkpoint that was opened: its config and headers are read and checked.

    Another format implements this, and a line of `open_source`.
    """

    @property
    def directory(self) -> Path:
        """A local directory with config.json and the tokenizer's files."""
        ...

    @property
    def config(self) -> ModelConfig:
        """What config.json describes."""
        ...

    @property
    def params(self) -> Mapping[str, ParamSpec]:
        """Stored name -> stored shape and type."""
        ...

    def digest(self) -> str:
        """What tells these weights from others: equal in every format.

        It may read all weights.
        """
        ...

    def read(
        self,
        abstract: Mapping[str, jax.ShapeDtypeStruct],
        *,
        jobs: int = ...,
        staging: int = ...,
    ) -> dict[str, Array]:
        """Reads every parameter onto its devices.

        Args:
          abstract: stored name -> shape, type and sharding. A float type other than
            the stored one is cast to; of a sharding this process reads its own shards,
            each once; without one the parameter goes to the default device.
          jobs: parameters in flight.
          staging: bytes of shards in hand at once, beside what the devices hold.

        Raises:
          ValueError: names, shapes or types that are not those stored.
        """
        ...


def open_source(
    path: str | os.PathLike,
    *,
    verify: bool = True,
    overrides: Mapping[str, Any] | None = None,
    ignore: Sequence[str] = (),
) -> Source:
    """Opens the checkpoint that `path` names.

    Args:
      path: "demo" or "demo-tries" (the models of the package; a directory of that
        name is "./demo"), a Hugging Face directory, a converted one, here or on gs://,
        or the name of a model of the hub, such as "Qwen/Qwen3-30B-A3B". A directory
        goes before a name of the hub; a `Path` is always a directory.
      verify: compare what is read with the checksums of a converted checkpoint.
      overrides, ignore: as in `jaxmoe.load`.

    Raises:
      FileNotFoundError: no such checkpoint.
      OSError: Google Cloud Storage refuses, or cannot be reached.
      ValueError: a checkpoint that is damaged, contradicts itself or is not supported.
    """
    changes: Any = {"overrides": overrides, "ignore": ignore}
    if is_bundled(path):
        return HuggingFaceSource.open(bundled_directory(path), **changes)
    if place_of(path) is not None:
        return ConvertedSource.open(path, verify=verify, **changes)
    directory = Path(path)
    if isinstance(path, str) and not directory.exists() and is_hub_name(path):
        return HuggingFaceSource.open(download(path), **changes)
    if _is_hugging_face(directory):
        return HuggingFaceSource.open(directory, **changes)
    return ConvertedSource.open(path, verify=verify, **changes)


def _is_hugging_face(directory: Path) -> bool:
    """Whether it has a config, and nothing of a converted checkpoint, even a broken."""
    converted = (directory / MANIFEST, directory / "params")
    has_config = (directory / "config.json").is_file()
    return has_config and not any(path.exists() for path in converted)
