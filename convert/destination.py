"""Where the output goes: under a temporary name until complete, then renamed."""

import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import TextIO

from convert.errors import ConversionError
from jaxmoe import files
from jaxmoe.checkpoints.partial import (
    KIND,
    RECORD,
    foreign_message,
    make,
    partial_of,
    read_record,
)
from jaxmoe.checkpoints.store import MANIFEST, sync

EXPORTED = "model.safetensors*"
"""A pattern of files one of which is in every export: the weights or their index."""
RECEIPTS = "receipts"
WORKERS = "workers"
"""The record's key for the number of processes that write together."""
_ADDED = len(".old-12345678")
"""Bytes that are added to the name of an output, at most."""
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def check(source: Path, out: Path, *, force: bool, marker: str):
    """Refuses a destination that must not be written.

    Args:
      source: the directory that is read.
      out: the destination.
      force: whether an existing destination may be replaced.
      marker: a pattern of files found in what such a command wrote; nothing else is
        replaced, so that a slip of the finger does not remove a home directory.

    Raises:
      ConversionError: it exists, is a file, overlaps the source, or has no parent.
    """
    here, there = source.resolve(), out.resolve()
    if here.is_relative_to(there) or there.is_relative_to(here):
        raise ConversionError(
            f"{out} and the source {source} lie in one another; choose a directory "
            "apart"
        )
    if there.parent.is_dir():
        _check_length(there)
    if out.is_symlink() or (out.exists() and not out.is_dir()):
        raise ConversionError(
            f"{out} must be a new directory, found a file or a link; choose another"
        )
    if not there.parent.is_dir():
        raise ConversionError(
            f"{there.parent} must be a directory, found none; create it first"
        )
    if not out.exists() or not any(out.iterdir()):
        return
    if not force:
        raise ConversionError(
            f"{out} exists; choose another destination, or pass --force to replace it"
        )
    if not any(out.glob(marker)):
        raise ConversionError(
            f"{out} exists and holds no {marker}: --force replaces only what this "
            "command wrote; remove it yourself or choose another destination"
        )


def _check_length(out: Path):
    longest = os.pathconf(out.parent, "PC_NAME_MAX") - _ADDED
    if (found := len(os.fsencode(out.name))) > longest:
        raise ConversionError(
            f"{out}: expected a name of at most {longest} bytes, which leaves room for "
            f"that of an unfinished output, found {found}; choose a shorter one"
        )


def check_space(out: Path, nbytes: int):
    """Refuses to begin what cannot fit: `nbytes` are still to be written."""
    free = shutil.disk_usage(out.resolve().parent).free
    if free < nbytes:
        raise ConversionError(
            f"{out} needs {nbytes / 1e9:.2f} GB, {free / 1e9:.2f} GB are free; make "
            "room or choose another destination"
        )


@contextmanager
def staged(
    out: Path, identity: dict, *, force: bool, resume: bool = True
) -> Iterator[Path]:
    """The directory to write; after a failure it is kept if parameters are finished.

    Args:
      out: the destination; it is made, or replaced, when the block ends well.
      identity: what is being written, `KIND` among it. An unfinished directory is
        continued if it was begun with the same, else refused.
      force: begin an unfinished output of something else anew.
      resume: False begins each unfinished output of the same kind anew.

    Raises:
      ConversionError: as above; what is in the way was not begun here; another
        process is at it; the disk is full.
    """
    partial = partial_of(out)
    if read_record(partial) is None:
        raise ConversionError(foreign_message(partial))
    make(partial)
    with (partial / RECORD).open("a+", encoding="utf-8") as lock:
        _lock(lock, partial)
        begin(lock, partial, identity, force=force, resume=resume)
        try:
            yield partial
            complete(partial, out)
        except BaseException as error:
            full = is_full(error)
            if full or not any((partial / RECEIPTS).glob("*.json")):
                shutil.rmtree(partial, ignore_errors=True)
            if not full:
                raise
            raise ConversionError(
                f"no room left while writing {partial} ({error}); it was removed; "
                "make room or choose another destination"
            ) from None


def complete(partial: Path, out: Path):
    """Gives the finished `partial` its name, and removes what was kept to resume."""
    old = _replace(partial, out)
    # After the rename: a kill before must leave what resuming needs.
    shutil.rmtree(out / RECEIPTS, ignore_errors=True)
    (out / RECORD).unlink()
    if old is not None:
        shutil.rmtree(old)


def _lock(lock: TextIO, partial: Path):
    if not try_lock(lock, partial):
        raise ConversionError(busy_message(partial))


def busy_message(partial: Path) -> str:
    """The message for a `partial` that another process has locked."""
    return f"another process is writing {partial}; wait for it, or stop it"


