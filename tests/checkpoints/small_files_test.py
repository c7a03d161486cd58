"""The files beside the weights are those that were converted, or the load refuses."""

import json

import pytest

import jaxmoe
from convert import convert, export
from jaxmoe.checkpoints import store
from jaxmoe.checkpoints.source import open_source
from tests.checkpoints.store_test import _as_format_1


@pytest.fixture
def ckpt(make, tmp_path):
    """A converted checkpoint, and its source without the nonsense tokenizer."""
    source = make()
    (source / "tokenizer.json").unlink()
    (source / "additional_chat_templates").mkdir()
    (source / "additional_chat_templates" / "tool.jinja").write_text("{{ 1 }}")
    convert(source, tmp_path / "ckpt")
    return tmp_path / "ckpt"


NAMES = [
    "config.json",
    "generation_config.json",
    "chat_template.jinja",
    "additional_chat_templates/tool.jinja",
]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("how", ["changed", "missing"])
def test_a_file_that_changed_is_refused(ckpt, name, how):
    """Another config or template would be taken for the one that was converted."""
    if how == "changed":
        (ckpt / name).write_bytes((ckpt / name).read_bytes() + b"\n")
    else:
        (ckpt / name).unlink()
    with pytest.raises(ValueError, match=name):
        jaxmoe.load(ckpt)
    with pytest.raises(ValueError, match=name):
        export(ckpt, ckpt.parent / "back")
    if (name, how) != ("config.json", "missing"):
        assert jaxmoe.load(ckpt, verify=False).config.vocab_size == 40


@pytest.mark.parametrize(
    "name", ["tokenizer.json", "additional_chat_templates/x.jinja"]
)
def test_a_file_that_came_later_is_refused(ckpt, name):
    """A file that nobody converted would change the model."""
    (ckpt / name).write_text("{}")
    with pytest.raises(ValueError, match=f"{name}: added later"):
        jaxmoe.load(ckpt)


def test_files_of_no_concern_may_come(ckpt):
    """Notes beside a model would make it unreadable."""
    (ckpt / "notes.md").write_text("mine")
    assert jaxmoe.load(ckpt).tokenizer is None


def test_headers_are_checked_by_an_export(ckpt):
    """An export would write files that the source was not."""
    header = next((ckpt / "source").glob("*.header"))
    header.write_text(header.read_text().replace('"pt"', '"np"'))
    with pytest.raises(ValueError, match=header.name):
        export(ckpt, ckpt.parent / "back")
    jaxmoe.load(ckpt)


def test_older_checkpoints_say_what_is_not_checked(ckpt):
    """One would rely on checks that an old manifest cannot carry."""
    _as_format_1(ckpt)
    with pytest.warns(UserWarning, match="by an earlier version.*convert the source"):
        jaxmoe.load(ckpt)
    config = ckpt / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"rms_norm_eps": 1}))
    with pytest.warns(UserWarning, match="taken as they are"):
        assert open_source(ckpt).config.norm.eps == 1
    assert store.read_manifest(ckpt).format == 1
    export(ckpt, ckpt.parent / "back")
