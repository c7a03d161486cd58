"""The process that serves: starts, and stops without cutting answers off."""

import asyncio
import logging
import signal
import socket
from typing import Any

import uvicorn

from jaxmoe.serve.app import Guards, make_app
from jaxmoe.serve.patience import patient_protocol
from jaxmoe.serve.service import Service

log = logging.getLogger("jaxmoe.serve")


class Server(uvicorn.Server):
    """uvicorn, which on a first signal lets answers finish and on a second ends.

    Meanwhile it goes on to listen: who comes is told that it stops (503).
    """

    def __init__(self, config: uvicorn.Config, service: Service, grace: float):
        """grace: seconds that answers under way have to finish."""
        super().__init__(config)
        self._service, self._grace = service, grace
        self._serving: asyncio.AbstractEventLoop | None = None
        self._drain: asyncio.Task[None] | None = None
        self.interrupted = False

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn has it."""
        self._serving = asyncio.get_running_loop()
        await super().startup(sockets)
        if self.started:
            log.info("listening on %s", address_of(self))

    def handle_exit(self, sig: int, frame: Any) -> None:
        """On a signal: `shut_down`, which a second one cuts short."""
        self.interrupted |= sig == signal.SIGINT
        if self._drain is not None:
            self.should_exit = self.force_exit = True
        else:
            self.shut_down()

    def shut_down(self) -> None:
        """Begins to stop; from any thread."""
        if self._serving is None:
            self.should_exit = True
        else:
            self._serving.call_soon_threadsafe(self._begin)

    def _begin(self) -> None:
        if self._drain is None:
            self._drain = asyncio.create_task(self._stop_gently())

    async def _stop_gently(self) -> None:
        await self._service.drain(self._grace)
        self.should_exit = True


def make_server(
    service: Service,
    guards: Guards,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    grace: float = 30.0,
) -> Server:
    """A server that `run()` starts; port 0 for any that is free."""
    config = uvicorn.Config(
        make_app(service, guards),
        host=host,
        port=port,
        http=patient_protocol(guards.patience),
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=5,
    )
    return Server(config, service, grace)


def address_of(server: Server) -> str:
    """Where a server that has started listens, "http://127.0.0.1:8000"."""
    host, port = server.servers[0].sockets[0].getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
