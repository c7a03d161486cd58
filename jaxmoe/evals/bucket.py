"""A run directory in Google Cloud Storage, as the local folder that stands for it.

Objects cannot be appended to. What a process has drawn since it last wrote goes into an
object of its own, records-0-of-1.jsonl.parts/N, where N is the byte of the records file
at which it begins. At the end of a process the whole file is written beside them, as a
local run has it: `gcloud storage cp` of it is a run directory.

Each part is created only where there is none of its name. So of two processes that draw
the same shard the second is refused at its first write, and nothing locks a run whose
machine is gone.
"""

import itertools
import os
import re
import tempfile
from pathlib import Path

from jaxmoe.checkpoints import gcs
from jaxmoe.evals.grading import GRADING
from jaxmoe.evals.times import PREFIX as TIMES

MANIFEST = "manifest.json"
PARTS = ".parts/"


class BucketRun:
    """The run at a place in a bucket.

    folder: the local directory that stands for it, empty before `fetch`; it goes away
    with this process.
    """

    def __init__(self, place: gcs.Place):
        """Nothing is read or written yet."""
        self.place = place
        name = place.prefix.rstrip("/").rpartition("/")[2] or place.bucket
        self.folder = Path(tempfile.mkdtemp(dir=gcs.scratch().name)) / name

    def fetch(self) -> None:
        """Copies what the bucket has of the run into `folder`.

        Raises:
          PermissionError: Google Cloud Storage refuses.
          OSError: something cannot be read.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        names = gcs.names(self._address)
        files = {name.partition(PARTS)[0] for name in names}
        # A bucket's names may be anything; a run has no folders but those of parts.
        for file in sorted(file for file in files if "/" not in file):
            if file in (MANIFEST, GRADING):
                content = self._read(file) if file in names else b""
                (self.folder / file).write_bytes(content)
            elif file.startswith(("records-", TIMES)):
                self._fetch_records(file, names)
            else:  # of something else, and maybe large; its name is refused
                (self.folder / file).touch()

    def offer_manifest(self) -> bool:
        """Puts the folder's manifest into the bucket; False if another came first."""
        content = (self.folder / MANIFEST).read_bytes()
        if gcs.create_file(self._address, MANIFEST, content):
            return True
        (self.folder / MANIFEST).write_bytes(self._read(MANIFEST))
        return False

    def append(self, file: str, start: int, content: bytes) -> None:
        """Keeps bytes of a records file from byte `start` on.

        Raises:
          ValueError: another process has written there.
          OSError: it cannot be written.
        """
        while content:
            name = f"{file}{PARTS}{start:016d}"
            if gcs.create_file(self._address, name, content):
                return
            # Ours, if the reply to a write was lost and the write was tried again.
            there = self._read(name)
            if not (there and content.startswith(there)):
                raise ValueError(
                    f"another process draws this shard into {self.place}; wait for it, "
                    "or choose another --out or shard"
                )
            start, content = start + len(there), content[len(there) :]

    def close(self, file: str) -> None:
        """Writes the whole records file, how long it took, how answers were graded."""
        for name in (file, file.replace("records-", TIMES), GRADING):
            if (self.folder / name).exists():
                content = (self.folder / name).read_bytes()
                gcs.write_file(self._address, name, content)

    @property
    def _address(self) -> str:
        return str(self.place)

    def _fetch_records(self, file: str, names: list[str]) -> None:
        """Copies a records file as it was last written, and the parts since."""
        target = self.folder / file
        target.touch()
        if file in names:
            self._append_to(target, file)
        parts = [name for name in names if _is_part(name, file)]
        for part, after in itertools.zip_longest(parts, parts[1:]):
            size = target.stat().st_size
            if after is not None and _start(after) <= size:
                continue
            if _start(part) > size:
                raise OSError(
                    f"{self.place}/{part} begins after byte {size}, where a part is "
                    "missing; restore it, or remove those after it to draw their "
                    "answers again"
                )
            os.truncate(target, _start(part))
            self._append_to(target, part)

    def _append_to(self, target: Path, name: str) -> None:
        if not gcs.append_file(self._address, name, target):
            raise self._removed(name)

    def _read(self, name: str) -> bytes:
        found = gcs.read_file(self._address, name)
        if found is None:
            raise self._removed(name)
        return found

    def _removed(self, name: str) -> OSError:
        return OSError(f"{self.place}/{name} was removed while it was read")


def run_folder(path: Path | str) -> Path:
    """The local folder of a run to be read: `path`, or a copy of what a bucket has."""
    place = gcs.place_of(path)
    if place is None:
        return Path(path)
    run = BucketRun(place)
    run.fetch()
    return run.folder


def _is_part(name: str, file: str) -> bool:
    """Whether an object is a part of a records file; consoles make others."""
    return re.fullmatch("[0-9]{16}", name.removeprefix(file + PARTS)) is not None


def _start(part: str) -> int:
    return int(part.rpartition("/")[2])
