"""How the scripts run: errors in one line, compiled programs kept."""

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


def keep_compiled() -> None:
    """Keeps compiled programs in the user's cache directory, for the next start.

    JAX_COMPILATION_CACHE_DIR names another directory; empty, it switches this off.
    """
    import jax

    from jaxmoe.checkpoints.bundled import cache_directory

    name = "jax_compilation_cache_dir"
    if getattr(jax.config, name) is not None:
        return
    directory = cache_directory() / "jax"
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError:
        return  # a home that cannot be written: compile every time
    jax.config.update(name, str(directory))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def digest_of(checkpoint: str) -> str:
    """What tells the weights of a checkpoint from all others."""
    from jaxmoe.checkpoints.store import read_manifest
    from jaxmoe.model import directory_of

    return read_manifest(directory_of(checkpoint)).digest
