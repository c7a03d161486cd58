"""Replies in the shapes of both APIs: whole, or in chunks."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from jaxmoe.evals.route_codec import encode_routes
from jaxmoe.serve.answer import Answer, Piece, joined
from jaxmoe.serve.logprobs import (
    CompletionLogprobs,
    Scored,
    TokenTexts,
    chat_logprobs,
    joined_logprobs,
    of_piece,
    prompt_logprobs,
)
from jaxmoe.serve.request_reader import Asked

Event = dict[str, Any]
DONE = "data: [DONE]\n\n"


def as_json(content: Any) -> str:
    """JSON, as short as it is."""
    return json.dumps(content, separators=(",", ":"), allow_nan=False)


def sse(event: Event) -> str:
    """A line of a stream of server-sent events."""
    return f"data: {as_json(event)}\n\n"


@dataclass
class Reply:
    """What the replies of both APIs have in common.

    id: of the reply. name: the model's. fingerprint: of weights, versions and shapes;
    where it is equal, equal requests get equal answers. scores: of each prompt, where
    they were asked for. prompt_texts: of each prompt, where it is echoed.
    """

    asked: Asked
    id: str
    name: str
    fingerprint: str
    texts: TokenTexts
    scores: list[Scored] = field(default_factory=list)
    prompt_texts: list[str] = field(default_factory=list)
    created: int = field(default_factory=lambda: int(time.time()))
    drawn: int = 0

    kind = ""
    chunk_kind = ""

    def whole(self, pieces: dict[int, list[Piece]], answers: list[Answer]) -> Event:
        """The reply in one."""
        choices = [
            self._choice(answer, joined(pieces[answer.index])) for answer in answers
        ]
        return self._event(self.kind, choices) | {"usage": self.usage()}

    def opening(self, answers: list[Answer]) -> Iterator[Event]:
        """What a stream begins with."""
        yield from ()

    def chunk(self, answer: Answer, piece: Piece) -> Event:
        """What a stream says of an answer's new tokens.

        One choice an event, as OpenAI's and vLLM's have it: many clients read the first
        alone.
        """
        choice = self._chunk_choice(answer, piece) | self._ours(answer, piece)
        return self._chunk([choice])

    def last(self) -> Iterator[Event]:
        """What a stream ends with."""
        if self.asked.usage:
            yield self._event(self.chunk_kind, []) | {"usage": self.usage()}

    def usage(self) -> dict[str, int]:
        """Tokens so far; a prompt counts once, whatever n is."""
        prompt = sum(map(len, self.asked.prompts))
        return {
            "prompt_tokens": prompt,
            "completion_tokens": self.drawn,
            "total_tokens": prompt + self.drawn,
        }

    def _event(self, kind: str, choices: list[Any]) -> Event:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.name,
            "system_fingerprint": self.fingerprint,
            "seed": self.asked.seed,
            "choices": choices,
        }

    def _chunk(self, choices: list[Any]) -> Event:
        more = {"usage": None} if self.asked.usage else {}
        return self._event(self.chunk_kind, choices) | more

    def _ours(self, answer: Answer, piece: Piece) -> dict[str, Any]:
        """Fields of a choice that OpenAI's have not."""
        found: dict[str, Any] = {"sample_index": answer.sample}
        if self.asked.token_ids:
            found["token_ids"] = piece.tokens
        if self.asked.routes and piece.finish is not None:
            length = len(self.asked.prompts[answer.prompt])
            found["routed_experts"] = encode_routes(length, answer.routes)
        return found

    def _of_prompt(self, answer: Answer) -> dict[str, Any]:
        """What is returned of an answer's prompt."""
        found: dict[str, Any] = {}
        if self.asked.token_ids:
            found["prompt_token_ids"] = self.asked.prompts[answer.prompt].tolist()
            found["token_ids"] = []  # those of the answer follow
        top = self.asked.prompt_logprobs
        if top is not None:
            scored = self.scores[answer.prompt]
            found["prompt_logprobs"] = prompt_logprobs(scored, top, self.texts)
        return found

    def _choice(self, answer: Answer, piece: Piece) -> dict[str, Any]:
        raise NotImplementedError

    def _chunk_choice(self, answer: Answer, piece: Piece) -> dict[str, Any]:
        raise NotImplementedError


@dataclass
class CompletionReply(Reply):
    """`/v1/completions`."""

    kind = chunk_kind = "text_completion"
    _offsets: dict[int, CompletionLogprobs] = field(default_factory=dict)

    def opening(self, answers: list[Answer]) -> Iterator[Event]:
        """The prompt's text and scores, where they were asked for."""
        for answer in answers:
            about = self._of_prompt(answer)
            if self.asked.echo or about:
                text, logprobs = self._echo(answer)
                own = {"index": answer.index, "text": text, "logprobs": logprobs}
                yield self._chunk([own | {"finish_reason": None} | about])

    def _echo(self, answer: Answer) -> tuple[str, Any]:
        """The prompt's part of a choice's text and log-probabilities."""
        if not self.asked.echo:
            return "", None
        text, top = self.prompt_texts[answer.prompt], self.asked.logprobs
        if top is None:
            return text, None
        return text, self._logprobs(answer).of_prompt(self.scores[answer.prompt])

    def _logprobs(self, answer: Answer) -> CompletionLogprobs:
        top = self.asked.logprobs or 0
        return self._offsets.setdefault(
            answer.index, CompletionLogprobs(self.texts, top)
        )

    def _chunk_choice(self, answer: Answer, piece: Piece) -> dict[str, Any]:
        logprobs = None
        if self.asked.logprobs is not None:
            logprobs = self._logprobs(answer).of(of_piece(piece))
        return {
            "index": answer.index,
            "text": piece.text,
            "logprobs": logprobs,
            "finish_reason": piece.finish,
        }

    def _choice(self, answer: Answer, piece: Piece) -> dict[str, Any]:
        text, before = self._echo(answer)
        choice = self._chunk_choice(answer, piece)
        choice["text"] = text + choice["text"]
        if before is not None:
            choice["logprobs"] = joined_logprobs(before, choice["logprobs"])
        return choice | self._of_prompt(answer) | self._ours(answer, piece)


@dataclass
class ChatReply(Reply):
    """`/v1/chat/completions`."""

    kind, chunk_kind = "chat.completion", "chat.completion.chunk"

    def opening(self, answers: list[Answer]) -> Iterator[Event]:
        """Who speaks."""
        for answer in answers:
            delta = {"role": "assistant", "content": ""}
            own = {"index": answer.index, "delta": delta, "logprobs": None}
            own["finish_reason"] = None
            yield self._chunk([own | self._of_prompt(answer)])

    def _chunk_choice(self, answer: Answer, piece: Piece) -> dict[str, Any]:
        return {
            "index": answer.index,
            "delta": {"content": piece.text} if piece.text else {},
            "logprobs": self._logprobs(piece),
            "finish_reason": piece.finish,
        }

    def _choice(self, answer: Answer, piece: Piece) -> dict[str, Any]:
        message = {"role": "assistant", "content": piece.text, "refusal": None}
        choice = {
            "index": answer.index,
            "message": message,
            "logprobs": self._logprobs(piece),
            "finish_reason": piece.finish,
        }
        return choice | self._of_prompt(answer) | self._ours(answer, piece)

    def _logprobs(self, piece: Piece) -> Any:
        top = self.asked.logprobs
        if top is None:
            return None
        return chat_logprobs(of_piece(piece), top, self.texts)
