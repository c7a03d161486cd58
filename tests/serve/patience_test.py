"""A client that reads nothing is left, whatever it was to be sent."""

import socket
import threading
import time

import pytest

pytest.importorskip("uvicorn", reason='no uvicorn; "jaxmoe[serve]" adds it')

import uvicorn  # noqa: E402

from jaxmoe.serve.patience import patient_protocol  # noqa: E402

pytestmark = pytest.mark.extras

SIZE = 32 << 20


async def app(scope, receive, send):
    """A long reply: whole, or for /stream in pieces."""
    assert scope["type"] == "http"
    start = {"type": "http.response.start", "status": 200}
    await send(start | {"headers": [(b"content-length", str(SIZE).encode())]})
    pieces = 64 if scope["path"] == "/stream" else 1
    for i in range(pieces):
        part = {"type": "http.response.body", "body": bytes(SIZE // pieces)}
        await send(part | {"more_body": i + 1 < pieces})


@pytest.fixture(scope="module")
def server():
    """Its clients may read nothing for 0.4 seconds."""
    config = uvicorn.Config(
        app, port=0, http=patient_protocol(0.4), log_config=None, lifespan="off"
    )
    made = uvicorn.Server(config)
    thread = threading.Thread(target=made.run, daemon=True)
    thread.start()
    while not made.started:
        time.sleep(0.01)
    yield made
    made.should_exit = True
    thread.join(timeout=20)
    assert not thread.is_alive()


def ask(server, path: str) -> socket.socket:
    """A client with little room that has asked, and reads nothing yet."""
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.connect(server.servers[0].sockets[0].getsockname())
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    client.settimeout(20)
    return client


@pytest.mark.parametrize("path", ["/stream", "/whole"])
def test_who_reads_nothing_is_left(server, path):
    """Its socket, and what was to be sent, would be kept until it ends itself."""
    with ask(server, path) as client:
        deadline = time.monotonic() + 15
        while not server.server_state.connections and time.monotonic() < deadline:
            time.sleep(0.01)
        assert server.server_state.connections
        while server.server_state.connections and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not server.server_state.connections
        found = 0
        while part := client.recv(1 << 20):
            found += len(part)
        assert found < SIZE


@pytest.mark.thorough
@pytest.mark.parametrize("path", ["/stream", "/whole"])
def test_who_reads_slowly_gets_it_all(server, path):
    """Patience would be for the whole reply, and not for a pause."""
    with ask(server, path) as client:
        found, pauses = 0, 5
        while found < SIZE:
            found += len(client.recv(1 << 20))
            if found > (6 - pauses) * SIZE // 6 and pauses:
                time.sleep(0.2)
                pauses -= 1
        assert found >= SIZE
