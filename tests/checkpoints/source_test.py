"""Every format that a checkpoint can have is opened, and gives the same weights."""

import sys
from pathlib import Path

import numpy as np
import pytest

from convert import convert
from jaxmoe.checkpoints.bundled import BUNDLED
from jaxmoe.checkpoints.converted import ConvertedSource
from jaxmoe.checkpoints.errors import CheckpointError
from jaxmoe.checkpoints.hugging_face import HuggingFaceSource
from jaxmoe.checkpoints.manifest import read_manifest
from jaxmoe.checkpoints.source import open_source
from jaxmoe.nn.decoder import abstract_params

SPOILED = {
    "no manifest": lambda path: (path / "jaxmoe.json").unlink(),
    "broken manifest": lambda path: (path / "jaxmoe.json").write_text("{"),
}


def sources(make, tmp_path, **config):
    """One model in two formats."""
    directory = make(shards=2, **config)
    convert(directory, tmp_path / "ckpt")
    return open_source(directory), open_source(tmp_path / "ckpt")


def test_formats_are_told_apart(make, tmp_path):
    """A converted checkpoint, which has a config.json too, would be read as another."""
    files, converted = sources(make, tmp_path)
    assert isinstance(files, HuggingFaceSource)
    assert isinstance(converted, ConvertedSource)
    assert isinstance(open_source("demo"), HuggingFaceSource)
    assert open_source(str(tmp_path / "ckpt")).digest() == converted.digest()


@pytest.mark.parametrize("config", [{}, {"tie_word_embeddings": True}])
def test_formats_agree(make, tmp_path, config):
    """Weights would depend on how they are stored; runs could not be compared."""
    files, converted = sources(make, tmp_path, **config)
    assert files.config == converted.config
    assert files.digest() == converted.digest()
    assert converted.digest() == read_manifest(tmp_path / "ckpt").digest
    kinds = [
        {name: (spec.shape, spec.dtype) for name, spec in source.params.items()}
        for source in (files, converted)
    ]
    assert kinds[0] == kinds[1]
    abstract = abstract_params(files.config)
    found, expected = files.read(abstract), converted.read(abstract)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert np.asarray(found[name]).tobytes() == np.asarray(value).tobytes(), name


def test_the_digest_of_the_demo_is_that_of_its_conversion(tmp_path):
    """Runs noted with a converted demo could not be gone on with."""
    convert(BUNDLED["demo"], tmp_path / "ckpt")
    assert open_source("demo").digest() == read_manifest(tmp_path / "ckpt").digest


@pytest.mark.parametrize("what", SPOILED)
def test_a_broken_conversion_is_no_hugging_face_directory(make, tmp_path, what):
    """One would be told of safetensors that a converted checkpoint never had."""
    sources(make, tmp_path)
    SPOILED[what](tmp_path / "ckpt")
    with pytest.raises((FileNotFoundError, ValueError), match=r"jaxmoe\.json"):
        open_source(tmp_path / "ckpt")


def test_names_of_the_hub(make, monkeypatch, tmp_path):
    """A hub name would be a missing directory, or a directory a hub name."""
    directory, asked = make(), []
    monkeypatch.chdir(tmp_path)

    def download(name: str) -> Path:
        asked.append(name)
        return directory

    monkeypatch.setattr("jaxmoe.checkpoints.source.download", download)
    assert open_source("Qwen/Qwen3-30B-A3B").directory == directory
    assert asked == ["Qwen/Qwen3-30B-A3B"]
    (tmp_path / "mine").mkdir()
    directory.rename(tmp_path / "mine" / "model")
    assert open_source("mine/model").directory == Path("mine/model")
    for path in (Path("Qwen/Qwen3-30B-A3B"), "nowhere", str(tmp_path / "a" / "b")):
        with pytest.raises(FileNotFoundError, match="found none"):
            open_source(path)
    with pytest.raises(ValueError, match="s3://bucket/model"):
        open_source("s3://bucket/model")
    assert asked == ["Qwen/Qwen3-30B-A3B"]


def test_without_the_extra(monkeypatch):
    """Who has no huggingface_hub would see an ImportError from deep inside."""
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError) as error:
        open_source("Qwen/Qwen3-30B-A3B")
    assert 'pip install "jaxmoe[hub]"' in str(error.value)
