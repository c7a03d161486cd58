"""Records files: which problems a shard draws, where it keeps them, how they are read.

A run directory holds a file records-I-of-M.jsonl for each shard, a record a line. Lines
end with a newline character and with nothing else: U+2028 and its like stand inside
texts.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from jaxmoe.evals.records import Record

_SHOWN = 60
"""Characters of a broken line that its error shows."""


@dataclass(frozen=True)
class Shard:
    """Part `index` of `count`, drawn by one process; the whole run is 0 of 1.

    Raises:
      ValueError: not 0 <= index < count.
    """

    index: int
    count: int

    def __post_init__(self) -> None:
        if not 0 <= self.index < self.count:
            raise ValueError(_nonsense(f"{self.index}/{self.count}"))

    @classmethod
    def parse(cls, text: str) -> "Shard":
        """The shard of "2/4": the third of four, for they are counted from 0.

        Raises:
          ValueError: anything else than I/M with 0 <= I < M.
        """
        match = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text)
        if match is None:
            raise ValueError(_nonsense(repr(text)))
        return cls(int(match[1]), int(match[2]))

    def of(self, problem_index: int) -> bool:
        """Whether the problem with this index in its file belongs to the shard."""
        return problem_index % self.count == self.index

    @property
    def file_name(self) -> str:
        """The name of the shard's records file."""
        return f"records-{self.index}-of-{self.count}.jsonl"


WHOLE = Shard(0, 1)
"""The only shard of a run that is not split."""


@dataclass(frozen=True)
class Line:
    """A record, and where it stands: `size` bytes from byte `start` of the file on."""

    record: Record
    path: Path
    start: int
    size: int


def records_files(folder: Path) -> dict[Path, Shard]:
    """The records files of a folder, by number of shards and index.

    Raises:
      ValueError: a file whose name begins like theirs and goes on otherwise.
    """
    found = {path: _shard_of(path) for path in folder.glob("records-*.jsonl")}
    order = sorted(found, key=lambda path: (found[path].count, found[path].index))
    return {path: found[path] for path in order}


def encode(record: Record) -> bytes:
    """The record's line in UTF-8.

    Half a surrogate pair, which UTF-8 does not have, is escaped as JSON has it.
    """
    return record.line().encode("utf-8", "backslashreplace")


def read_lines(paths: Iterable[Path]) -> Iterator[Line]:
    """The records of several files, each (problem, sample) once.

    A last line without its newline is left out: a kill cut it off, or it is being
    written.

    Raises:
      ValueError: a line that is no record, or a (problem, sample) that occurs twice
        with different content.
    """
    seen: dict[tuple[str, int], tuple[bytes, Path]] = {}
    for path in paths:
        for line, raw in _lines_of(path):
            answer = (line.record.problem, line.record.sample)
            digest = blake2b(raw, digest_size=16).digest()
            if answer not in seen:
                seen[answer] = (digest, path)
                yield line
            elif seen[answer][0] != digest:
                raise ValueError(
                    f"expected one answer {answer[1]} to problem {answer[0]!r}, found "
                    f"two that differ, in {seen[answer][1]} and {path}; remove one of "
                    "the lines"
                )


def _lines_of(path: Path) -> Iterator[tuple[Line, bytes]]:
    """The whole lines of one file, as records and as they are."""
    start = 0
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            if not raw.endswith(b"\n"):
                return
            record = _parse(raw, path, number)
            yield Line(record, path, start, len(raw)), raw
            start += len(raw)


def _parse(raw: bytes, path: Path, number: int) -> Record:
    try:
        return Record.parse(raw.decode("utf-8"))
    except (ValueError, TypeError, RecursionError) as error:
        shown = raw[:_SHOWN].decode("utf-8", "replace")
        raise ValueError(
            f"{path}, line {number}: expected a record, found {shown!r} ({error}); "
            "remove the line, and its answer is drawn anew"
        ) from error


def _shard_of(path: Path) -> Shard:
    match = re.fullmatch(r"records-([0-9]+)-of-([0-9]+)\.jsonl", path.name)
    if match is not None and int(match[1]) < int(match[2]):
        shard = Shard(int(match[1]), int(match[2]))
        if shard.file_name == path.name:  # no leading zeros
            return shard
    raise ValueError(
        f"expected names such as {WHOLE.file_name} of records files, found {path}; "
        "rename it, or move it out of the run directory"
    )


def _nonsense(found: str) -> str:
    return (
        f"a shard must be I/M with 0 <= I < M, found {found}; two processes draw the "
        "shards 0/2 and 1/2"
    )
