"""Every format that a checkpoint can have is opened, and gives the same weights."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

import jaxmoe
from convert import convert, export
from convert.__main__ import main
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


# -- files that determine the model ------------------------------------------------


def _same(found, wanted):
    assert found.params.keys() == wanted.params.keys()
    for name, param in wanted.params.items():
        assert np.asarray(found.params[name]).tobytes() == np.asarray(param).tobytes()


def _index_over_one(source: Path, tensors):
    index = {"weight_map": dict.fromkeys(tensors, "model.safetensors")}
    (source / "model.safetensors.index.json").write_text(json.dumps(index))


def _lone_part(source: Path, _):
    (source / "model.safetensors").rename(source / "model-00001-of-00001.safetensors")


def _other_name(source: Path, _):
    (source / "model.safetensors").rename(source / "consolidated.safetensors")
    (source / "adapter_model.safetensors").write_bytes(b"of no concern")
    (source / "._consolidated.safetensors").write_bytes(b"another system's notes")
    (source / "old.safetensors").mkdir()


def _farm(source: Path, _):
    away = source.parent / "another disk"
    away.mkdir()
    for i, path in enumerate(list(source.iterdir())):
        path.rename(away / f"{i:040x}")
        path.symlink_to(away / f"{i:040x}")


CHANGES = [_index_over_one, _lone_part, _other_name, _farm]


@pytest.mark.parametrize("change", CHANGES)
def test_files_that_determine_the_model(make, change, tmp_path):
    """Files that transformers reads would be refused."""
    source = make()
    (source / "tokenizer.json").unlink()
    wanted = jaxmoe.load(source)
    change(source, make.tensors(make.config))
    _same(jaxmoe.load(source), wanted)
    convert(source, tmp_path / "ckpt")
    _same(jaxmoe.load(tmp_path / "ckpt"), wanted)
    export(tmp_path / "ckpt", tmp_path / "back")
    for path in filter(Path.is_file, source.glob("[cm]*.safetensors")):
        assert (tmp_path / "back" / path.name).read_bytes() == path.read_bytes()


def test_bookkeeping_is_left_out(make):
    """What a trainer left behind would make a model unreadable."""

    def add(tensors):
        prefix = "model.layers.0.self_attn."
        tensors[prefix + "q_proj._extra_state"] = np.zeros(0, np.uint8)
        tensors[prefix + "rotary_emb.inv_freq"] = np.ones(3, np.float32)
        tensors["model.rotary_emb.original_inv_freq"] = np.ones(3, np.float32)

    ignored = open_source(make(add)).plan.ignored
    assert len(ignored) == 3


def test_only_the_head_of_a_tied_model(make, tmp_path):
    """A tied matrix stored under its other name would be missing."""
    source = make(tie_word_embeddings=True)
    (source / "tokenizer.json").unlink()

    def rename(tensors):
        tensors["lm_head.weight"] = tensors.pop("model.embed_tokens.weight")

    other = make(rename, name="other", tie_word_embeddings=True)
    (other / "tokenizer.json").unlink()
    _same(jaxmoe.load(other), jaxmoe.load(source))
    convert(other, tmp_path / "ckpt")
    export(tmp_path / "ckpt", tmp_path / "back")
    weights = [d / "model.safetensors" for d in (other, tmp_path / "back")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


# -- another config ----------------------------------------------------------------


def test_overrides_and_ignored_names(make, tmp_path):
    """A config could not be mended without editing the files of a release."""
    source = make(rope_scaling={"rope_type": "linear", "factor": 2.0})
    (source / "tokenizer.json").unlink()
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"mystery": 1}))
    with pytest.raises(ValueError, match="mystery"):
        jaxmoe.load(source)
    changes = {
        "overrides": {"rope_scaling.factor": 4.0, "rms_norm_eps": 1e-3},
        "ignore": ["mystery"],
    }
    config = jaxmoe.load(source, **changes).config
    assert config.layers[0].mixer.rope.factor == 4.0
    assert config.norm.eps == 1e-3
    options = ["--override", "rope_scaling.factor=4.0", "--override=rms_norm_eps=1e-3"]
    command = [str(source), str(tmp_path / "ckpt"), *options, "--ignore", "mystery"]
    assert main(command) == 0
    assert jaxmoe.load(tmp_path / "ckpt").config == config
    told = read_manifest(tmp_path / "ckpt").source["config"]
    assert told == {"overrides": changes["overrides"], "ignore": ["mystery"]}
    again = jaxmoe.load(tmp_path / "ckpt", overrides={"rms_norm_eps": 1e-6}).config
    assert again.norm.eps == 1e-6
    with pytest.raises(ValueError, match="no 'mysterious' to ignore"):
        jaxmoe.load(source, ignore=["mysterious"])
    with pytest.raises(ValueError, match="expected an object at 'vocab_size'"):
        jaxmoe.load(source, overrides={"vocab_size.x": 1})
