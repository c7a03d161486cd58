"""A progress bar in bytes, and the line of totals after it."""

import re
import resource
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Totals:
    """What a run did; `peak` is the process's peak resident memory, in bytes."""

    nbytes: int
    seconds: float
    peak: int

    def __str__(self) -> str:
        """One line: bytes, seconds, bytes per second, peak memory."""
        return (
            f"{self.nbytes / 1e9:.3f} GB in {self.seconds:.1f} s, "
            f"{self.nbytes / 1e6 / max(self.seconds, 1e-9):.0f} MB/s, "
            f"peak memory {self.peak / 1e9:.2f} GB"
        )


def peak_memory() -> int:
    """Peak resident memory of this program in bytes.

    What Linux reports as the process's peak goes back to before the program began: a
    large process that starts a small one hands its own on.
    """
    status = Path("/proc/self/status")
    if status.exists():
        found = re.search(r"^VmHWM:\s*(\d+) kB", status.read_text(), re.MULTILINE)
        if found:
            return int(found[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


class Progress:
    """Counts bytes from several threads; shows a bar where `show` and a terminal."""

    def __init__(self, total: int, text: str, *, show: bool):
        """Starts the clock; `total` is in bytes."""
        from tqdm import tqdm

        self._begin = time.perf_counter()
        self._done = 0
        self._lock = threading.Lock()
        self._bar = tqdm(
            total=total,
            desc=text,
            unit="B",
            unit_scale=True,
            smoothing=0.1,
            disable=None if show else True,  # None: only on a terminal
        )

    def add(self, nbytes: int):
        """Counts `nbytes` more."""
        with self._lock:
            self._done += nbytes
            self._bar.update(nbytes)

    def skip(self, nbytes: int):
        """Moves the bar over bytes that an earlier run had written."""
        with self._lock:
            if not self._bar.disable:
                self._bar.initial += nbytes  # keeps them out of the speed
            self._bar.update(nbytes)

    def close(self) -> Totals:
        """Ends the bar; the totals so far."""
        self._bar.close()  # twice is no matter
        return Totals(self._done, time.perf_counter() - self._begin, peak_memory())

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_):
        self.close()
