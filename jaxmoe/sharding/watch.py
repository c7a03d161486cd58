"""Seeing at once that another process has died or failed.

Processes that compute together wait for each other inside collectives, where Python
does not run, and JAX's own heartbeats take most of a minute to miss one. So each keeps
a connection to the first one open, on which nothing is said before the end: when a
process is killed, its system closes it, and whoever sees that ends too. A host that
vanishes from the network closes nothing; that is left to the heartbeats.
"""

import atexit
import os
import secrets
import socket
import sys
import threading
import time
from typing import NoReturn

LOST = 70
"""The exit code of a process that ends because another one has died or failed."""

CONNECT_SECONDS = 20
TOKEN_BYTES = 16
GRACE_SECONDS = 3
"""A failure that all processes have found gets its own message in each."""

_END, _FAILED = b"e", b"f"
_connections: list[socket.socket] = []
_lost: list[str] = []
_bad_news = threading.Event()


def listen(count: int) -> tuple[int, bytes]:
    """Waits, in the background, for `count` processes; the port, and what to say there.

    Connections that do not say it are none of ours.
    """
    dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    server = socket.create_server(("", 0), family=family, dualstack_ipv6=dual)
    token = secrets.token_bytes(TOKEN_BYTES)

    def accept() -> None:
        left = count
        with server:
            while left:
                connection, _ = server.accept()
                connection.settimeout(CONNECT_SECONDS)
                hello = _read(connection, TOKEN_BYTES + 4)
                if not secrets.compare_digest(hello[:TOKEN_BYTES], token):
                    connection.close()
                    continue
                left -= 1
                index = int.from_bytes(hello[TOKEN_BYTES:], "big")
                _follow(connection, f"process {index}")

    threading.Thread(target=accept, daemon=True, name="jaxmoe-hosts").start()
    return server.getsockname()[1], token


def connect(host: str, port: int, token: bytes, process: int) -> None:
    """Joins the first process's circle.

    Raises:
      OSError: it cannot be reached.
    """
    connection = socket.create_connection((host, port), timeout=CONNECT_SECONDS)
    connection.sendall(token + process.to_bytes(4, "big"))
    _follow(connection, "process 0")


def fail(code: int) -> None:
    """Ends this process, and has the others end too, if there are any.

    At once, as a normal end waits for the others, who may be waiting for this one.
    """
    if _connections:
        _say(_FAILED)
        _leave(code)


def fail_of(error: BaseException) -> None:
    """Ends this process after an exception that nobody has caught.

    Where another one is gone, what the libraries say of it is but a consequence.
    """
    if _connections and isinstance(error, RuntimeError) and _bad_news.wait(1):
        _stop(_lost[0])
    fail(1)


def _follow(connection: socket.socket, name: str) -> None:
    connection.settimeout(None)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if not _connections:
        atexit.register(_say, _END)
    _connections.append(connection)

    def wait() -> None:
        heard = _read(connection, 1)
        if heard == _END:
            return
        what = f"{name} has {'failed' if heard == _FAILED else 'died'}"
        _lost.append(what)
        _bad_news.set()
        if heard == _FAILED:
            time.sleep(GRACE_SECONDS)
        _stop(what)

    threading.Thread(target=wait, daemon=True, name=f"jaxmoe-{name}").start()


def _read(connection: socket.socket, size: int) -> bytes:
    """So many bytes; fewer where the other side is gone, or says nothing in time."""
    try:
        return connection.recv(size, socket.MSG_WAITALL)
    except OSError:
        return b""


def _say(word: bytes) -> None:
    for connection in _connections:
        try:
            connection.sendall(word)
        except OSError:
            continue


def _stop(what: str) -> None:
    print(
        f"error: {what}; this one ends too, as they compute together. What was "
        "recorded is kept: start all processes again with the same command",
        file=sys.stderr,
    )
    # The first process passes on what another one has told it.
    _say(_FAILED)
    _leave(LOST)


def _leave(code: int) -> NoReturn:
    # Not `sys.exit`: the main thread may be in a collective that never returns.
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
