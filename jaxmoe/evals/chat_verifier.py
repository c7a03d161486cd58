"""A verifier that asks a chat model, at any OpenAI-compatible endpoint."""

import base64
import html
import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.message import Message
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any
from urllib.parse import quote, urlsplit

from jaxmoe.evals.judge_replies import content_of, score_in
from jaxmoe.evals.tasks.reasoning import answer_in
from jaxmoe.evals.verifiers import VerifierError, end_of
from jaxmoe.files import printable

PROMPT = """\
You grade an answer to a problem. Work out whether the answer is right, then end with \
one line of the form "Score: x", x from 0 (certainly wrong) to 10 (certainly right).

<problem>
{problem}
</problem>

<answer>
{answer}
</answer>"""
"""What `ChatVerifier` asks; {problem} and {answer} are put in."""

_PASSING = {408, 425, 429, 500, 502, 503, 504}
"""HTTP states that may be over at the next attempt."""
_LONGEST_PAUSE = 15.0
"""Seconds between two attempts at most, whatever the endpoint asks for."""
_MOST_BYTES = 16 << 20
"""Of a reply's body."""
_CHUNK = 1 << 16


@dataclass(frozen=True)
class ChatVerifier:
    """Asks a chat model for a score of 0 to 10, one request for each answer.

    Works with any endpoint that takes OpenAI's chat completions. Each attempt that
    fails in a way that may pass (no connection, no reply in time, HTTP 408, 425, 429 or
    5xx, a body that is no completion, a reply without a score) is followed by another
    after pause, 2 * pause, 4 * pause, ... seconds, or after what Retry-After asks for,
    at most 15. The endpoint is not trusted: no redirect is followed, a body of more
    than 16 MB is none, and errors show neither the key nor what moves a terminal. Of an
    answer it is shown what follows the reasoning.

    url: up to and without /chat/completions, such as "http://localhost:8000/v1".
    model: its name there. key: sent as a bearer token; never shown. timeout: seconds
    for the whole reply of an attempt. attempts: in all. options: further
    fields of the request. prompt: what is asked. unreadable: the score where no attempt
    brought a reply with one; None: an error.
    """

    url: str
    model: str
    key: str | None = field(default=None, repr=False)
    timeout: float = 60.0
    attempts: int = 4
    pause: float = 1.0
    options: Mapping[str, Any] = field(default_factory=lambda: {"temperature": 0})
    prompt: str = PROMPT
    unreadable: float | None = None

    def __post_init__(self):
        _check_address(self.url)
        # http.client would show a key that it refuses in its error.
        if self.key is not None and not re.fullmatch(r"[!-~]+", self.key):
            raise ValueError(
                "key must be printable ASCII without spaces, found other characters; "
                "remove a line end"
            )
        if self.attempts < 1 or self.timeout <= 0 or self.pause < 0:
            raise ValueError(
                "attempts must be at least 1, timeout above 0 and pause not below 0, "
                f"found {self.attempts}, {self.timeout} and {self.pause}; leave them "
                "out for the defaults"
            )
        if not all(name in self.prompt for name in ("{problem}", "{answer}")):
            raise ValueError(
                "prompt must contain {problem} and {answer}, found one without; add "
                "them"
            )

    def __call__(self, problem: str, answers: Sequence[str]) -> list[float]:
        """The score of each answer.

        Raises:
          VerifierError: no attempt brought one, or the endpoint refused the request.
        """
        return [self._score(problem, answer) for answer in answers]

    def _score(self, problem: str, answer: str) -> float:
        values = {"{problem}": problem, "{answer}": answer_in(answer)}
        # In one go: a problem may contain "{answer}".
        content = re.sub(r"\{(?:problem|answer)\}", lambda m: values[m[0]], self.prompt)
        failure: _PassingError | None = None
        for attempt in range(self.attempts):
            if failure is not None:
                pause = max(self.pause * 2 ** (attempt - 1), failure.wait)
                time.sleep(min(pause, _LONGEST_PAUSE))
            try:
                return self._read_score(self._reply(content))
            except _PassingError as error:
                failure = error
        if isinstance(failure, _UnreadableError) and self.unreadable is not None:
            return self.unreadable
        raise VerifierError(
            f"{self.url}: {failure} ({self.attempts} attempts); check the endpoint and "
            f"the model {self.model!r}"
        )

    def _reply(self, content: str) -> str:
        """The text of the model's reply to one request."""
        message = {"role": "user", "content": content}
        body = {**self.options, "model": self.model, "messages": [message]}
        request = urllib.request.Request(
            self.url.rstrip("/") + "/chat/completions",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
            method="POST",
        )
        if self.key is not None:
            # Unredirected: never sent on to another host.
            request.add_unredirected_header("Authorization", f"Bearer {self.key}")
        state, reason, headers, reply = self._fetch(request)
        if 200 <= state < 300:
            return self._content(reply)
        text = self._shown(f"{reason} {reply.decode(errors='replace')}")
        found = f"expected a reply, found HTTP {state} {text}"
        if state in _PASSING:
            raise _PassingError(found, _retry_after(headers))
        advice = "check url, key, model and options"
        if 300 <= state < 400:
            advice = "redirects are not followed: pass the address it redirects to"
        raise VerifierError(f"{self.url}: {found}; {advice}")

    def _fetch(
        self, request: urllib.request.Request
    ) -> tuple[int, str, Message, bytes]:
        """State, reason, headers and body of a reply, all within the timeout.

        In a thread, since an endpoint that sends its headers byte by byte would
        outlast any limit of a single read.
        """
        deadline = time.monotonic() + self.timeout
        results: SimpleQueue[Any] = SimpleQueue()

        def work() -> None:
            try:
                results.put(_exchange(request, self.timeout, deadline))
            except Exception as error:  # whatever an endpoint makes the library raise
                results.put(error)

        Thread(target=work, daemon=True).start()
        try:
            result = results.get(timeout=self.timeout + 1)
        except Empty:
            result = TimeoutError("no whole reply in time")
        if isinstance(result, Exception):
            found = self._shown(f"{type(result).__name__}: {result}")
            raise _PassingError(f"expected a reply, found {found}") from None
        return result

    def _content(self, body: bytes) -> str:
        """The text of a completion; empty where the model said nothing."""
        try:
            text = content_of(json.loads(body))
        except (ValueError, RecursionError, MemoryError):
            text = None
        if text is None:
            found = self._shown(body.decode(errors="replace"))
            raise _PassingError(f"expected a chat completion, found {found!r}")
        return text

    def _read_score(self, reply: str) -> float:
        score = score_in(reply)
        if score is None:
            found = self._shown(reply)
            raise _UnreadableError(
                f'expected a reply with "Score: x", x in 0..10, found {found!r}'
            )
        return score

    def _shown(self, text: str) -> str:
        """What an endpoint says, as an error may show it: one line without the key."""
        for form in _forms_of(self.key) if self.key else ():
            text = text.replace(form, "***")
        return printable(end_of(" ".join(text.split())))


