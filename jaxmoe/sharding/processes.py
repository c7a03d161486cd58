"""Several processes that run one program: starting together, agreeing, ending together.

Each host runs the same command; `initialize` joins them, and from then on
`jax.devices()` are those of all. Every process makes the same calls in the same order
and gets every answer; the first one reads and writes what there is one of.
"""

import json
import socket
import sys
import warnings
from collections.abc import Callable
from hashlib import sha256
from typing import Any

import jax
import numpy as np

from jaxmoe.sharding import watch

LOST_SECONDS = 40
"""A process that was not heard of for so long counts as lost, and all others stop."""

END_SECONDS = 60
"""How long a process that is done waits for the others to be."""


class ProcessError(ValueError):
    """What another process could not go on with, or not in the same way."""


def initialize(
    coordinator: str | None = None,
    *,
    processes: int | None = None,
    process: int | None = None,
) -> None:
    """Joins this process with the others; before anything else is done with JAX.

    When one of them dies, or ends with an exception, the others print an error and end
    with code 70 (`jaxmoe.sharding.watch`), at once; with another code and within two
    minutes where its host has left the network (`LOST_SECONDS`).

    Args:
      coordinator: "host:port" of process 0, free there. None, as for the rest: found
        out, on Cloud TPU, Slurm and Open MPI.
      processes: how many there are. process: which one this is, from 0.

    Raises:
      ValueError: some are given and others not, or a process that is not among them.
      RuntimeError: the others cannot be reached.
    """
    given = {"coordinator": coordinator, "processes": processes, "process": process}
    missing = [name for name, value in given.items() if value is None]
    if missing and len(missing) < len(given):
        raise ValueError(
            "expected coordinator, processes and process, or none of them, found no "
            f"{' and no '.join(missing)}; give it"
        )
    if processes is not None and not (process is not None and 0 <= process < processes):
        raise ValueError(
            f"expected a process in 0..{processes - 1}, found {process}; count from 0"
        )
    # JAX would take SIGTERM for a notice to save, and the process would not end.
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(
        coordinator,
        processes,
        process,
        heartbeat_timeout_seconds=LOST_SECONDS,
        shutdown_timeout_seconds=END_SECONDS,
    )
    if jax.process_count() > 1:
        _watch(coordinator)


def _watch(coordinator: str | None) -> None:
    others = jax.process_count() - 1
    said: list[Any] = []
    if is_first():
        port, token = watch.listen(others)
        said = [_own_address() if coordinator is None else "", port, token.hex()]
    host, port, token = json.loads(_broadcast(json.dumps(said).encode()))
    sys.excepthook = _fail_together
    if is_first():
        return
    if coordinator is not None:
        host = coordinator.rpartition(":")[0].strip("[]")
    try:
        watch.connect(host, port, bytes.fromhex(token), jax.process_index())
    except OSError as error:
        warnings.warn(
            f"process 0 cannot be reached at {host}:{port} ({error}); should a process "
            f"die, the others will notice after up to {LOST_SECONDS} s only",
            RuntimeWarning,
            stacklevel=3,
        )


def _own_address() -> str:
    """Of this host, as others see it: from which it would send to the network."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # nothing is sent (RFC 5737)
            return probe.getsockname()[0]
        except OSError:
            return "127.0.0.1"


def _fail_together(kind: Any, error: Any, trace: Any) -> None:
    """Of an exception that nobody has caught."""
    sys.__excepthook__(kind, error, trace)
    watch.fail_of(error)


def is_first() -> bool:
    """Whether this process is the one that reads, writes and prints for all."""
    return jax.process_index() == 0


def first_decides(function: Callable[[], Any]) -> Any:
    """What `function` gives in the first process, in all; it is called there only.

    The result is passed on as JSON.

    Raises:
      The error of `function` in the first process; a ProcessError with its text in the
      others.
    """
    if jax.process_count() == 1:
        return function()
    error, value = None, None
    if is_first():
        try:
            value = function()
        except Exception as found:
            error = found
    said = {"value": value, "error": None if error is None else str(error)}
    heard = json.loads(_broadcast(json.dumps(said).encode()))
    if error is not None:
        raise error
    if heard["error"] is not None:
        raise ProcessError(f"process 0 stopped: {heard['error']}")
    return heard["value"]


def wait_for_all() -> None:
    """Returns once every process is here; the last thing before they end.

    A process that ends long before another one would have JAX abort both.
    """
    first_decides(lambda: None)


def check_equal(values: dict[str, Any]) -> None:
    """Raises a ProcessError unless all processes pass equal `values` (as JSON).

    Processes that disagree would else wait for each other, or answer nonsense.
    """
    if jax.process_count() == 1:
        return
    from jax.experimental import multihost_utils

    digests = {name: _digest(value) for name, value in values.items()}
    every = multihost_utils.process_allgather(np.stack(list(digests.values())))
    differing = [
        name for i, name in enumerate(digests) if (every[:, i] != every[0, i]).any()
    ]
    if differing:
        raise ProcessError(
            f"expected the same {', '.join(differing)} in all {jax.process_count()} "
            "processes, found others; start each with the same command and files"
        )


def _digest(value: Any) -> np.ndarray:
    raw = sha256(json.dumps(value, sort_keys=True).encode()).digest()
    return np.frombuffer(raw, np.uint8)


def _broadcast(data: bytes) -> bytes:
    """The first process's bytes, in all."""
    from jax.experimental import multihost_utils

    send = multihost_utils.broadcast_one_to_all
    size = int(send(np.int32(len(data))))
    buffer = np.zeros(size, np.uint8)
    if is_first():
        buffer[:] = np.frombuffer(data, np.uint8)
    return np.asarray(send(buffer)).astype(np.uint8).tobytes()
