"""Files that are whole or not there."""

import os
from pathlib import Path

import pytest

from jaxmoe.files import (
    MOST_BYTES,
    parse_json,
    read_object,
    read_small,
    read_small_text,
    write_text,
)


def test_a_file_is_replaced_whole(tmp_path, monkeypatch):
    """A kill in the midst of writing would leave half a report, and no old one."""
    path = tmp_path / "report.json"
    write_text(path, "old \u00fc")
    assert path.read_bytes() == "old \u00fc".encode()

    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            write_text(path, "new")
    assert path.read_bytes() == "old \u00fc".encode()
    write_text(path, "new")
    assert path.read_text("utf-8") == "new"
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"\xff", "not readable as JSON"),
        (b'{"a": ' * 200 + b"1" + b"}" * 200, "nested more than 100"),
        (b"[1]", "found list"),
    ],
)
def test_objects_are_read_within_bounds(content, found, tmp_path):
    """Code that walks down a file of others would end in a traceback."""
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=found) as error:
        read_object(path)
    assert str(path) in str(error.value)


@pytest.mark.parametrize("text", ["[" * 100_000, b"\xff", b"{", "NaN,"])
def test_json_is_read_or_refused(text):
    """Deep nesting ends in an error of Python's own, which nobody expects."""
    with pytest.raises(ValueError):
        parse_json(text)
    assert parse_json(b'{"a": [1]}') == {"a": [1]}


def test_only_small_files_are_read(tmp_path):
    """A file of gigabytes would fill the memory, and a pipe be waited for."""
    path = tmp_path / "config.json"
    os.mkfifo(path)
    with pytest.raises(ValueError, match="found a folder, pipe or device"):
        read_small(path)
    path.unlink()
    path.touch()
    os.truncate(path, MOST_BYTES + (1 << 20))
    with pytest.raises(ValueError, match="found 257 MB"):
        read_small_text(path)
