"""A run's folder: its configuration, and its records as they come.

A run may be killed at any moment, also by a full disk, and goes on with the records
that are there. Several processes may draw shards of one run into one folder.
"""

import itertools
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from jaxmoe.checkpoints.gcs import Place, place_of, require_local
from jaxmoe.evals.bucket import MANIFEST, BucketRun
from jaxmoe.evals.grading import GRADING, ISOLATION, LIBRARIES, OPENS
from jaxmoe.evals.records import Record
from jaxmoe.evals.shards import WHOLE, Shard, encode, read_lines, records_files
from jaxmoe.files import lock, parse_json, replacing, sync, write_all

SYNC_SECONDS = 1.0
"""Records reach the disk this often, and at the end. A kill loses none that were added;
if the machine itself goes down, those of the last second may have to be drawn again."""
BUCKET_SECONDS = 15.0
"""The same in a bucket; there a kill loses what came since, too."""

_PARTIAL = "manifest.json.partial"
_BLOCK = 1 << 16
_SHOWN = 60


class RunWriteError(OSError):
    """The folder could not be written; says what is safely kept, and what to do."""


class RunDirectory:
    """A run directory, open for one process that adds the records of one shard.

        with RunDirectory("out", manifest) as run:
            for record in drawn:  # those that are not in run.done
                run.add(record)

    Entering raises ValueError where the folder holds something else or a run of another
    configuration, where another process draws the same shard or the run is being split
    otherwise, and where records are broken; RunWriteError where it cannot be written.

    done: (problem, sample) of the records that are there, of all shards as they were on
    entering. shown: what messages call the folder, which may be in a bucket.
    """

    def __init__(
        self, path: Path | str, manifest: Mapping[str, Any], shard: Shard = WHOLE
    ) -> None:
        """Nothing is read or written before entering.

        Args:
          path: the folder, or its gs:// address; made where it is missing.
          manifest: all that decides the answers, as JSON has it.
          shard: whose records this process adds.
        """
        place = place_of(path)
        self._bucket = None if place is None else BucketRun(place)
        self.path = Path(path) if self._bucket is None else self._bucket.folder
        self.shown = place or self.path
        self.shard = shard
        self.done: set[tuple[str, int]] = set()
        self.manifest = normalised(manifest)
        self._descriptor: int | None = None
        self._end = 0  # bytes of whole lines
        self._kept = 0  # of these, bytes that a bucket has
        self._torn = False  # whether there may be more bytes than those
        self._synced = 0  # records that have reached the disk
        self._synced_at = 0.0

    def __enter__(self) -> "RunDirectory":
        with _explained(self.shown):
            if self._bucket is not None:
                self._bucket.fetch()
            self.path.mkdir(parents=True, exist_ok=True)
            self._settle()
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
            descriptor = os.open(self._file, flags, 0o666)
        try:
            self._lock(descriptor)
            self._refuse_other_splits()
            with _explained(self.shown):
                self._take(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
        self._descriptor = descriptor
        return self

    def __exit__(self, *_: object) -> None:
        descriptor, self._descriptor = self._opened(), None
        try:
            self._sync(descriptor)
            self._close_bucket()
        finally:
            os.close(descriptor)  # and with it goes the lock

    def add(self, record: Record) -> None:
        """Appends a record, in one write; it outlives the process from then on.

        Raises:
          ValueError: the record is there already.
          RunWriteError: it could not be written. The file is as it was before, and
            adding may be tried again.
        """
        descriptor = self._opened()
        answer = (record.problem, record.sample)
        if answer in self.done:
            raise ValueError(
                f"expected a new record, found answer {answer[1]} to problem "
                f"{answer[0]!r} in {self.shown} already; draw only what is not in "
                "`done`"
            )
        try:
            self._append(descriptor, encode(record))
        except OSError as error:
            with suppress(OSError):
                self._keep(descriptor)
            raise self._not_written(error) from error
        self.done.add(answer)
        self.sync_if_due()

    def sync_if_due(self) -> None:
        """Makes what was added outlive the machine, if the last time is long ago.

        Raises:
          RunWriteError: it could not be written.
        """
        pause = SYNC_SECONDS if self._bucket is None else BUCKET_SECONDS
        waiting = len(self.done) > self._synced
        if waiting and time.monotonic() - self._synced_at >= pause:
            self._sync(self._opened())

    @property
    def _file(self) -> Path:
        return self.path / self.shard.file_name

    def _opened(self) -> int:
        if self._descriptor is None:
            raise ValueError(
                f"expected {self.path} to be open, found it closed; add records inside "
                "its `with` block"
            )
        return self._descriptor

    def _settle(self) -> None:
        """Makes sure that the run is of this configuration, here and in its bucket."""
        _settle_manifest(self.path, self.manifest, self.shown)
        if self._bucket is not None and not self._bucket.offer_manifest():
            _settle_manifest(self.path, self.manifest, self.shown)

    def _lock(self, descriptor: int) -> None:
        """Keeps the shard for this process, as long as the file is open."""
        if not _locks(descriptor, self._file):
            raise ValueError(
                f"another process draws shard {self.shard.index}/{self.shard.count} "
                f"into {self.shown}; wait for it, or choose another --out or shard"
            )

    def _refuse_other_splits(self) -> None:
        """Shards of different splits overlap, and would draw the same answers twice.

        One after the other they may: what one has drawn is done for the next.
        """
        for path, shard in records_files(self.path).items():
            if shard.count != self.shard.count and _in_use(path):
                raise ValueError(
                    f"another process draws shard {shard.index}/{shard.count} into "
                    f"{self.path}, which overlaps with {self.shard.index}/"
                    f"{self.shard.count}; split a run in one way at a time"
                )

    def _take(self, descriptor: int) -> None:
        """Cuts off half a line, and reads what is there."""
        self._end = self._kept = _end_of_lines(descriptor)
        self._cut(descriptor)
        lines = read_lines(records_files(self.path))
        self.done = {(line.record.problem, line.record.sample) for line in lines}
        os.fsync(descriptor)
        sync(self.path)
        self._synced = len(self.done)
        self._synced_at = time.monotonic()

    def _append(self, descriptor: int, line: bytes) -> None:
        """Adds a whole line, or nothing, whatever comes in between."""
        try:
            if self._torn:
                self._cut(descriptor)
            end = self._end + len(line)
            self._torn = True
            write_all(descriptor, line)
            self._end, self._torn = end, False
        except BaseException:
            # Where this fails too, the next `add` or the next run cuts it off.
            with suppress(OSError):
                self._cut(descriptor)
            raise

    def _cut(self, descriptor: int) -> None:
        os.ftruncate(descriptor, self._end)
        self._torn = False

    def _sync(self, descriptor: int) -> None:
        try:
            self._keep(descriptor)
        except OSError as error:
            raise self._not_written(error) from error
        self._synced_at = time.monotonic()

    def _keep(self, descriptor: int) -> None:
        """Makes what was added outlive this machine."""
        os.fsync(descriptor)
        if self._bucket is not None and self._end > self._kept:
            new = os.pread(descriptor, self._end - self._kept, self._kept)
            self._bucket.append(self.shard.file_name, self._kept, new)
            self._kept = self._end
        self._synced = len(self.done)

    def _close_bucket(self) -> None:
        if self._bucket is None:
            return
        try:
            self._bucket.close(self.shard.file_name)
        except OSError as error:
            raise self._not_written(error) from error

    def _not_written(self, error: OSError) -> RunWriteError:
        return RunWriteError(
            f"{self.shown}/{self._file.name} cannot be written "
            f"({error.strerror or error}); {self._synced} records are safely kept: "
            "put that right, and the same command goes on from there"
        )


# -- the manifest ----------------------------------------------------------------------


def normalised(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest as it comes back from its file: tuples as lists, keys as strings."""
    return json.loads(json.dumps(manifest, allow_nan=False))


def identity(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """A manifest without what does not make a run another run.

    How answers are graded was part of it once, and how programs are isolated
    belongs to that; whether prompts end within thinking follows from them.
    """
    left_out = ("grading", OPENS, ISOLATION)
    kept = {k: v for k, v in manifest.items() if k not in left_out}
    if kept.get("deep_conf") is None:  # which earlier versions had not
        kept.pop("deep_conf", None)
    versions = kept.get("versions")
    if isinstance(versions, dict):
        graders = set(itertools.chain.from_iterable(LIBRARIES.values()))
        kept["versions"] = {k: v for k, v in versions.items() if k not in graders}
    return kept


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a run directory.

    Raises:
      ValueError: there is none, or it is no JSON object.
    """
    path = folder / MANIFEST
    require_local(folder)
    try:
        found = parse_json(path.read_bytes())
    except FileNotFoundError:
        raise ValueError(
            f"expected a run directory with a {MANIFEST}, found none in {folder}; give "
            "the --out of a run"
        ) from None
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise ValueError(
            f"expected the JSON object of a run in {path}, found something else; "
            "choose another folder"
        )
    return found


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Gives a run another manifest at once, or leaves the one that is there."""
    with replacing(folder / MANIFEST) as file:
        file.write(_encoded(manifest))


def _encoded(manifest: Mapping[str, Any]) -> bytes:
    text = json.dumps(manifest, ensure_ascii=False, indent=1) + "\n"
    return text.encode("utf-8", "backslashreplace")


def differing(a: Mapping[str, Any], b: Mapping[str, Any]) -> list[str]:
    """Names that only one has, or that have other values, in order."""
    both = a.keys() & b.keys()
    return sorted(n for n in {**a, **b} if n not in both or a[n] != b[n])


def differences(
    first: Mapping[str, Any],
    second: Mapping[str, Any],
    first_is: str = "there",
    second_is: str = "here",
) -> str:
    """What differs between two manifests, entry by entry; empty where nothing does.

    "n: 4 there, 8 here; sampler.top_k: 20 there, absent here"; long values are cut to
    where they begin to differ.
    """
    both = _flat(first), _flat(second)
    parts = []
    for name in differing(*both):
        a, b = (json.dumps(v[name]) if name in v else "absent" for v in both)
        a, b = _shortened(a, b)
        parts.append(f"{name}: {a} {first_is}, {b} {second_is}")
    return "; ".join(parts)


def _settle_manifest(
    folder: Path, manifest: Mapping[str, Any], shown: Path | Place
) -> None:
    """Makes sure that the folder is of this configuration, or becomes so.

    shown: what messages call the folder.
    """
    if not (folder / MANIFEST).exists():
        _refuse_other_files(folder, shown)
        _create_manifest(folder, manifest)
    found = read_manifest(folder)
    if _is_earlier(found) and isinstance(manifest.get("policy"), Mapping):
        raise ValueError(
            f"{shown} was made by an earlier version of jaxmoe, which `compare` and "
            "`grade` can read but which cannot be gone on with; choose another --out"
        )
    if differ := differences(identity(found), identity(manifest)):
        raise ValueError(
            f"{shown} belongs to a run of another configuration ({differ}); choose "
            "another --out, or remove it to draw anew"
        )


def _is_earlier(manifest: Mapping[str, Any]) -> bool:
    """Whether it is of answers drawn here, and its policy text, as it was once."""
    return "format" in manifest and isinstance(manifest.get("policy"), str)


def _refuse_other_files(folder: Path, shown: Path | Place) -> None:
    others = sorted({path.name for path in folder.iterdir()} - {_PARTIAL, GRADING})
    # Another shard may have put its manifest there since.
    if others and not (folder / MANIFEST).exists():
        raise ValueError(
            f"expected a run directory or an empty folder, found {shown} with "
            f"{others[0]} and without {MANIFEST}; choose another --out"
        )


def _create_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Writes the manifest under another name, and renames it when it is whole.

    Shards may start at the same time with different configurations, so only the one
    that holds the lock of the other name writes, and only while there is no manifest.
    """
    partial = folder / _PARTIAL
    file = os.open(partial, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        lock(file, wait=True)
        if (folder / MANIFEST).exists():
            partial.unlink(missing_ok=True)
            return
        os.ftruncate(file, 0)
        write_all(file, _encoded(manifest))
        os.fsync(file)
        partial.replace(folder / MANIFEST)
        sync(folder)
    finally:
        os.close(file)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"data": {"rows": 3}} as {"data.rows": 3}."""
    flat = {}
    for name, value in values.items():
        inner = isinstance(value, dict) and value
        flat |= _flat(value, f"{prefix}{name}.") if inner else {prefix + name: value}
    return flat


def _shortened(a: str, b: str) -> tuple[str, str]:
    """Both, from a little before they part and not too long."""
    start = max(0, len(os.path.commonprefix([a, b])) - _SHOWN // 3)
    return _window(a, start), _window(b, start)


def _window(text: str, start: int) -> str:
    if len(text) <= _SHOWN:
        return text
    before = "..." if start else ""
    after = "..." if len(text) > start + _SHOWN else ""
    return before + text[start : start + _SHOWN] + after


# -- files -----------------------------------------------------------------------------


@contextmanager
def _explained(path: Path | Place) -> Iterator[None]:
    """Says of an error of the file system which folder it was about, and what to do."""
    try:
        yield
    except OSError as error:
        raise RunWriteError(
            f"expected a folder to keep records in, but {path} cannot be used "
            f"({error}); put that right, or choose another --out"
        ) from error


def _locks(descriptor: int, path: Path, *, shared: bool = False) -> bool:
    """Whether the file could be locked, at once."""
    try:
        return lock(descriptor, shared=shared)
    except OSError as error:
        raise RunWriteError(
            f"{path} cannot be locked ({error.strerror}); choose an --out on a file "
            "system with locks"
        ) from error


def _in_use(path: Path) -> bool:
    """Whether a process draws into the file."""
    with path.open("rb") as file:
        return not _locks(file.fileno(), path, shared=True)


def _end_of_lines(descriptor: int) -> int:
    """Bytes up to the last newline, that included."""
    end = os.fstat(descriptor).st_size
    while end:
        start = max(0, end - _BLOCK)
        place = os.pread(descriptor, end - start, start).rfind(b"\n")
        if place >= 0:
            return start + place + 1
        end = start
    return 0
