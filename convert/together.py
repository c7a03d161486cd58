"""One conversion by several processes, of one machine or of several that share a disk.

Worker I of M writes its share of the parameters into the one NAME.partial. Receipts
say which parameters are finished; whoever finds all of them commits. A killed worker
is started again with the same command, and goes on with what it had not finished.
`convert.workers` says what the shared disk has to offer.
"""

import threading
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from convert import destination
from convert.errors import ConversionError
from convert.progress import Progress, Totals
from convert.to_jaxmoe import (
    Changes,
    Job,
    Receipt,
    check,
    check_copies,
    check_left_over,
    finish,
    identity_of,
    manifest_of,
    read_receipt,
    verify_params,
    warn_bad,
    warn_beyond,
    write_params,
)
from convert.workers import Worker, end, joined
from jaxmoe.checkpoints import safetensors, store
from jaxmoe.checkpoints.partial import partial_of
from jaxmoe.checkpoints.plan import Fill
from jaxmoe.checkpoints.stream import in_parallel
from jaxmoe.families.config_json import as_names, as_overrides


@dataclass(frozen=True)
class Outcome:
    """What a worker did, and how many parameters others have still to finish."""

    totals: Totals
    missing: int

    def __str__(self) -> str:
        """One line."""
        if not self.missing:
            return f"complete; {self.totals}"
        return (
            f"this worker's part is done, {self.missing} parameters are left to the "
            f"others; {self.totals}"
        )


def convert_share(
    source: Path,
    out: Path,
    worker: Worker,
    *,
    dtype: str | None = None,
    weights: str | None = None,
    jobs: int = 8,
    force: bool = False,
    verify: bool = False,
    show: bool = False,
    overrides: Mapping[str, Any] | None = None,
    ignore: Iterable[str] = (),
) -> Outcome:
    """Converts one worker's parameters of `source`; the last worker makes `out`.

    `out` is what `convert.convert` makes, byte for byte but for Orbax's time stamps.
    It is success too when it was completed by others in the meantime, or by an earlier
    run of the same workers, which is made sure of by comparing it with the source.

    Args:
      source, out, dtype, weights, jobs, overrides, ignore: as in `convert.convert`.
      worker: which of how many.
      force: replace `out`, and begin anew where an unfinished output differs. With it
        a complete `out` is not taken for success.
      verify: whoever commits reads everything again and compares.
      show: show a progress bar.

    Raises:
      ConversionError: as `convert.convert`; another number of workers began the
        output; two processes are the same worker.
    """
    changes = Changes(dict(as_overrides(overrides)), as_names(ignore))
    job = check(source, dtype, changes, weights)
    own = worker.share(job.fills)
    total = sum(map(job.read_of, own.values()))
    identity = identity_of(job, dtype)
    if worker.count > 1:
        identity |= {destination.WORKERS: worker.count}
    with (
        safetensors.Files(
            source, [header.file for header in job.source.headers]
        ) as files,
        Progress(total, "convert", show=show) as progress,
    ):

        def is_done() -> bool:
            return not force and is_converted(job, files, out, jobs)

        if is_done() or not _may_write(source, out, force, is_done):
            return Outcome(progress.close(), 0)
        check_copies(files, job.plan, own)
        with joined(out, identity, worker, force, is_done) as lock:
            if lock is None:
                return Outcome(progress.close(), 0)
            partial = partial_of(out)
            others = job.fills.keys() - own
            before = [
                job.fills[name]
                for name in others
                if read_receipt(partial, name) is not None
            ]
            receipts = write_params(job, own.values(), files, partial, progress, jobs)
            totals = progress.close()

            def commit(every: dict[str, Receipt]):
                check_left_over(job, partial, before, jobs)
                finish(job, partial, every)
                if verify:
                    verify_params(job, files, partial, every, jobs, show)
                destination.complete(partial, out)

            missing = end(lock, partial, list(job.fills), identity, commit)
    warn_bad(receipts)
    if worker.index == 0:
        warn_beyond(job.plan)
    return Outcome(totals, missing)


def _may_write(
    source: Path, out: Path, force: bool, is_done: Callable[[], bool]
) -> bool:
    """Whether `out` is still to be made; refuses what must not be replaced."""
    try:
        destination.check(source, out, force=force, marker=store.MANIFEST)
    except ConversionError:
        if is_done():  # since it was looked at last
            return False
        raise
    return True


def is_converted(job: Job, files: safetensors.Files, out: Path, jobs: int) -> bool:
    """Whether `out` is what the job makes: every parameter is read and compared."""
    if not (out / store.MANIFEST).is_file():
        return False
    try:
        found = store.read_manifest(out)
    except (OSError, ValueError):
        return False
    params = {n: (spec.shape, spec.dtype) for n, spec in found.params.items()}
    specs = {name: job.spec(fill) for name, fill in job.fills.items()}
    if params != {n: (spec.shape, spec.dtype) for n, spec in specs.items()}:
        return False
    wanted = manifest_of(job, found.params)
    if (wanted.family, wanted.source) != (found.family, found.source):
        return False

    def compare(fill: Fill, stop: threading.Event):
        crc = job.reader(files, fill, stop).crc32()
        if crc != found.params[fill.param].crc32:
            raise _DiffersError

    try:
        in_parallel(compare, job.fills.values(), jobs)
    except _DiffersError:
        return False
    return True


class _DiffersError(Exception):
    """A parameter of another source."""
