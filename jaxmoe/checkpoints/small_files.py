"""The files beside the weights: what a model is besides numbers."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from jaxmoe.files import MOST_BYTES

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "additional_chat_templates/*.jinja",
)
"""Patterns of those that describe a tokenizer; a model carries those it has."""
SMALL_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.model",
    "chat_template.json",
    *TOKENIZER_FILES,
)
"""Patterns of all."""

SOURCE = "source"
"""The folder of a converted checkpoint with the headers of the files it was."""


def digests(directory: Path) -> dict[str, str]:
    """Name -> SHA-256 of the small files of a checkpoint, and those in `SOURCE`."""
    names = [*_names(directory), *_names(directory, (f"{SOURCE}/**/*",))]
    return {name: _digest(directory / name) for name in names}


def check_small_files(
    directory: Path, wanted: Mapping[str, str], *, source: bool = False
):
    """Compares the small files with the digests that the manifest states.

    Args:
      directory: of the files.
      wanted: name -> SHA-256, as `digests` gives it.
      source: also those in `SOURCE`, which only an export reads.

    Raises:
      ValueError: files that changed, are missing, or came after the manifest.
    """
    wrong = []
    for name, digest in wanted.items():
        path = directory / name
        if name.startswith(f"{SOURCE}/") and not source:
            continue
        if not path.is_file():
            wrong.append(f"{name}: missing")
        elif (size := path.stat().st_size) > MOST_BYTES:
            wrong.append(f"{name}: {size >> 20} MB")
        elif (found := _digest(path)) != digest:
            wrong.append(f"{name}: expected SHA-256 {digest[:12]}, found {found[:12]}")
    wrong += [f"{n}: added later" for n in _names(directory) if n not in wanted]
    if wrong:
        raise ValueError(
            f"{directory} is not as it was converted: {'; '.join(wrong)}. Convert the "
            "source again (a change belongs into the source, or into overrides=), or "
            "load with verify=False to take the files as they are"
        )


def _names(directory: Path, patterns: tuple[str, ...] = SMALL_FILES) -> list[str]:
    found = (path for pattern in patterns for path in sorted(directory.glob(pattern)))
    return [path.relative_to(directory).as_posix() for path in found if path.is_file()]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
