"""What the server does, whatever carries it: requests in, answers out."""

import asyncio
import logging
import math
import time
import uuid
from collections.abc import AsyncGenerator
from typing import Any

from starlette.concurrency import run_in_threadpool

from jaxmoe.decode.engine import Engine
from jaxmoe.model import Model
from jaxmoe.serve.driver import Driver
from jaxmoe.serve.errors import (
    RequestError,
    server_error,
    server_fault,
    shutting_down,
)
from jaxmoe.serve.in_flight import Work
from jaxmoe.serve.logprobs import TokenTexts
from jaxmoe.serve.metrics import Metrics
from jaxmoe.serve.prompt_scores import score_prompt
from jaxmoe.serve.replies import (
    DONE,
    ChatReply,
    CompletionReply,
    Event,
    Reply,
    as_json,
    sse,
)
from jaxmoe.serve.request_body import (
    ChatBody,
    CompletionBody,
    DetokenizeBody,
    TokenizeBody,
    read_body,
)
from jaxmoe.serve.request_reader import Asked, RequestReader

log = logging.getLogger("jaxmoe.serve")


class Service:
    """One model behind one engine.

    Attributes:
      draining: whether it stops: nothing new is taken. in_flight: answers under way,
        or waiting for a slot, and prompts that are scored. driver: of the engine.
    """

    def __init__(
        self,
        model: Model,
        engine: Engine,
        reader: RequestReader,
        *,
        slots: int,
        queue: int,
        fingerprint: str,
    ):
        """Serve through `engine`, which nobody else uses.

        Args:
          slots: of the engine. queue: answers that may wait for one.
          fingerprint: what clients are told of weights, versions and shapes.
        """
        self.model, self.reader = model, reader
        self.metrics = Metrics(slots=slots, running=lambda: self.in_flight)
        self.draining = False
        self.driver = Driver(engine)
        self._slots, self._most = slots, slots + queue
        self._fingerprint = fingerprint
        self._texts = TokenTexts(model)
        self._created = int(time.time())
        self.in_flight = 0
        self._works: set[Work] = set()

    # -- life ------------------------------------------------------------------------

    def start(self) -> None:
        """Begins; on the event loop that serves."""
        self.driver.start()

    async def drain(self, grace: float) -> None:
        """Takes nothing new; lets answers finish, for `grace` seconds at most."""
        self.draining = True
        log.info("stopping: %d requests in flight", len(self._works))
        deadline = time.monotonic() + grace
        while self._works and time.monotonic() < deadline:
            await asyncio.sleep(0.02)
        for work in [*self._works]:
            work.fail(shutting_down())
        while self._works and time.monotonic() < deadline + 1:
            await asyncio.sleep(0.02)

    def stop(self) -> None:
        """Ends the engine's thread."""
        self.driver.stop()

    @property
    def trouble(self) -> RequestError | None:
        """Why nothing can be asked now."""
        if self.driver.failure is not None:
            return server_error(
                f"the engine failed ({type(self.driver.failure).__name__}); start "
                "the server again",
                status=503,
                code="engine_failed",
            )
        return shutting_down() if self.draining else None

    # -- what is asked ---------------------------------------------------------------

    def models(self) -> Event:
        """The one model."""
        return {"object": "list", "data": [self.described()]}

    def described(self) -> Event:
        """The model as OpenAI's API lists it."""
        return {
            "id": self.reader.name,
            "object": "model",
            "created": self._created,
            "owned_by": "jaxmoe",
            "max_model_len": self.model.config.context_length,
        }

    def tokenize(self, raw: bytes) -> Event:
        """Token ids of a text or a conversation."""
        body = read_body(TokenizeBody, raw)
        self.reader.check_model(body.model)
        ids = self.reader.tokenize(body)
        found: Event = {
            "count": len(ids),
            "max_model_len": self.model.config.context_length,
            "tokens": ids,
        }
        if body.return_token_strs:
            found["token_strs"] = [self._texts.of(token) for token in ids]
        return found

    def detokenize(self, raw: bytes) -> Event:
        """The text of token ids, special ones included."""
        body = read_body(DetokenizeBody, raw)
        self.reader.check_model(body.model)
        return {"prompt": self.reader.detokenize(body.tokens)}

    def tokenizer_info(self) -> Event:
        """What clients that split texts and render chats themselves need, as vLLM has
        it; lm-evaluation-harness is one."""
        tokenizer = self.reader.tokenizer("tokenizer_info")
        templates = tokenizer.chat_templates
        return {
            **dict.fromkeys(("bos_token", "eos_token", "pad_token")),
            **tokenizer.special_tokens,
            "chat_template": templates.get("default"),
        }

    async def completion(self, raw: bytes) -> tuple[Work, Reply]:
        """A request of `/v1/completions`, taken."""
        began = time.perf_counter()

        def read() -> tuple[Asked, list[str]]:
            body = read_body(CompletionBody, raw)
            self.reader.check_model(body.model)
            asked = self.reader.completion(body)
            echoed = asked.prompts if asked.echo else ()
            return asked, [self.reader.detokenize(p.tolist()) for p in echoed]

        asked, texts = await run_in_threadpool(read)
        reply = CompletionReply(**self._about(asked, "cmpl-"), prompt_texts=texts)
        return await self._take(asked, reply, began)

    async def chat(self, raw: bytes) -> tuple[Work, Reply]:
        """A request of `/v1/chat/completions`, taken."""
        began = time.perf_counter()

        def read() -> Asked:
            body = read_body(ChatBody, raw)
            self.reader.check_model(body.model)
            return self.reader.chat(body)

        asked = await run_in_threadpool(read)
        reply = ChatReply(**self._about(asked, "chatcmpl-"))
        return await self._take(asked, reply, began)

    async def whole(self, work: Work, reply: Reply) -> str:
        """The reply in one, as JSON; written in a thread, since it may be long."""
        pieces: dict[int, list[Any]] = {}
        async for batch in work.batches():
            for answer, piece in batch:
                pieces.setdefault(answer.index, []).append(piece)
        reply.drawn = sum(answer.length for answer in work.answers)
        return await run_in_threadpool(
            lambda: as_json(reply.whole(pieces, work.answers))
        )

    async def events(self, work: Work, reply: Reply) -> AsyncGenerator[str, None]:
        """The reply as server-sent events; an error is one of them."""
        opening = lambda: "".join(map(sse, reply.opening(work.answers)))  # noqa: E731
        try:
            yield await run_in_threadpool(opening)
            async for batch in work.batches():
                yield "".join(sse(reply.chunk(*one)) for one in batch)
            reply.drawn = sum(answer.length for answer in work.answers)
            yield "".join(map(sse, reply.last()))
        except RequestError as error:
            work.status = error.status
            yield sse(error.body())
        except Exception:
            log.exception("a stream failed")
            fault = server_fault()
            work.status = fault.status
            yield sse(fault.body())
        yield DONE

    def end(self, work: Work) -> None:
        """Of a request that is over, or whose client has gone."""
        work.cancel()
        if work in self._works:
            self._works.remove(work)
            self.in_flight -= work.asked.load

    # -- parts -----------------------------------------------------------------------

    def check_room(self, answers: int = 1) -> None:
        """Refuses what would wait too long.

        Raises:
          RequestError: 429.
        """
        if self.in_flight and self.in_flight + answers > self._most:
            waiting = max(0, self.in_flight - self._slots)
            raise RequestError(
                f"{waiting} answers wait for one of {self._slots} slots already; ask "
                "again in a while",
                status=429,
                kind="rate_limit_error",
                code="queue_full",
                retry_after=math.ceil(1 + waiting / self._slots),
            )

    def _about(self, asked: Asked, prefix: str) -> dict[str, Any]:
        return {
            "asked": asked,
            "id": f"{prefix}{uuid.uuid4().hex}",
            "name": self.reader.name,
            "fingerprint": self._fingerprint,
            "texts": self._texts,
        }

    async def _take(
        self, asked: Asked, reply: Reply, began: float
    ) -> tuple[Work, Reply]:
        trouble = self.trouble
        if trouble is not None:
            raise trouble
        self.check_room(asked.load)
        work = Work(asked, self.model.tokenizer, self.metrics, began)
        self._works.add(work)
        self.in_flight += asked.load
        try:
            if asked.scored:
                reply.scores = [
                    await self._score(asked, j) for j in range(len(asked.prompts))
                ]
            work.start(self.driver)
        except BaseException:
            self.end(work)
            raise
        self.metrics.prompt_tokens.inc(sum(map(len, asked.prompts)))
        return work, reply

    async def _score(self, asked: Asked, prompt: int) -> Any:
        ids, top = asked.prompts[prompt], max(1, self.reader.limits.logprobs)
        try:
            return await self.driver.call(
                lambda: score_prompt(self.model, ids, asked.policy, top)
            )
        except RequestError:
            raise
        except Exception as error:
            log.exception("a prompt could not be scored")
            raise server_error(
                f"the prompt could not be scored ({type(error).__name__})",
                code="engine_failed",
            ) from None
