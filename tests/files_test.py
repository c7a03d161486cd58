"""Files that are whole or not there."""

import os
from pathlib import Path

import pytest

from jaxmoe.files import (
    MOST_BYTES,
    lock,
    parse_json,
    printable,
    read_object,
    read_small,
    read_small_text,
    replacing,
    unlock,
    write_all,
    write_text,
)


def test_what_fails_leaves_what_was_there(tmp_path):
    """A full disk would cost the old file, or leave a half beside it."""
    path = tmp_path / "records"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="full"), replacing(path) as file:
        file.write(b"half")
        raise OSError("full")
    assert path.read_bytes() == b"old"
    assert [one.name for one in tmp_path.iterdir()] == [path.name]


def test_locks_keep_others_out(tmp_path):
    """Two processes would write into one file, or one that reads wait for ever."""
    path = tmp_path / "file"
    with path.open("a") as one, path.open("a") as other:
        assert lock(one)
        assert not lock(other) and not lock(other, shared=True)
        unlock(one)
        assert lock(one, shared=True) and lock(other, shared=True)
        assert not lock(one)
    with path.open("a") as third:
        assert lock(third, wait=True)


def test_all_bytes_are_written(tmp_path, monkeypatch):
    """The end of a record would be missing where a disk takes less than was given."""
    written, write = [], os.write

    def reluctant(descriptor, data):
        written.append(len(data))
        return write(descriptor, data[:3])

    monkeypatch.setattr(os, "write", reluctant)
    with (tmp_path / "file").open("wb") as file:
        write_all(file.fileno(), b"eight or more")
    assert (tmp_path / "file").read_bytes() == b"eight or more"
    assert written == [13, 10, 7, 4, 1]


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


def test_printable():
    """A control sequence would move the cursor of whoever reads an error."""
    assert printable("a\tb\n\x1b[2J\x9b1m\u202e") == "a\tb\n\\x1b[2J\\x9b1m\\u202e"
    seen = "é ß 中文 한국어 العربية हिन्दी £ 😀 a\u0301"
    assert printable(seen) == seen


@pytest.mark.parametrize(
    "hidden",
    [
        *(
            "\u200b",
            "\u200c",
            "\u200d",
            "\u200e",
            "\u200f",
            "\u061c",
            "\u00ad",
            "\ufeff",
        ),
        *("\u2028", "\u2029", "\u2060", "\u2064", "\u2066", "\u180e", "\U000e0041"),
    ],
)
def test_printable_writes_out_what_cannot_be_seen(hidden):
    """A name would look like another, or a line of an error end early."""
    assert printable(f"a{hidden}b") == f"a{ascii(hidden)[1:-1]}b"
