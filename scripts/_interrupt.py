"""Ends that are no errors: Ctrl-C, and a reader that went away."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def ends_quietly() -> Iterator[None]:
    """Ends the script without a word on Ctrl-C, or when nobody reads on (`| head`)."""
    try:
        yield
    except BrokenPipeError:
        # Python flushes once more at its end: to where that cannot fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(128 + signal.SIGPIPE) from None
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None


class Interrupt:
    """Ctrl-C that lets what is finished be printed first.

    While `patient` it waits for the next `check`; pressed twice it does not.
    """

    def __init__(self):
        self.patient = self._asked = False

    def check(self) -> None:
        """Raises KeyboardInterrupt if Ctrl-C was pressed."""
        self.patient = True
        if self._asked:
            raise KeyboardInterrupt

    def _handle(self, *_):
        if self._asked or not self.patient:
            raise KeyboardInterrupt
        self._asked = True

    def __enter__(self) -> "Interrupt":
        self._before = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *_):
        signal.signal(signal.SIGINT, self._before)
