"""Files that are whole or not there."""

from pathlib import Path

import pytest

from jaxmoe.files import write_text


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
