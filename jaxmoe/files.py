"""Files that are whole or not there, their locks, and small files of others."""

import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

MOST_BYTES = 256 << 20
"""Of a file beside the weights; the largest tokenizers have some 40 MB."""
_MOST_DEPTH = 100
"""Of objects and lists within each other."""
_AGAIN = "copy it again, or download it"


def read_small(path: Path) -> bytes:
    """The content of a file that somebody else wrote, and that should be small.

    Raises:
      ValueError: a folder, pipe or device, or more than `MOST_BYTES`.
      FileNotFoundError: no such file.
    """
    if path.exists() and not path.is_file():
        raise ValueError(f"{path}: expected a file, found a folder, pipe or device")
    if not path.exists():
        raise FileNotFoundError(f"expected the file {path}, found none; {_AGAIN}")
    check_small(path)
    return path.read_bytes()


def check_small(path: Path) -> None:
    """A ValueError where a file has more than `MOST_BYTES`."""
    if (size := path.stat().st_size) > MOST_BYTES:
        raise too_large(str(path), f"{size >> 20} MB")


def too_large(name: str, found: str) -> ValueError:
    """The error to raise where a file has more than `MOST_BYTES`."""
    return ValueError(
        f"{name}: expected at most {MOST_BYTES >> 20} MB, found {found}; {_AGAIN}"
    )


def read_small_text(path: Path) -> str:
    """The text of such a file; a ValueError where it is not UTF-8."""
    try:
        return read_small(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: expected text in UTF-8, found {error.reason} at byte "
            f"{error.start}; {_AGAIN}"
        ) from None


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in such a file.

    Raises:
      ValueError, FileNotFoundError: as in `read_small`, or no JSON object.
    """
    return parse_object(read_small(path), str(path))


def parse_json(text: str | bytes) -> Any:
    """The value of JSON; a ValueError for what is none, or nested too deeply."""
    try:
        return json.loads(text.decode("utf-8") if isinstance(text, bytes) else text)
    except RecursionError:
        raise ValueError("nested too deeply to be read") from None


def parse_object(raw: bytes, name: str, remedy: str = _AGAIN) -> dict[str, Any]:
    """The object in JSON, nested no deeper than code may walk down.

    Raises:
      ValueError: something else; it names the file and the remedy.
    """
    try:
        value = parse_json(raw)
    except ValueError as error:
        raise ValueError(
            f"{name} is not readable as JSON ({error}); {remedy}"
        ) from None
    if not isinstance(value, dict):
        found = type(value).__name__
        raise ValueError(f"{name} must hold a JSON object, found {found}; {remedy}")
    level: list[Any] = [value]
    for _ in range(_MOST_DEPTH):
        level = [item for inner in level for item in _within(inner)]
        if not level:
            return value
    raise ValueError(
        f"{name} is not readable as JSON (nested more than {_MOST_DEPTH} deep); "
        + remedy
    )


def _within(value: dict | list) -> list[Any]:
    items = value.values() if isinstance(value, dict) else value
    return [item for item in items if isinstance(item, dict | list)]


_CONTROL = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"
    # Of direction or without width, and other ends of lines.
    "\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\ud800-\udfff\U000e0000-\U000e007f]"
)


def printable(text: str) -> str:
    """`text` with controls written out, which would move the cursor or hide text.

    Tabs and line feeds stay.

    >>> printable("\x1b[2Jhello")
    '\\x1b[2Jhello'
    """
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], text)


# -- writing ---------------------------------------------------------------------------


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A new file that becomes `path`, on the disk, when the block ends well.

    Until then it has another name beside `path`; where the block fails it goes away.
    """
    partial = path.with_name(f".{path.name}.partial")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except BaseException:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise
    sync(path.parent)


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8, whole or not at all; see `replacing`."""
    with replacing(path) as file:
        file.write(text.encode("utf-8"))


def write_all(descriptor: int, data: bytes) -> None:
    """Writes all bytes: a full disk takes a part first, and then refuses the rest."""
    while data:
        data = data[os.write(descriptor, data) :]


def sync(path: Path) -> None:
    """Forces a file's bytes, or a folder's names, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def lock(file: IO | int, *, shared: bool = False, wait: bool = False) -> bool:
    """Locks an open file for as long as it is open; whether that was possible.

    Args:
      shared: together with others that ask for the same. wait: until it is free.

    Raises:
      OSError: the file system has no locks.
    """
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    try:
        fcntl.flock(file, kind if wait else kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def unlock(file: IO | int) -> None:
    """Gives a lock up, the file staying open."""
    fcntl.flock(file, fcntl.LOCK_UN)
