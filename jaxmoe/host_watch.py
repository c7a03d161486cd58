"""Seeing at once that another process has died.

Processes that compute together wait for each other inside collectives, where Python
does not run, and JAX's own heartbeats take most of a minute to miss one. So each keeps
a connection to the first one open, on which nothing is said: when a process is killed,
its system closes it, and whoever sees that ends too. A host that vanishes from the
network closes nothing; that is left to the heartbeats.
"""

import atexit
import os
import socket
import sys
import threading
from collections.abc import Callable

LOST = 70
"""The exit code of a process that ends because another one has died."""

CONNECT_SECONDS = 20
_END = b"e"
_connections: list[socket.socket] = []


def listen(count: int) -> int:
    """Waits, in the background, for `count` processes to connect; the port."""
    server = socket.create_server(("", 0), backlog=count)

    def accept() -> None:
        with server:
            for _ in range(count):
                connection, _ = server.accept()
                index = int.from_bytes(_read(connection, 4), "big")
                _follow(connection, f"process {index}")

    threading.Thread(target=accept, daemon=True, name="jaxmoe-hosts").start()
    return server.getsockname()[1]


def connect(host: str, port: int, process: int) -> None:
    """Joins the first process's circle.

    Raises:
      OSError: it cannot be reached.
    """
    connection = socket.create_connection((host, port), timeout=CONNECT_SECONDS)
    connection.settimeout(None)
    connection.sendall(process.to_bytes(4, "big"))
    _follow(connection, "process 0")


def _follow(connection: socket.socket, name: str) -> None:
    if not _connections:
        atexit.register(_say_end)
    _connections.append(connection)

    def wait() -> None:
        if _read(connection, 1) != _END:
            _stop(name)

    threading.Thread(target=wait, daemon=True, name=f"jaxmoe-{name}").start()


def _read(connection: socket.socket, size: int) -> bytes:
    """So many bytes; fewer where the other side is gone."""
    try:
        return connection.recv(size, socket.MSG_WAITALL)
    except OSError:
        return b""


def _say_end() -> None:
    """Tells the others that this process ends on its own account."""
    for connection in _connections:
        try:
            connection.sendall(_END)
        except OSError:
            continue


def _stop(name: str, leave: Callable[[int], object] = os._exit) -> None:
    print(
        f"error: {name} has died; this one ends too, as they compute together. What "
        "was recorded is kept: start all processes again with the same command",
        file=sys.stderr,
        flush=True,
    )
    # Not `sys.exit`: the main thread is inside a collective that never returns.
    leave(LOST)
