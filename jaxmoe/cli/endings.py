"""How commands end: errors in one line, and ends that are no errors."""

import os
import select
import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import NoReturn, TextIO

from jaxmoe.files import printable

Main = Callable[[list[str] | None], int]
"""A command: from its arguments, None for the process's, to its exit code."""


def command(main: Main) -> Main:
    """A command whose errors are one line and whose early ends are quiet."""

    @wraps(main)
    def run(argv: list[str] | None = None) -> int:
        with ends_quietly(), input_errors():
            return main(argv)

    return run


@contextmanager
def ends_quietly() -> Iterator[None]:
    """Ends the process without a word on Ctrl-C, or when nobody reads on (`| head`)."""
    try:
        try:
            yield
        finally:
            # Here, where a reader that went away is expected; not at Python's end.
            sys.stdout.flush()
            if _nobody_reads(sys.stdout):
                raise BrokenPipeError
    except BrokenPipeError:
        # Python flushes once more at its end: to where that cannot fail.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(128 + signal.SIGPIPE) from None
    except KeyboardInterrupt:
        raise SystemExit(128 + signal.SIGINT) from None


def _nobody_reads(stream: TextIO) -> bool:
    """Whether it is a pipe whose reader has gone.

    Asked, as argparse passes over the error where its text is longer than a buffer.
    """
    try:
        number = stream.fileno()
    except OSError:  # no file
        return False
    poll = select.poll()
    poll.register(number, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


@contextmanager
def input_errors() -> Iterator[None]:
    """Ends the process with `error: ...` and code 2 on input that does not fit.

    Warnings are printed as briefly.
    """
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            yield
        except BrokenPipeError:
            raise
        except (ImportError, OSError, TypeError, ValueError) as error:
            _fail(error, error)
        except (MemoryError, RuntimeError) as error:
            if not _is_of_memory(error):
                raise
            _fail(f"out of memory ({str(error)[:200]}); {_LESS}", error)


_LESS = "take fewer slots, shorter texts, --weights int8 or more devices"


def _is_of_memory(error: BaseException) -> bool:
    """Whether it says that a device, or this machine, has not enough."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)


def _fail(message: object, error: BaseException) -> NoReturn:
    say_error(message)
    if "jaxmoe.sharding.watch" in sys.modules:
        sys.modules["jaxmoe.sharding.watch"].fail(2)
    raise SystemExit(2) from error


@contextmanager
def figures_if_possible(otherwise: str) -> Iterator[None]:
    """Goes on where matplotlib is missing, and says so after `otherwise`."""
    try:
        yield
    except ImportError as error:
        print(f"{otherwise}: {_one_line(error)}", file=sys.stderr)


def say_error(error: object) -> None:
    """Prints `error: ...` on standard error, in one line."""
    print(f"error: {_one_line(error)}", file=sys.stderr)


def _one_line(message: object) -> str:
    return printable(" ".join(str(message).split()))


def _show_warning(message, *_):
    print(f"warning: {_one_line(message)}", file=sys.stderr)


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
