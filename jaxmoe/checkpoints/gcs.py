"""Checkpoints in Google Cloud Storage: `gs://bucket/path` where a local path may stand.

TensorStore reads them, as whoever the machine is logged in as: the file that
GOOGLE_APPLICATION_CREDENTIALS names, `gcloud auth application-default login`, the
service account of a virtual machine, or nobody, which public buckets allow.
"""

import functools
import os
import re
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxmoe.files import MOST_BYTES, read_small, too_large

SMALL = (".json", ".jinja", ".txt", ".model")
"""Endings of the files beside the arrays: configs, templates, tokenizers."""
FOLDERS = ("params/", "source/")
"""What `fetch_small_files` leaves where it is: arrays, and headers for an export."""
IN_FLIGHT = 8
"""Chunks under way at once in all threads of a process, of 32 MiB at most."""
KEPT_BYTES = 128 << 20
"""Chunks kept for the other devices of this process that want a part of them."""
PIECE_BYTES = 32 << 20
"""Of a file of any size, asked for at a time."""
RETRIES = 6
"""Of a request that fails for a moment, after 1, 2, 4, ... seconds."""


@dataclass(frozen=True)
class Place:
    """A folder in a bucket; `prefix` is empty or ends in a slash."""

    bucket: str
    prefix: str

    def __str__(self) -> str:
        """The address as a user writes it."""
        return f"gs://{self.bucket}/{self.prefix}".rstrip("/")


def place_of(path: str | os.PathLike) -> Place | None:
    """The place in a bucket that `path` names; None where it is local.

    Raises:
      ValueError: an address that is neither local nor of Google Cloud Storage.
    """
    text = os.fspath(path)
    # pathlib.Path drops one slash of the two.
    found = re.fullmatch(r"gs:/{1,2}([^/]+)(?:/(.*))?", text)
    if found:
        inner = (found[2] or "").strip("/")
        return Place(found[1], inner + "/" if inner else "")
    if re.match(r"[a-z][a-z0-9+.-]*://", text):
        raise ValueError(
            f"expected a local path or gs://bucket/directory, found {text}; copy the "
            "checkpoint to one of the two"
        )
    return None


def require_local(path: str | os.PathLike) -> None:
    """Refuses an address in a bucket.

    Raises:
      ValueError: it is one; the message says how to have the files here.
    """
    if place := place_of(path):
        raise ValueError(
            f"expected a local path, found {place}; choose one here, or copy it with: "
            f"gcloud storage cp --recursive {place} ."
        )


def store_spec(path: str | os.PathLike, *parts: str) -> dict[str, Any]:
    """TensorStore's description of the folder `parts` of the checkpoint `path`."""
    place = place_of(path)
    if place is None:
        folder = openable(Path(path)).joinpath(*parts)
        return {"driver": "file", "path": f"{folder}/"}
    inner = "".join(f"{part}/" for part in parts)
    return {"driver": "gcs", "bucket": place.bucket, "path": place.prefix + inner}


def openable(folder: Path) -> Path:
    """A local folder by a path that TensorStore takes.

    It takes none with `..` in it, nor one that is not UTF-8, and reads a backslash as a
    slash: then the path is that of a link, which is gone when Python ends.
    """
    found = folder.resolve()
    return _link_to(found) if _ODD.search(str(found)) else found


_ODD = re.compile(r"[\\\ud800-\udfff]")
_LINKS: dict[Path, tempfile.TemporaryDirectory] = {}
_LINKING = threading.Lock()


def _link_to(folder: Path) -> Path:
    with _LINKING:
        if folder not in _LINKS:
            made = tempfile.TemporaryDirectory(prefix="jaxmoe-")
            Path(made.name, "link").symlink_to(folder)
            _LINKS[folder] = made
    return Path(_LINKS[folder].name, "link")


def context(path: str | os.PathLike) -> Any:
    """The TensorStore context to read `path` in; one for all that is read.

    Its limits hold for the process, so that the memory in hand does not grow with the
    number of processors.
    """
    return _context(place_of(path) is not None)


@functools.lru_cache(maxsize=2)
def _context(remote: bool) -> Any:
    import tensorstore as ts

    if not remote:
        mapped = {"file_io_mode": {"mode": "memmap"}}
        return ts.Context(mapped | {"file_io_concurrency": {"limit": IN_FLIGHT}})
    return ts.Context(
        {
            "gcs_request_concurrency": {"limit": IN_FLIGHT},
            "gcs_request_retries": {"max_retries": RETRIES},
            "cache_pool": {"total_bytes_limit": KEPT_BYTES},
        }
    )


def read_file(path: str | os.PathLike, name: str) -> bytes | None:
    """The content of the small file `name` of the directory `path`; None for none.

    Raises:
      ValueError: it has more than `MOST_BYTES`.
      PermissionError: Google Cloud Storage refuses to show it.
      OSError: it cannot be read.
    """
    place = place_of(path)
    if place is None:
        file = Path(path) / name
        return read_small(file) if file.is_file() else None
    store = _store(path)
    try:
        # An object does not say its size before all of it is read.
        more = _part(store, name, MOST_BYTES, MOST_BYTES + 1)
        found = None if more else store.read(name).result()
    except ValueError as error:
        raise explained(f"{place}/{name}", error) from None
    if found is None:
        raise too_large(f"{place}/{name}", "more")
    return None if found.state == "missing" else found.value


