"""Where the output goes: under a temporary name until complete, then renamed."""

import errno
import fcntl
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from convert.errors import ConversionError
from jaxmoe.checkpoint import MANIFEST, sync

LOCK = "in-progress.json"
RECEIPTS = "receipts"
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


def check_space(out: Path, nbytes: int):
    """Refuses to begin what cannot fit: `nbytes` are still to be written."""
    free = shutil.disk_usage(out.resolve().parent).free
    if free < nbytes:
        raise ConversionError(
            f"{out} needs {nbytes / 1e9:.2f} GB, {free / 1e9:.2f} GB are free; make "
            "room or choose another destination"
        )


@contextmanager
def staged(out: Path, identity: dict, *, force: bool) -> Iterator[Path]:
    """The directory to write, kept for resuming unless the disk was full.

    Args:
      out: the destination; it is made, or replaced, when the block ends well.
      identity: what is being written. An unfinished directory is continued if it was
        begun with the same, else refused, or with `force` begun anew.
      force: see `identity`.

    Raises:
      ConversionError: as above; another process is at it; the disk is full.
    """
    partial = out.with_name(out.name + ".partial")
    partial.mkdir(exist_ok=True)
    with (partial / LOCK).open("a+", encoding="utf-8") as lock:
        _lock(lock, partial)
        _begin(lock, partial, identity, force)
        try:
            yield partial
            _replace(partial, out)
            # Last: a kill before the rename must leave what resuming needs.
            shutil.rmtree(out / RECEIPTS, ignore_errors=True)
            (out / LOCK).unlink()
        except Exception as error:
            if not _is_full(error):
                raise
            shutil.rmtree(partial, ignore_errors=True)
            raise ConversionError(
                f"no room left while writing {partial} ({error}); it was removed; "
                "make room or choose another destination"
            ) from None


def _lock(lock, partial: Path):
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise ConversionError(
            f"another process is writing {partial}; wait for it, or stop it"
        ) from None


def _begin(lock, partial: Path, identity: dict, force: bool):
    text = json.dumps(identity, sort_keys=True)
    lock.seek(0)
    before = lock.read()
    others = [path for path in partial.iterdir() if path.name != LOCK]
    if before != text and others:
        if not force:
            raise ConversionError(
                f"{partial} is the unfinished output of another source or of other "
                "options, expected none or one of this source; remove it, or pass "
                "--force to begin anew"
            )
        for path in others:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    lock.seek(0)
    lock.truncate()
    lock.write(text)
    lock.flush()
    os.fsync(lock.fileno())


def _replace(partial: Path, out: Path):
    old = out.with_name(out.name + ".old")
    if out.exists():
        if old.exists():
            shutil.rmtree(old)
        out.rename(old)
    partial.rename(out)
    if old.exists() and (any(old.glob(MANIFEST)) or any(old.glob("*.safetensors"))):
        shutil.rmtree(old)
    elif old.exists():
        old.rmdir()
    # The rename itself has to reach the disk.
    fd = os.open(out.resolve().parent, os.O_RDONLY)
    os.fsync(fd)
    os.close(fd)


def _is_full(error: BaseException) -> bool:
    if isinstance(error, OSError) and error.errno in _FULL:
        return True
    # TensorStore reports the system's words.
    return any(os.strerror(code) in str(error) for code in _FULL)


def carry(source: Path, out: Path, names: tuple[str, ...]):
    """Copies the files of `names` that exist, byte for byte."""
    for name in names:
        if (source / name).is_file():
            shutil.copyfile(source / name, out / name)
    sync(out)
