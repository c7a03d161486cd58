"""Fixtures of the converter's tests."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.hugging_face import make, wanted

__all__ = ["make", "wanted"]


@pytest.fixture
def trees():
    """Compares two directories, file for file and byte for byte."""

    def read(path: Path) -> dict[str, bytes]:
        files = (p for p in path.rglob("*") if p.is_file())
        return {str(p.relative_to(path)): p.read_bytes() for p in files}

    return read


@pytest.fixture
def load():
    """Restores a checkpoint whole, each parameter in the type it is stored in."""
    from jaxmoe.checkpoints import store

    def restore(path: Path) -> dict[str, np.ndarray]:
        specs = store.read_manifest(path).params
        abstract = {
            name: jax.ShapeDtypeStruct(spec.shape, jnp.dtype(spec.dtype))
            for name, spec in specs.items()
        }
        restored = store.restore(path, abstract)
        return {name: np.asarray(param) for name, param in restored.items()}

    return restore
