"""The manifest of a checkpoint: what it holds, and what tells it from others."""

import hashlib
import json
import math
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jaxmoe.checkpoints.gcs import read_file

FORMAT = 1
MANIFEST = "jaxmoe.json"


@dataclass(frozen=True)
class ParamSpec:
    """A stored parameter: `crc32` is that of its bytes in C order, little-endian."""

    shape: tuple[int, ...]
    dtype: str
    crc32: str = ""

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint holds; `source` says what it was converted from, if it was."""

    family: str
    params: dict[str, ParamSpec]
    source: dict[str, Any] = field(default_factory=dict)

    @property
    def digest(self) -> str:
        """SHA-256 over names, shapes, types and checksums: equal content, equal text.

        It tells checkpoints apart; made of CRC-32, it is no proof against forgery.
        """
        rows = [[n, *asdict(self.params[n]).values()] for n in sorted(self.params)]
        text = json.dumps([self.family, rows])
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()

    @property
    def nbytes(self) -> int:
        """Bytes of all parameters."""
        return sum(spec.nbytes for spec in self.params.values())


def write_manifest(path: str | os.PathLike, manifest: Manifest):
    """Writes `manifest` into the checkpoint directory `path`."""
    value = {"format": FORMAT, "digest": manifest.digest, **asdict(manifest)}
    text = json.dumps(value, indent=1)
    (Path(path) / MANIFEST).write_text(text, encoding="utf-8")


def read_manifest(path: str | os.PathLike) -> Manifest:
    """The manifest of the checkpoint directory `path`, local or gs://.

    Raises:
      FileNotFoundError: `path` is no checkpoint.
      OSError: Google Cloud Storage refuses, or cannot be reached.
      ValueError: the manifest is unreadable, damaged, or of another format.
    """
    raw = read_file(path, MANIFEST)
    if raw is None:
        raise FileNotFoundError(
            f"expected a checkpoint directory with {MANIFEST}, found none at {path}; "
            "make one with: python -m convert SRC DST"
        )
    file = f"{os.fspath(path)}/{MANIFEST}"
    remedy = "convert the source again"
    try:
        value = json.loads(raw.decode("utf-8"))
        found = value["format"]
        if found != FORMAT:
            raise ValueError(
                f"{file} has format {found}, this version reads format {FORMAT}; "
                + remedy
            )
        params = {
            name: ParamSpec(tuple(p["shape"]), p["dtype"], p["crc32"])
            for name, p in value["params"].items()
        }
        manifest = Manifest(value["family"], params, value["source"])
        digest = value["digest"]
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} is no readable JSON ({error}); {remedy}") from None
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} lacks a field ({error!r}); {remedy}") from None
    if digest != manifest.digest:
        raise ValueError(
            f"{file} was altered: it states digest {digest}, its content gives "
            f"{manifest.digest}; {remedy}"
        )
    return manifest
