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

CACHES = ("empty", "filled")


def measure(
    place: Place, command: Sequence[str], rounds: int, baseline: Path | None = None
) -> Iterator[Row]:
    """Rows: seconds from a process's start to its first line, with and without cache.

    command: prints the demo model's answers, and nothing else. baseline: a checkout of
      an older commit, which runs it by turns with this one.
    """
    checkouts = {"ours": None} | ({} if baseline is None else {"baseline": baseline})
    found = {(cache, who): [] for cache in CACHES for who in checkouts}
    for _ in range(rounds):
        for who, checkout in checkouts.items():
            with tempfile.TemporaryDirectory(prefix="jaxmoe-bench-") as directory:
                for cache in CACHES:
                    found[cache, who].append(_start(command, directory, checkout))
                    assert cache == CACHES[0] or any(Path(directory).iterdir())
    for cache in CACHES:
        what = targets.first_answer(cache)
        first, last = _spreads(found[cache, "ours"])
        yield place.row(
            "compile", what, first.median, "s", seconds=first, to_the_end=last
        )
        if baseline is not None:
            before, _ = _spreads(found[cache, "baseline"])
            ratio, named = first.over(before), targets.against_baseline(what)
            detail = {"ratio": ratio, "baseline_seconds": before}
            yield place.row("compile", named, ratio.median, "x", **detail)


def _spreads(pairs: list[tuple[float, float]]) -> tuple[Spread, Spread]:
    first, last = (Spread(tuple(each)) for each in zip(*pairs, strict=True))
    return first, last


def environment(cache: str, checkout: Path | None) -> dict[str, str]:
    """Of a process that keeps all its programs in `cache`.

    checkout: of another commit, whose package it imports; None for this one.
    """
    found = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": cache,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    return (
        found if checkout is None else found | {"PYTHONPATH": str(checkout.resolve())}
    )


def _start(
    command: Sequence[str], cache: str, checkout: Path | None
) -> tuple[float, float]:
    """Seconds until the first line of the command, and until its end."""
    # A file: a pipe that nobody reads would fill up, and stop the process.
    with tempfile.TemporaryFile("w+") as stderr:
        begin = time.perf_counter()
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env=environment(cache, checkout),
            cwd=checkout,
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
