"""The hub: what is asked of it, and what is said where it gives nothing."""

import sys
import types

import pytest

from jaxmoe.checkpoints.errors import CheckpointError
from jaxmoe.checkpoints.hub import download, find_directory, is_hub_name
from jaxmoe.checkpoints.small_files import SMALL_FILES, TOKENIZER_FILES

NAME = "Qwen/Qwen3-30B-A3B"


def answer(monkeypatch, snapshot_download):
    """The hub's client does that."""
    hub = types.ModuleType("huggingface_hub")
    vars(hub)["snapshot_download"] = snapshot_download
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)


def test_names():
    """A path would be sought on the hub."""
    assert is_hub_name(NAME) and is_hub_name("a/b.c-d_e")
    for text in ("model", "/a/b", "a/b/c", "../b", "a/", "./demo", "gs://a", ""):
        assert not is_hub_name(text), text


def test_what_is_downloaded(monkeypatch, tmp_path):
    """Pickles would come along, or a tokenizer's file would be missing."""
    asked = {}

    def give(name, allow_patterns, ignore_patterns):
        asked.update(name=name, patterns=allow_patterns)
        return str(tmp_path)

    answer(monkeypatch, give)
    assert download(NAME) == find_directory(NAME) == tmp_path
    assert asked["name"] == NAME
    assert {"*.safetensors", "config.json", *TOKENIZER_FILES} < set(asked["patterns"])
    assert not any("bin" in p or p == "*" for p in asked["patterns"])
    assert len(SMALL_FILES) == len(set(SMALL_FILES))


class LocalEntryNotFoundError(FileNotFoundError):
    """As the hub's client raises it without a network."""


class RepositoryNotFoundError(OSError):
    """As the hub's client raises it for a name that is none."""


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (LocalEntryNotFoundError("no cache"), "cannot be reached"),
        (ConnectionError("no route"), "cannot be reached"),
        (ConnectionResetError("no route"), "cannot be reached"),
        (RepositoryNotFoundError("404"), "does not give it"),
    ],
)
def test_refusals(monkeypatch, error, said):
    """One would look for a typo where the network is down, or the other way."""

    def refuse(*_, **__):
        raise error

    answer(monkeypatch, refuse)
    with pytest.raises(CheckpointError, match=f"{NAME} .*{said}.*{error}"):
        download(NAME)
