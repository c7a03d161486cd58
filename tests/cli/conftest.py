"""A random checkpoint that a newcomer would make, made once."""

from pathlib import Path

import pytest

import jaxmoe
from convert import convert
from jaxmoe.cli import random_checkpoint


@pytest.fixture(scope="session")
def source(tmp_path_factory) -> Path:
    """A Hugging Face directory with random weights."""
    path = tmp_path_factory.mktemp("random") / "hf"
    assert random_checkpoint.main([str(path)]) == 0
    return path


@pytest.fixture(scope="session")
def checkpoint(source) -> Path:
    """The same, converted."""
    path = source.with_name("ckpt")
    convert(source, path)
    return path


@pytest.fixture(scope="session")
def model(checkpoint) -> jaxmoe.Model:
    """The same, loaded."""
    return jaxmoe.load(checkpoint)
