"""Unfinished outputs: `NAME.partial` beside `NAME`, with a record of what writes it.

The record is what tells such a directory from one of the user's that happens to have
the name: without it nothing is removed.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from jaxmoe.checkpoints.errors import CheckpointError
from jaxmoe.files import parse_json

RECORD = "in-progress.json"
KIND = "jaxmoe"
"""The record's key for what is being done: "convert", "export" or "save"."""


def partial_of(out: Path) -> Path:
    """Where `out` is written until it is complete."""
    return out.with_name(out.name + ".partial")


def read_record(partial: Path) -> dict[str, Any] | None:
    """What `partial` was begun as; {} where nothing is in it, None if not by jaxmoe."""
    if partial.is_symlink() or (partial.exists() and not partial.is_dir()):
        return None
    record = partial / RECORD
    if record.is_symlink() or (record.exists() and not record.is_file()):
        return None  # which would be written through, or waited for
    if not partial.exists() or {path.name for path in partial.iterdir()} <= {RECORD}:
        return {}
    try:
        found = parse_json(record.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) and KIND in found else None


def make(partial: Path):
    """Makes the folder where there is none.

    Raises:
      CheckpointError: the system does not let us.
    """
    try:
        partial.mkdir(exist_ok=True)
    except OSError as error:
        raise CheckpointError(
            f"{partial} cannot be made ({error.strerror}); choose another destination, "
            "or make that one writable"
        ) from None


def foreign_message(partial: Path) -> str:
    """The message for a `partial` that was not begun by jaxmoe."""
    return (
        f"{partial}: expected none, or an unfinished output with its {RECORD}, found "
        "something else; move it away or choose another destination"
    )


def begin_save(out: Path) -> Path:
    """Makes the directory to save `out` in, anew where an earlier save was killed.

    Raises:
      FileExistsError: it holds something else.
    """
    partial = partial_of(out)
    record = read_record(partial)
    if record is None:
        raise FileExistsError(foreign_message(partial))
    if record and record[KIND] != "save":
        raise FileExistsError(
            f"{partial}: expected none, found the unfinished output of "
            f"{record[KIND]!r}; let that finish, remove it, or save elsewhere"
        )
    if partial.exists():
        shutil.rmtree(partial)
    partial.mkdir(parents=True)
    (partial / RECORD).write_text(json.dumps({KIND: "save"}), encoding="utf-8")
    return partial