def append_file(path: str | os.PathLike, name: str, target: Path) -> bool:
    """Appends file `name` of the directory `path` in a bucket to a local file.

    A piece at a time, so that no more than one is held. False where there is no such
    file.

    Raises:
      PermissionError: Google Cloud Storage refuses to show it.
      OSError: it cannot be read or written.
    """
    store, start = _store(path), 0
    with target.open("ab") as file:
        try:
            while piece := _part(store, name, start, start + PIECE_BYTES):
                start += file.write(piece)
            # What is left is less than a piece, or nothing at all.
            rest = _part(store, name, start, None)
        except ValueError as error:
            raise explained(f"{place_of(path)}/{name}", error) from None
        if rest is None:
            return start > 0
        file.write(rest)
    return True


def _part(store: Any, name: str, start: int, stop: int | None) -> bytes | None:
    """Bytes of an object; None where it is missing or ends before what is asked."""
    try:
        found = store.read(name, byte_range=slice(start, stop)).result()
    except ValueError as error:
        if "OUT_OF_RANGE" in str(error):
            return None
        raise
    return None if found.state == "missing" else found.value


def fetch_file(path: str | os.PathLike) -> Path:
    """A local file with the content of `path`, which may be local already.

    Raises:
      FileNotFoundError: the bucket has no such object.
      OSError: it cannot be read.
    """
    place = place_of(path)
    if place is None:
        return Path(path)
    folder, _, name = str(place).rpartition("/")
    target = Path(tempfile.mkdtemp(dir=scratch().name)) / name
    if not append_file(folder, name, target):
        raise FileNotFoundError(
            f"{place}: expected a file, found no such bucket or object; look at the "
            "address"
        )
    return target


def create_file(path: str | os.PathLike, name: str, content: bytes) -> bool:
    """Writes file `name` of the directory `path`, unless there is one: then False.

    Raises:
      PermissionError: Google Cloud Storage refuses.
      OSError: it cannot be written.
    """
    store = _store(path)
    try:
        before = store.read(name).result()
        if before.state != "missing":
            return False
        absent = before.stamp.generation
        return bool(store.write(name, content, if_equal=absent).result().generation)
    except ValueError as error:
        raise explained(f"{place_of(path)}/{name}", error, "write") from None


def write_file(path: str | os.PathLike, name: str, content: bytes) -> None:
    """Writes file `name` of the directory `path`, in the place of one that is there.

    Raises:
      PermissionError: Google Cloud Storage refuses.
      OSError: it cannot be written.
    """
    try:
        _store(path).write(name, content).result()
    except ValueError as error:
        raise explained(f"{place_of(path)}/{name}", error, "write") from None


def names(path: str | os.PathLike) -> list[str]:
    """The names of all files below the directory `path`, sorted.

    Raises:
      PermissionError: Google Cloud Storage refuses.
      OSError: it cannot be read.
    """
    try:
        return sorted(name.decode() for name in _store(path).list().result())
    except ValueError as error:
        raise explained(str(place_of(path)), error) from None


def _store(path: str | os.PathLike) -> Any:
    import tensorstore as ts

    return ts.KvStore.open(store_spec(path), context=context(path)).result()


def explained(what: str, error: Exception, wish: str = "read") -> OSError:
    """The error to raise where reading `what` from a bucket failed with `error`.

    wish: "read" or "write".
    """
    said = str(error)
    role = "Viewer" if wish == "read" else "User"
    if re.search(r"PERMISSION_DENIED|UNAUTHENTICATED|code='40[13]'", said):
        return PermissionError(
            f"{what}: expected to {wish} it, but Google Cloud Storage refuses "
            f"({said[:200]}); log in with `gcloud auth application-default login`, or "
            f"have the role Storage Object {role} given to this machine's account"
        )
    return OSError(
        f"{what}: expected to {wish} it, but Google Cloud Storage failed "
        f"({said[:200]}); look at the address and the network, then try again"
    )


def fetch_small_files(path: str | os.PathLike) -> Path:
    """A local directory with the files of checkpoint `path` beside its arrays.

    Config, generation config, manifest, tokenizer and chat templates. A local path is
    given back as it is; of a bucket they are copied into a directory that goes away
    with this process.

    Raises:
      FileNotFoundError: no such bucket, or no model there.
      PermissionError: Google Cloud Storage refuses.
      OSError: something cannot be read.
    """
    place = place_of(path)
    if place is None:
        return Path(path)
    if read_file(path, "config.json") is None:
        raise FileNotFoundError(
            f"{place}: expected a checkpoint with config.json, found no such bucket "
            "or object; look at the address, or copy the checkpoint there"
        )
    names = [name for name in _listing(path) if name.endswith(SMALL)]
    if "config.json" not in names:
        raise PermissionError(
            f"{place}: expected to list its objects, but Google Cloud Storage shows "
            "none; have the role Storage Object Viewer given to this machine's account"
        )
    target = Path(tempfile.mkdtemp(dir=scratch().name))
    for name in names:
        content = read_file(path, name)
        # A bucket's names may be anything: /etc/x, ../x.
        inside = (target / name).resolve().is_relative_to(target.resolve())
        if content is not None and inside:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            (target / name).write_bytes(content)
    return target


def _listing(path: str | os.PathLike) -> list[str]:
    """Names in the folder `path`, those in `FOLDERS` left out.

    Ranges of names, as the arrays of a large model have thousands of chunks.
    """
    import tensorstore as ts

    store, start, names = _store(path), "", []
    for folder in [*sorted(FOLDERS), ""]:
        span = ts.KvStore.KeyRange(start, folder)
        try:
            names += [name.decode() for name in store.list(span).result()]
        except ValueError as error:
            raise explained(str(place_of(path)), error) from None
        start = folder[:-1] + "0"  # "0" comes after "/"
    return names


@functools.lru_cache(maxsize=1)
def scratch() -> tempfile.TemporaryDirectory:
    """For copies of what a bucket has; it goes away with this process."""
    return tempfile.TemporaryDirectory(prefix="jaxmoe-")
