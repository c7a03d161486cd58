"""The manifest of a checkpoint: what it holds, and what tells it from others."""

import hashlib
import json
import math
import os
from collections.abc import Container, Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from jaxmoe.checkpoints.chunks import CHUNK_BYTES
from jaxmoe.checkpoints.gcs import read_file
from jaxmoe.config import ModelWeights
from jaxmoe.files import parse_object

FORMAT = 2
OLD_FORMAT = 1
"""Without sums of blocks and of the small files; read, and checked as far as it goes.

Its parameters have a CRC-32 each, so they are checked whole, whatever is read of them.
"""
MANIFEST = "jaxmoe.json"
BLOCK_BYTES = 1 << 20
"""Bytes under one checksum."""


_EARLIER = {".mixer.out.": ".mixer.o."}
"""Part of a parameter's name -> what stood there in checkpoints of earlier versions."""


def earlier_names(wanted: Iterable[str], stored: Container[str]) -> dict[str, str]:
    """Names that a checkpoint has as an earlier version wrote them: ours -> its own."""
    found = {}
    for name in wanted:
        for now, earlier in _EARLIER.items():
            old = name.replace(now, earlier)
            if old != name and name not in stored and old in stored:
                found[name] = old
    return found


@dataclass(frozen=True)
class ParamSpec:
    """A stored parameter.

    crc32: of its bytes in C order, little-endian. chunk: the shape of a stored chunk.
    sums: the CRC-32 of each block of each chunk, in order (`jaxmoe.checkpoints.
    checksums`). Where nothing is stored yet they are empty.
    """

    shape: tuple[int, ...]
    dtype: str
    crc32: str = ""
    chunk: tuple[int, ...] = ()
    sums: str = ""

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


def renamed(
    params: Mapping[str, ParamSpec], earlier: Mapping[str, str]
) -> dict[str, ParamSpec]:
    """What a checkpoint stores, by our names; earlier: as of `earlier_names`."""
    ours = {old: name for name, old in earlier.items()}
    return {ours.get(name, name): spec for name, spec in params.items()}


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint holds.

    source: what it was converted from, if it was. files: name -> SHA-256 of the files
    beside the weights. block: bytes under each of the parameters' sums.
    """

    family: str
    params: dict[str, ParamSpec]
    source: dict[str, Any] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    block: int = BLOCK_BYTES
    format: int = FORMAT

    @property
    def weights(self) -> ModelWeights:
        """How those of products are held: `ModelConfig.weights`."""
        return self.source.get("weights", "float")

    @property
    def digest(self) -> str:
        """SHA-256 over names, shapes, types and checksums: equal content, equal text.

        It tells weights apart, in whichever format they are stored; made of CRC-32, it
        is no proof against forgery.
        """
        params = sorted(self.params.items())
        rows = [[name, spec.shape, spec.dtype, spec.crc32] for name, spec in params]
        text = json.dumps([self.family, rows])
        return "sha256:" + hashlib.sha256(text.encode()).hexdigest()

    @property
    def nbytes(self) -> int:
        """Bytes of all parameters."""
        return sum(spec.nbytes for spec in self.params.values())


def write_manifest(path: str | os.PathLike, manifest: Manifest):
    """Writes `manifest` into the checkpoint directory `path`."""
    value = {"digest": manifest.digest, **asdict(manifest)}
    text = json.dumps(value | {"seal": _seal(value)}, indent=1)
    (Path(path) / MANIFEST).write_text(text, encoding="utf-8")


def _seal(value: dict[str, Any]) -> str:
    """SHA-256 over the whole manifest but for the seal."""
    rest = {name: item for name, item in value.items() if name != "seal"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


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
        value = parse_object(raw, file, remedy)
        found = value["format"]
        if found not in (FORMAT, OLD_FORMAT):
            raise ValueError(
                f"{file} has format {found!r:.100}, this version reads format "
                f"{FORMAT}; {remedy}"
            )
        manifest = _parse(value)
        digest = value["digest"]
        seal = value["seal"] if found == FORMAT else value.get("seal")
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file} lacks a field ({error!r}); {remedy}") from None
    if digest != manifest.digest:
        raise ValueError(
            f"{file} was altered: it states digest {digest!s:.100}, its content gives "
            f"{manifest.digest}; {remedy}"
        )
    if seal is not None and seal != _seal(value):
        raise ValueError(
            f"{file} was altered: it states the seal {seal!s:.100}, its content gives "
            f"{_seal(value)}; {remedy}"
        )
    if wrong := _ill_formed(manifest):
        raise ValueError(f"{file}: {wrong}; {remedy}")
    return manifest


def _ill_formed(manifest: Manifest) -> str | None:
    """What is not of the type that it has to be, None for nothing."""
    for name, spec in manifest.params.items():
        sizes = (*spec.shape, *spec.chunk)
        if not all(_is_count(size) for size in sizes):
            return f"expected sizes of {name!a:.80}, found {str(sizes)[:80]}"
        if len(spec.chunk) not in (0, len(spec.shape)) or 0 in spec.chunk:
            return f"expected a chunk for {spec.shape}, found {spec.chunk!r:.80}"
        texts = (spec.dtype, spec.crc32, spec.sums)
        if not all(isinstance(text, str) for text in texts):
            return f"expected type and checksums of {name!a:.80}, found {texts!r:.80}"
    files = manifest.files
    if not isinstance(files, dict) or not all(
        isinstance(text, str) for text in (*files, *files.values())
    ):
        return f"expected files with their SHA-256, found {files!r:.80}"
    if not isinstance(manifest.source, dict):
        return f"expected a source, found {manifest.source!r:.80}"
    if not _is_count(manifest.block) or not 0 < manifest.block <= CHUNK_BYTES:
        return f"expected blocks of 1 to {CHUNK_BYTES} bytes, found {manifest.block!r}"
    return None


def _is_count(value: Any) -> bool:
    whole = isinstance(value, int) and not isinstance(value, bool)
    return whole and 0 <= value < 2**63


def _parse(value: dict[str, Any]) -> Manifest:
    params = {
        name: ParamSpec(
            tuple(p["shape"]),
            p["dtype"],
            p["crc32"],
            tuple(p.get("chunk", ())),
            p.get("sums", ""),
        )
        for name, p in value["params"].items()
    }
    family, source, found = value["family"], value["source"], value["format"]
    if found == OLD_FORMAT:
        return Manifest(family, params, source, format=found)
    return Manifest(family, params, source, value["files"], value["block"])
