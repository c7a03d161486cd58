"""Endpoints: from HTTP to `Service` and back."""

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import wraps
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from jaxmoe.files import printable
from jaxmoe.serve.connection import (
    ClientGoneError,
    EventStream,
    check_key,
    read_raw,
    while_connected,
)
from jaxmoe.serve.errors import RequestError, server_fault
from jaxmoe.serve.in_flight import Work
from jaxmoe.serve.metrics import CONTENT_TYPE
from jaxmoe.serve.replies import Reply, as_json
from jaxmoe.serve.service import Service

log = logging.getLogger("jaxmoe.serve")

Take = Callable[[bytes], Awaitable[tuple[Work, Reply]]]
GONE = 499
"""The status that logs and metrics have of a request whose client left."""


@dataclass(frozen=True)
class Guards:
    """What is asked of every request.

    keys: of which it must have one; none where none is needed. body_bytes: the
    largest body. body_seconds: until the body must be there. patience: seconds that a
    client may read nothing of a reply.
    """

    keys: tuple[bytes, ...] = ()
    body_bytes: int = 16 << 20
    body_seconds: float = 60.0
    patience: float = 120.0


def make_app(service: Service, guards: Guards) -> Starlette:
    """The application; starting it starts the engine's thread."""
    endpoints = _Endpoints(service, guards)

    @asynccontextmanager
    async def life(_: Starlette) -> AsyncIterator[None]:
        service.start()
        try:
            yield
        finally:
            await run_in_threadpool(service.stop)

    async def wrong_address(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        found = f"{request.method} {request.url.path[:100]}"
        code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code)
        return _failed(
            RequestError(
                f"{found}: {error.detail}", status=error.status_code, code=code
            )
        )

    return Starlette(
        routes=endpoints.routes(),
        exception_handlers={HTTPException: wrong_address},
        lifespan=life,
    )


def _json(content: Any, status: int = 200, headers: Any = None) -> Response:
    return Response(as_json(content), status, headers, media_type="application/json")


def _shown(text: str) -> str:
    """A client's text, on one line of the log."""
    return printable(text).replace("\n", " ")


def _failed(error: RequestError) -> Response:
    return _json(error.body(), error.status, error.headers())


class _Endpoints:
    """A method for each address."""

    def __init__(self, service: Service, guards: Guards):
        self._service, self._guards = service, guards

    def routes(self) -> list[Route]:
        """All addresses."""
        get, post = ["GET"], ["POST"]
        answered, open_ = self._answered, self._open
        return [
            Route("/health", open_(self.health), methods=get),
            Route("/metrics", answered(self.metrics), methods=get),
            Route("/v1/models", answered(self.models), methods=get),
            Route("/v1/models/{name:path}", answered(self.model), methods=get),
            Route("/v1/completions", answered(self.completions), methods=post),
            Route("/v1/chat/completions", answered(self.chat), methods=post),
            Route("/tokenize", answered(self.tokenize), methods=post),
            Route("/detokenize", answered(self.detokenize), methods=post),
            Route("/tokenizer_info", answered(self.tokenizer_info), methods=get),
        ]

    async def health(self, _: Request) -> Response:
        """200 where requests are taken, else 503 and why."""
        trouble = self._service.trouble
        return _json({"status": "ok"}) if trouble is None else _failed(trouble)

    async def metrics(self, _: Request) -> Response:
        """For Prometheus."""
        text = self._service.metrics.text()
        return Response(text, headers={"content-type": CONTENT_TYPE})

    async def models(self, _: Request) -> Response:
        """The one model, in a list."""
        return _json(self._service.models())

    async def model(self, request: Request) -> Response:
        """The one model, by its name."""
        self._service.reader.check_model(request.path_params["name"])
        return _json(self._service.described())

    async def tokenize(self, request: Request) -> Response:
        """Text or messages to token ids."""
        raw = await self._body(request)
        return _json(await run_in_threadpool(self._service.tokenize, raw))

    async def detokenize(self, request: Request) -> Response:
        """Token ids to text."""
        raw = await self._body(request)
        return _json(await run_in_threadpool(self._service.detokenize, raw))

    async def tokenizer_info(self, _: Request) -> Response:
        """Special tokens and the chat template."""
        return _json(self._service.tokenizer_info())

    async def completions(self, request: Request) -> Any:
        """Answers to prompts."""
        return await self._generate("completions", request, self._service.completion)

    async def chat(self, request: Request) -> Any:
        """Answers to a conversation."""
        return await self._generate("chat", request, self._service.chat)

    # -- parts -----------------------------------------------------------------------

    async def _generate(self, name: str, request: Request, take: Take) -> Any:
        trouble = self._service.trouble
        if trouble is not None:
            raise trouble
        raw = await self._body(request)
        self._service.check_room()
        address = request.url.path
        work, reply = await take(raw)
        headers = {"x-request-id": reply.id}
        if work.asked.stream:
            events = self._service.events(work, reply)

            def end(left: bool) -> None:
                self._service.end(work)
                status = GONE if left else work.status
                self._note(address, status, work, reply)
                self._count(name, status)

            return EventStream(events, end=end, headers=headers)
        status = GONE
        try:
            whole = self._service.whole(work, reply)
            text = await while_connected(request.receive, whole)
            status = 200
            return Response(text, headers=headers, media_type="application/json")
        except RequestError as error:
            status = error.status
            raise
        finally:
            self._service.end(work)
            self._note(address, status, work, reply)

    def _note(self, address: str, status: int, work: Work, reply: Reply) -> None:
        """A line of the log, and what is counted of a request that is over."""
        seconds = time.perf_counter() - work.began
        metrics = self._service.metrics
        if status == 200:
            metrics.whole.observe(seconds)
        log.info(
            "%s %s %s: %d prompt tokens, %d answers, %d tokens, first after %.3f s, "
            "%.3f s",
            _shown(address),
            status,
            reply.id,
            sum(map(len, work.asked.prompts)),
            work.asked.choices,
            work.tokens,
            work.first_token,
            seconds,
        )

    def _count(self, name: str, status: int) -> None:
        """A request of an endpoint that is over."""
        self._service.metrics.requests.labels(name, str(status)).inc()
        if status == GONE:
            self._service.metrics.gone.inc()

    async def _body(self, request: Request) -> bytes:
        guards = self._guards
        return await read_raw(
            request, most=guards.body_bytes, seconds=guards.body_seconds
        )

    def _answered(self, endpoint: Callable[[Request], Awaitable[Any]]) -> Any:
        """`_open` for who has a key."""

        @wraps(endpoint)
        async def guarded(request: Request) -> Any:
            check_key(request, self._guards.keys)
            return await endpoint(request)

        return self._open(guarded)

    def _open(self, endpoint: Callable[[Request], Awaitable[Any]]) -> Any:
        """An endpoint all of whose errors are in OpenAI's shape."""

        @wraps(endpoint)
        async def answer(request: Request) -> Any:
            status: int | None = None  # of a stream, it counts where it ends
            try:
                response = await endpoint(request)
                if not isinstance(response, EventStream):
                    status = response.status_code
                return response
            except RequestError as error:
                status = error.status
                if status != 401:
                    log.info(
                        "%s %d: %s",
                        _shown(request.url.path),
                        status,
                        _shown(str(error)[:200]),
                    )
                return _failed(error)
            except (ClientGoneError, ClientDisconnect):
                status = GONE
                return Response(status_code=GONE)
            except Exception:
                status = 500
                log.exception("%s failed", _shown(request.url.path))
                return _failed(server_fault())
            finally:
                if status is not None:
                    self._count(endpoint.__name__, status)

        return answer