def _check_address(url: str) -> None:
    """A ValueError for what requests could not be sent to; it shows no password."""
    remedy = 'pass for example "http://localhost:8000/v1"'
    if not isinstance(url, str) or not re.match(r"https?://", url, re.IGNORECASE):
        raise ValueError(
            f"url must begin with http:// or https://, found {url!r:.80}; {remedy}"
        )
    if not re.fullmatch(r"[!-~]+", url):
        raise ValueError(
            f"url must be ASCII without spaces, found {url!a:.80}; write other letters "
            "as %XX, and the host's in Punycode"
        )
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"url has no host or port ({error}); {remedy}") from None
    if not host:
        raise ValueError(f"url must name a host, found {url!r:.80}; {remedy}")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError(
            "url must be an address without user, password, ? and #, which errors "
            "would show, found one with; pass a secret as the key"
        )


def _forms_of(key: str) -> list[str]:
    """A key as it is, and as JSON, HTML, addresses and base64 write it; longest first.

    An endpoint may repeat it in an error in any of these.
    """
    quoted = json.dumps(key)[1:-1]
    forms = {key, quoted, quoted.replace("/", "\\/"), html.escape(key)}
    forms |= {quote(key), quote(key, safe="")}
    forms.add(base64.b64encode(key.encode()).decode().rstrip("="))
    return sorted(forms, key=len, reverse=True)


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """Leaves a redirect as it is: another host was not asked for."""

    def redirect_request(self, *_: Any) -> None:
        """No request at all, so that the state itself is the reply."""


_OPENER = urllib.request.build_opener(_NoRedirects)


def _exchange(
    request: urllib.request.Request, timeout: float, deadline: float
) -> tuple[int, str, Message, bytes]:
    response: Any
    try:
        response = _OPENER.open(request, timeout=timeout)
    except urllib.error.HTTPError as error:
        response = error
    with response:
        body = bytearray()
        while chunk := response.read1(_CHUNK):
            body += chunk
            if len(body) > _MOST_BYTES:
                raise ValueError(f"a body of more than {_MOST_BYTES >> 20} MB")
            if time.monotonic() > deadline:
                raise TimeoutError("no whole reply in time")
        length = response.headers.get("Content-Length", "")
        if length.isdecimal() and len(body) < int(length[:18]):
            raise ValueError(f"{len(body)} of {length[:18]} bytes")
        return response.status, str(response.reason), response.headers, bytes(body)


class _PassingError(Exception):
    """An attempt that failed; another after `wait` seconds or more may not."""

    def __init__(self, message: str, wait: float = 0.0):
        super().__init__(message)
        self.wait = wait


class _UnreadableError(_PassingError):
    """A reply without a score."""


def _retry_after(headers: Message) -> float:
    """Seconds that a server asks to wait; 0 where it names none, or a date."""
    value = headers.get("Retry-After", "")
    return float(value) if re.fullmatch(r"\d{1,6}", value) else 0.0
