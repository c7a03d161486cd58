"""A verifier that asks a chat model, at any OpenAI-compatible endpoint."""

import json
import re
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.message import Message
from http.client import HTTPException
from typing import Any

from jaxmoe.evals.verifiers import VerifierError, end_of

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

_SCORE = re.compile(r"\bscore[\s*_`\":=]*(\d+(?:\.\d+)?)(?![.,]?\d)", re.IGNORECASE)
_PASSING = {408, 425, 429, 500, 502, 503, 504}
"""HTTP states that may be over at the next attempt."""
_LONGEST_PAUSE = 60.0
"""Seconds between two attempts at most."""


@dataclass(frozen=True)
class ChatVerifier:
    """Asks a chat model for a score of 0 to 10, one request for each answer.

    Works with any endpoint that takes OpenAI's chat completions. Each attempt that
    fails in a way that may pass (no connection, no reply in time, HTTP 408, 425, 429 or
    5xx, a body that is no completion, a reply without a score) is followed by another
    after pause, 2 * pause, 4 * pause, ... seconds, or after what Retry-After asks for,
    at most 60.

    url: up to and without /chat/completions, such as "http://localhost:8000/v1".
    model: its name there. key: sent as a bearer token; never shown. timeout: seconds
    without a byte before an attempt is given up. attempts: in all. options: further
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
        if not re.match(r"https?://", self.url):
            raise ValueError(
                f"url must begin with http:// or https://, found {self.url!r}; pass "
                'for example "http://localhost:8000/v1"'
            )
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
        values = {"{problem}": problem, "{answer}": answer}
        # In one go: a problem may contain "{answer}".
        content = re.sub(r"\{(?:problem|answer)\}", lambda m: values[m[0]], self.prompt)
        failure: _PassingError | None = None
        for attempt in range(self.attempts):
            if failure is not None:
                pause = max(self.pause * 2 ** (attempt - 1), failure.wait)
                time.sleep(min(pause, _LONGEST_PAUSE))
            try:
                return _read_score(self._reply(content))
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
        try:
            with urllib.request.urlopen(request, timeout=self.timeout) as response:
                return _content(response.read())
        except urllib.error.HTTPError as error:
            with error:
                raise self._refusal(error) from None
        except (OSError, HTTPException) as error:
            raise _PassingError(f"expected a reply, found {error!r}") from error

    def _refusal(self, error: urllib.error.HTTPError) -> Exception:
        try:
            text = end_of(error.read().decode(errors="replace"))
        except (OSError, HTTPException):
            text = ""
        found = f"expected a reply, found HTTP {error.code} {error.reason} {text}"
        if error.code in _PASSING:
            return _PassingError(found, _retry_after(error.headers))
        return VerifierError(f"{self.url}: {found}; check url, key, model and options")


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


def _content(body: bytes) -> str:
    """The text of a completion; empty where the model said nothing."""
    try:
        text = json.loads(body)["choices"][0]["message"]["content"] or ""
    except (ValueError, LookupError, TypeError):
        text = None
    if not isinstance(text, str):
        found = end_of(body.decode(errors="replace"))
        raise _PassingError(f"expected a chat completion, found {found!r}")
    return text


def _read_score(reply: str) -> float:
    """The last score in a reply; or the reply itself, where it is only a number."""
    bare = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*", reply)
    found = [bare[1]] if bare else _SCORE.findall(reply)
    if not found or float(found[-1]) > 10:
        raise _UnreadableError(
            f'expected a reply with "Score: x", x in 0..10, found {end_of(reply)!r}'
        )
    return float(found[-1])
