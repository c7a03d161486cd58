"""Several workers on this machine, each a process of its own: `--processes N`."""

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from convert import destination
from convert.errors import ConversionError
from convert.to_jaxmoe import UNCHANGED, Changes, check
from jaxmoe.checkpoints.store import MANIFEST


def convert_in_processes(
    source: Path,
    out: Path,
    count: int,
    options: list[str],
    changes: Changes = UNCHANGED,
) -> str:
    """Runs `count` workers of `convert.together` side by side until all have ended.

    What they say is printed as they say it, with their numbers.

    Args:
      source, out: as in `convert.convert`.
      count: the number of workers.
      options: of the command line, handed to each of them.
      changes: what they say of config.json.

    Returns:
      A line: the bytes of the source, seconds, bytes per second.

    Raises:
      ConversionError: the source or the destination does not fit, which is looked at
        before any is started; or a worker failed, when all have ended.
    """
    destination.check(source, out, force=False, marker=MANIFEST)
    nbytes = check(source, changes=changes).source.nbytes
    begin = time.perf_counter()
    with ThreadPoolExecutor(count) as pool:
        runs = [
            pool.submit(_run, source, out, f"{i}/{count}", options)
            for i in range(count)
        ]
        codes = [run.result() for run in runs]
    failed = [str(i) for i, code in enumerate(codes) if code]
    if failed:
        raise ConversionError(
            f"workers {', '.join(failed)} of {count} ended with an error, see above; "
            "mend that and run the same command again: what is finished stays"
        )
    if not (out / MANIFEST).is_file():
        raise ConversionError(
            f"expected {out} when all {count} workers had ended, found none; run the "
            "same command again, and see `convert.workers` on network disks"
        )
    seconds = time.perf_counter() - begin
    return (
        f"{nbytes / 1e9:.3f} GB by {count} processes in {seconds:.1f} s, "
        f"{nbytes / 1e6 / max(seconds, 1e-9):.0f} MB/s"
    )


def _run(source: Path, out: Path, worker: str, options: list[str]) -> int:
    """Runs one worker; its exit code."""
    root = str(Path(__file__).resolve().parent.parent)
    search = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-P", "-m", "convert", str(source), str(out)]
    process = subprocess.Popen(
        [*command, "--worker", worker, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=os.environ | {"PYTHONPATH": search},
    )
    with process:
        assert process.stdout is not None
        for line in process.stdout:
            print(f"worker {worker}: {line.rstrip()}", file=sys.stderr, flush=True)
    return process.returncode
