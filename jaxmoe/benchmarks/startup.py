"""Startup: from the start of a process to the demo model's first answer."""

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from jaxmoe.benchmarks import targets
from jaxmoe.benchmarks.report import Row
from jaxmoe.benchmarks.targets import Place
from jaxmoe.benchmarks.timing import Spread


def measure(place: Place, command: Sequence[str], rounds: int) -> Iterator[Row]:
    """Rows: seconds from a process's start to its first line, with and without cache.

    command: prints the demo model's answers, and nothing else.
    """
    found = {"empty": [], "filled": []}
    for _ in range(rounds):
        with tempfile.TemporaryDirectory(prefix="jaxmoe-bench-") as directory:
            for cache, seconds in found.items():
                seconds.append(_start(command, directory))
                assert cache == "empty" or any(Path(directory).iterdir())
    for cache, pairs in found.items():
        first, last = (Spread(tuple(each)) for each in zip(*pairs, strict=True))
        yield place.row(
            "compile",
            targets.first_answer(cache),
            first.median,
            "s",
            seconds=first,
            to_the_end=last,
        )


def _start(command: Sequence[str], cache: str) -> tuple[float, float]:
    """Seconds until the first line of the command, and until its end."""
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    # A file: a pipe that nobody reads would fill up, and stop the process.
    with tempfile.TemporaryFile("w+") as stderr:
        begin = time.perf_counter()
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment
        ) as process:
            assert process.stdout is not None
            line = process.stdout.readline()
            first = time.perf_counter() - begin
            process.stdout.read()
        stderr.seek(0)
        errors = stderr.read()
    if process.returncode or not line:
        raise RuntimeError(f"{' '.join(command)} failed: {errors.strip()[-500:]}")
    return first, time.perf_counter() - begin
