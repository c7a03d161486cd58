"""Files that are whole or not there."""

from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 under another name beside `path`, then renames."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
