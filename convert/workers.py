"""Workers that write one output, and the locks that keep them apart.

The record in NAME.partial is locked (flock): shared by all who write, for one alone
while he begins or commits. Not every network disk carries such locks, or shows new
files at once, to other hosts: NFS does where its lock service runs, Lustre where it is
mounted with `flock`, a bucket mounted as a disk does not. Where they do not, convert on
one host (`--processes`). If every worker says that others are still at it, and none is,
any one of them run again commits.
"""

import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from convert import destination
from convert.errors import ConversionError
from convert.to_jaxmoe import Receipt, read_receipt
from jaxmoe import files
from jaxmoe.checkpoints import store
from jaxmoe.checkpoints.partial import (
    RECORD,
    foreign_message,
    make,
    partial_of,
    read_record,
)
from jaxmoe.checkpoints.plan import Fill

PATIENCE = 10.0
"""Seconds to wait for another process that holds the lock for something else."""
PAUSE = 0.05
"""Seconds between two tries."""


@dataclass(frozen=True)
class Worker:
    """Process `index` of `count`, counted from 0.

    Raises:
      ConversionError: not 0 <= index < count.
    """

    index: int
    count: int

    def __post_init__(self):
        if not 0 <= self.index < self.count:
            raise ConversionError(_nonsense(f"{self.index}/{self.count}"))

    @classmethod
    def parse(cls, text: str) -> "Worker":
        """The worker of "2/4": the third of four.

        Raises:
          ConversionError: anything else than I/M with 0 <= I < M.
        """
        found = re.fullmatch(r"([0-9]{1,6})/([0-9]{1,6})", text)
        if found is None:
            raise ConversionError(_nonsense(repr(text)))
        return cls(int(found[1]), int(found[2]))

    def share(self, fills: Mapping[str, Fill]) -> dict[str, Fill]:
        """The parameters it writes: nearly equal bytes for each worker.

        The largest first, each to whoever has least; every worker comes to the same.
        """
        loads, mine = [0] * self.count, {}
        for name in sorted(fills, key=lambda n: (-fills[n].nbytes, n)):
            least = loads.index(min(loads))
            loads[least] += fills[name].nbytes
            if least == self.index:
                mine[name] = fills[name]
        return mine


def _nonsense(found: str) -> str:
    return (
        f"a worker is I/M with 0 <= I < M, like 0/4 for the first of 4, found {found}"
    )


@contextmanager
def joined(
    out: Path,
    identity: dict[str, Any],
    worker: Worker,
    force: bool,
    is_done: Callable[[], bool],
) -> Iterator[TextIO | None]:
    """The record of the unfinished `out`, locked together with other workers.

    None where others complete it before it could be locked.
    """
    partial = partial_of(out)
    with _join(partial, identity, force) as lock:
        if is_done():  # and the directory that was locked is a new one
            if destination.try_lock(lock, partial):
                shutil.rmtree(partial)
            yield None
            return
        kept = partial / destination.RECEIPTS
        kept.mkdir(exist_ok=True)
        # A second process of the same number would write the same files.
        with (kept / f"worker-{worker.index}.lock").open("a") as own:
            if not files.lock(own):
                raise ConversionError(
                    f"another process is worker {worker.index} of {worker.count} of "
                    f"{out}; give each process a number of its own"
                )
            try:
                yield lock
            except OSError as error:
                if not destination.is_full(error):
                    raise
                raise ConversionError(
                    f"no room left while writing {partial} ({error}); what is finished "
                    "stays: make room and run the same command again"
                ) from None


def _join(partial: Path, identity: dict[str, Any], force: bool) -> TextIO:
    """Opens the record with a shared lock, and begins the directory where need be."""
    deadline = time.monotonic() + PATIENCE
    while True:
        lock = _try_join(partial, identity, force)
        if lock is not None:
            return lock
        record = read_record(partial)
        if record != identity and time.monotonic() > deadline:
            raise ConversionError(destination.busy_message(partial))
        time.sleep(PAUSE)


def _try_join(partial: Path, identity: dict[str, Any], force: bool) -> TextIO | None:
    if read_record(partial) is None:
        raise ConversionError(foreign_message(partial))
    make(partial)
    lock = (partial / RECORD).open("a+", encoding="utf-8")
    try:
        if destination.try_lock(lock, partial, shared=True):
            if _is_begun(partial, identity):
                return lock
            # Alone: begin, or undo what is left of a commit that was cut short. Then
            # from the start, as another may lock it before it is shared again.
            if destination.try_lock(lock, partial):
                destination.begin(lock, partial, identity, force=force)
                store.recover(partial)
            elif (before := read_record(partial)) and before != identity and not force:
                raise destination.other_error(partial, before, identity)
    except BaseException:
        lock.close()
        raise
    lock.close()
    return None


def _is_begun(partial: Path, identity: dict[str, Any]) -> bool:
    return read_record(partial) == identity and not any(partial.glob("params*"))


def end(
    lock: TextIO,
    partial: Path,
    params: list[str],
    identity: dict[str, Any],
    commit: Callable[[dict[str, Receipt]], None],
) -> int:
    """Commits where every parameter is finished; how many are not.

    Each worker looks after its own last receipt, so the last one sees all of them.
    """
    if missing := sum(read_receipt(partial, name) is None for name in params):
        return missing
    # Others hold it while they look, or commit. Given up first: two that wait for one
    # another's shared locks would wait for ever.
    files.unlock(lock)
    files.lock(lock, wait=True)
    if not destination.is_in_place(lock, partial) or read_record(partial) != identity:
        return 0  # another was faster
    receipts = {name: read_receipt(partial, name) for name in params}
    found = {name: kept for name, kept in receipts.items() if kept is not None}
    if len(found) == len(params):
        commit(found)
    return len(params) - len(found)
