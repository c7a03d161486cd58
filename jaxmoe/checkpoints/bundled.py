"""Models that come with the package."""

import os
from pathlib import Path
from typing import TypeGuard

_DEMO = Path(__file__).resolve().parents[1] / "demo"
BUNDLED = {"demo": _DEMO / "hf", "demo-tries": _DEMO / "tries" / "hf"}
"""Name -> Hugging Face directory within the package."""


def is_bundled(path: str | os.PathLike) -> TypeGuard[str]:
    """Whether `jaxmoe.load` takes it for the name of a bundled model."""
    return isinstance(path, str) and path in BUNDLED


def bundled_directory(name: str) -> Path:
    """The Hugging Face directory of a bundled model.

    Raises:
      FileNotFoundError: the model's files are missing from the installation.
    """
    source = BUNDLED[name]
    if not (source / "model.safetensors").is_file():
        raise FileNotFoundError(
            f"{source} should hold the model {name!r}, but has no model.safetensors; "
            "install jaxmoe again"
        )
    return source
