"""How the scripts run: errors in one line."""

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def input_errors() -> Iterator[None]:
    """Ends the script with `error: ...` and code 2 on input that does not fit.

    Warnings are printed as briefly.
    """
    with warnings.catch_warnings():
        warnings.showwarning = _show_warning
        try:
            yield
        except (ImportError, OSError, TypeError, ValueError) as error:
            print(f"error: {_one_line(error)}", file=sys.stderr)
            if "jaxmoe.sharding.watch" in sys.modules:
                sys.modules["jaxmoe.sharding.watch"].fail(2)
            raise SystemExit(2) from error


def _one_line(message: object) -> str:
    return " ".join(str(message).split())


def _show_warning(message, *_):
    print(f"warning: {_one_line(message)}", file=sys.stderr)


def digest_of(checkpoint: str) -> str:
    """What tells the weights of a checkpoint from all others, in whatever format.

    Of Hugging Face files all weights are read; a converted checkpoint states it.
    """
    from jaxmoe.checkpoints.source import open_source

    return open_source(checkpoint).digest()
