"""One client's connection: a bounded body in, a reply out, and whether it is there."""

import asyncio
import hmac
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from jaxmoe.serve.errors import RequestError

_Result = TypeVar("_Result")


class ClientGoneError(Exception):
    """Nobody reads the reply any more."""


async def read_raw(request: Request, *, most: int, seconds: float) -> bytes:
    """The body of a request of JSON.

    Args:
      most: bytes. seconds: until it must be there.

    Raises:
      RequestError: another type (which a page of another site could send unasked), a
        body that is too large, or one that comes too slowly.
    """
    kind = request.headers.get("content-type", "").split(";")[0].strip().lower()
    if kind != "application/json":
        raise RequestError(
            f"the Content-Type must be application/json, found {kind[:80]!r}",
            status=415,
            code="unsupported_media_type",
        )
    too_large = RequestError(
        f"the body may have {most} bytes", status=413, code="request_too_large"
    )
    stated = request.headers.get("content-length", "0")
    if stated.isdecimal() and int(stated[:20]) > most:
        raise too_large
    parts, size = [], 0
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                size += len(part)
                if size > most:
                    raise too_large
                parts.append(part)
    except TimeoutError:
        raise RequestError(
            f"the body must come within {seconds:g} seconds",
            status=408,
            code="request_timeout",
        ) from None
    return b"".join(parts)


def check_key(request: Request, keys: Sequence[bytes]) -> None:
    """Refuses a request without one of the keys, compared in constant time.

    Raises:
      RequestError: 401.
    """
    if not keys:
        return
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    found = given.strip().encode("utf-8", "replace")
    # All of them: which one is right shows in no time either.
    right = [hmac.compare_digest(found, key) for key in keys]
    if scheme.lower() != "bearer" or not any(right):
        raise RequestError(
            "an API key is needed, as Authorization: Bearer KEY",
            status=401,
            code="invalid_api_key",
        )


async def while_connected(
    receive: Receive, work: Coroutine[Any, Any, _Result]
) -> _Result:
    """What `work` returns; it is cancelled when the client leaves.

    Raises:
      ClientGoneError: it has left.
    """
    task = asyncio.create_task(work)
    gone = asyncio.create_task(_gone(receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGoneError
        return task.result()
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream:
    """A reply of server-sent events, which ends its work when the client leaves.

    Nothing is read from `events` faster than the client takes it.
    """

    def __init__(
        self,
        events: AsyncGenerator[str, None],
        *,
        end: Callable[[bool], None],
        headers: dict[str, str],
    ):
        """Take the events.

        Args:
          end: called once at the end, with whether the client left before it.
        """
        self._events, self._end = events, end
        kinds = {"content-type": "text/event-stream; charset=utf-8"}
        kinds |= {"cache-control": "no-cache", "x-accel-buffering": "no"}
        pairs = (kinds | headers).items()
        self._headers = [(k.lower().encode(), v.encode()) for k, v in pairs]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI has it."""
        left = True
        try:
            await while_connected(receive, self._send_all(send))
            left = False
        except (ClientGoneError, OSError):
            pass
        finally:
            self._end(left)
            await self._events.aclose()

    async def _send_all(self, send: Send) -> None:
        start = {"type": "http.response.start", "status": 200}
        await send(start | {"headers": self._headers})
        async for text in self._events:
            if text:
                await self._send(send, text.encode(), more=True)
        await self._send(send, b"", more=False)

    async def _send(self, send: Send, body: bytes, *, more: bool) -> None:
        event = {"type": "http.response.body", "body": body, "more_body": more}
        await send(event)