def try_lock(lock: TextIO, partial: Path, *, shared: bool = False) -> bool:
    """Locks the open record of `partial`, without waiting; whether that was possible.

    shared: together with others that ask for the same.
    """
    try:
        locked = files.lock(lock, shared=shared)
    except OSError:
        return False
    return locked and is_in_place(lock, partial)


def is_in_place(lock: TextIO, partial: Path) -> bool:
    """Whether the open record is the one in `partial`.

    Whoever held it may have finished, and taken the file along.
    """
    try:
        there = (partial / RECORD).stat()
    except OSError:
        return False
    return os.path.samestat(os.fstat(lock.fileno()), there)


def begin(
    lock: TextIO, partial: Path, identity: dict, *, force: bool, resume: bool = True
):
    """Makes `partial`, locked for this process alone, one of `identity`.

    Raises:
      ConversionError: it holds something else, which `force` does not remove.
    """
    before = read_record(partial)
    if before is None:
        raise ConversionError(foreign_message(partial))
    if resume and before == identity:
        return
    if before:
        if not force and (resume or before[KIND] != identity[KIND]):
            raise other_error(partial, before, identity)
        for path in partial.iterdir():
            if path.name != RECORD:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
    lock.seek(0)
    lock.truncate()
    lock.write(json.dumps(identity, sort_keys=True))
    lock.flush()
    os.fsync(lock.fileno())


def other_error(partial: Path, before: dict, identity: dict) -> ConversionError:
    """The error for a `partial` that was begun as something else than `identity`."""
    was, now = (record.get(WORKERS, 1) for record in (before, identity))
    rest = [{k: v for k, v in r.items() if k != WORKERS} for r in (before, identity)]
    if rest[0] == rest[1]:
        how = "without --worker" if was == 1 else f"with --worker I/{was}"
        return ConversionError(
            f"{partial} was begun by {was} workers, expected {now}; go on {how}, or "
            "pass --force to begin anew"
        )
    return ConversionError(
        f"{partial} is the unfinished output of another source or of other options, "
        "expected none or one of this source; remove it, or pass --force to begin anew"
    )


def _replace(partial: Path, out: Path) -> Path | None:
    """Renames `partial` to `out`; what was there gets a new name, which is returned."""
    old = None
    if out.exists():
        if any(out.iterdir()) and not any([*out.glob(MANIFEST), *out.glob(EXPORTED)]):
            raise ConversionError(
                f"{out} was filled by something else in the meantime; move that away "
                "and run the same command again"
            )
        # Made here, so that it is nobody else's; renaming replaces an empty directory.
        old = Path(tempfile.mkdtemp(prefix=f"{out.name}.old-", dir=out.parent))
        out.rename(old)
    try:
        partial.rename(out)
    except OSError:
        if old is not None:
            old.rename(out)
        raise
    # The rename itself has to reach the disk.
    files.sync(out.resolve().parent)
    return old


def is_full(error: BaseException) -> bool:
    """Whether an error says that the disk, or the room one may take, is full."""
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    # TensorStore reports the system's words.
    return any(os.strerror(code) in str(error) for code in _FULL)


def clear(partial: Path, keep: tuple[str, ...]):
    """Removes what an earlier attempt left in `partial`, but for what resuming needs.

    keep: patterns of names that stay.
    """
    kept = {RECORD, RECEIPTS, *(p.name for name in keep for p in partial.glob(name))}
    for path in partial.iterdir():
        if path.name not in kept:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def absolute(path: str | os.PathLike) -> Path:
    """`path` without `.` and `..`; its last name may still be a link.

    TensorStore takes no path with dots in it, and `NAME.partial` needs a name.

    Raises:
      ConversionError: a path that is not UTF-8, which TensorStore cannot open.
    """
    path = Path(path)
    named = path.name not in ("", "..")
    found = path.parent.resolve() / path.name if named else path.resolve()
    if not _is_utf8(str(found)):
        raise ConversionError(
            f"{str(path)!a}: expected a path in UTF-8, found other bytes; rename it"
        )
    return found


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def make_folders(out: Path, names: Iterable[str]):
    """Makes the folders in `out` that the files `names` lie in."""
    for name in names:
        (out / name).parent.mkdir(parents=True, exist_ok=True)


def sync_folders(out: Path, names: Iterable[str]):
    """Forces `out` and the folders in it with the files `names` to the disk."""
    for folder in {PurePath(), *(p for name in names for p in PurePath(name).parents)}:
        sync(out / folder)


def carry(source: Path, out: Path, patterns: tuple[str, ...]):
    """Copies the files that match one of `patterns`, byte for byte."""
    found = (path for pattern in patterns for path in source.glob(pattern))
    names = [str(path.relative_to(source)) for path in found if path.is_file()]
    make_folders(out, names)
    for name in names:
        shutil.copyfile(source / name, out / name)
    sync_folders(out, names)
