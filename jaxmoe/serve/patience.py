"""Connections whose clients read nothing are given up."""

import asyncio
from typing import Any

from uvicorn.protocols.http.auto import AutoHTTPProtocol


def patient_protocol(seconds: float) -> type[asyncio.Protocol]:
    """uvicorn's protocol, which breaks off where nothing is read for `seconds`.

    uvicorn closes a connection only once all of a reply has been read, so that who
    reads nothing would hold it, and what was written, for ever.
    """

    class Patient(AutoHTTPProtocol):  # type: ignore[misc, valid-type]
        _clock: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            # Writing is paused as soon as anything waits to be read.
            transport.set_write_buffer_limits(high=0)

        def pause_writing(self) -> None:
            super().pause_writing()
            self._watch()

        def resume_writing(self) -> None:
            super().resume_writing()
            self._rest()

        def connection_lost(self, exc: Exception | None) -> None:
            self._rest()
            super().connection_lost(exc)

        def _watch(self) -> None:
            self._rest()
            transport: Any = self.transport  # type: ignore[attr-defined]
            before = transport.get_write_buffer_size()

            def look() -> None:
                if transport.get_write_buffer_size() < before:
                    self._watch()
                else:
                    transport.abort()

            loop = asyncio.get_running_loop()
            self._clock = loop.call_later(seconds, look)

        def _rest(self) -> None:
            if self._clock is not None:
                self._clock.cancel()
                self._clock = None

    return Patient
