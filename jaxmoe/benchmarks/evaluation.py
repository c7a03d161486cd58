"""Evaluation: the demo model's own questions, from a process's start to its end."""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from jaxmoe.benchmarks import targets
from jaxmoe.benchmarks.report import Row
from jaxmoe.benchmarks.startup import environment
from jaxmoe.benchmarks.targets import Place
from jaxmoe.benchmarks.timing import Spread


def measure(
    place: Place, *, problems: int, n: int, rounds: int, baseline: Path | None = None
) -> Iterator[Row]:
    """Rows: seconds of the whole command, with programs in the compilation cache.

    baseline: a checkout of an older commit, which evaluates by turns with this one.
    """
    options = ["demo", "--problems", str(problems), "--n", str(n)]
    commands = {"ours": [sys.executable, "-m", "jaxmoe", "evaluate", *options]}
    if baseline is not None:
        script = str(baseline.resolve() / "scripts" / "evaluate.py")
        commands["baseline"] = [sys.executable, script, *options]
    found = {who: [] for who in commands}
    with tempfile.TemporaryDirectory(prefix="jaxmoe-bench-") as folder:
        for turn in range(1 + rounds):
            for who, command in commands.items():
                checkout = None if who == "ours" else baseline
                seconds = _run(command, Path(folder) / who, checkout)
                if turn:  # the first fills the cache
                    found[who].append(seconds)
    what = targets.evaluation(problems, n)
    ours = Spread(tuple(found["ours"]))
    rate = {"answers_a_second": problems * n / ours.median}
    yield place.row("evaluate", what, ours.median, "s", seconds=ours, **rate)
    if baseline is not None:
        before = Spread(tuple(found["baseline"]))
        ratio, named = ours.over(before), targets.against_baseline(what)
        detail = {"ratio": ratio, "baseline_seconds": before}
        yield place.row("evaluate", named, ratio.median, "x", **detail)


def _run(command: Sequence[str], cache: Path, checkout: Path | None) -> float:
    """Seconds of the command.

    Raises:
      RuntimeError: it failed.
    """
    cache.mkdir(exist_ok=True)
    begin = time.perf_counter()
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env=environment(str(cache), checkout),
        cwd=checkout,
        check=False,
    )
    seconds = time.perf_counter() - begin
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr.strip()[-500:]}")
    return seconds
