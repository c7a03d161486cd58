"""Scores of answers by something other than the model: a verifier, or a file of them.

A verifier is any function from a problem and its answers to one number for each,
higher is better. Scores are kept as they come, so that a broken connection costs no
more than the problems that were being scored.
"""

import itertools
import json
import math
import re
import time
import urllib.error
import urllib.request
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from email.message import Message
from http.client import HTTPException
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

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
_SHOWN = 200
"""Characters of a text shown in an error."""


class VerifierError(RuntimeError):
    """A verifier that gave no scores that can be used."""


@runtime_checkable
class Verifier(Protocol):
    """Scores the answers to one problem; called from several threads at once."""

    def __call__(self, problem: str, answers: Sequence[str]) -> Sequence[float]:
        """One finite number for each answer, in their order; higher is better."""
        ...


def scores_from(
    verifier: Verifier,
    problems: Sequence[str],
    texts: Sequence[Sequence[str]],
    *,
    workers: int = 4,
    done: Mapping[int, Sequence[float]] | None = None,
    keep: Callable[[int, list[float]], None] | None = None,
    max_failures: int = 8,
) -> Float[np.ndarray, "P n"]:
    """A verifier's scores of n texts to each problem.

    Attempts again are the verifier's own affair. A problem whose scores did not come is
    never filled in, as a made-up score would be ranked: the others are still scored and
    given to `keep`, no more are begun after `max_failures` such problems, and one error
    is raised at the end. Call again with what was kept as `done` for the rest.

    Args:
      problems: what each problem asks.
      texts: n answers to each.
      workers: problems scored at once, each in a thread.
      done: problem's index -> its scores, which are not asked for again.
      keep: called with a problem's index and scores as they come, from the thread that
        called `scores_from`.
      max_failures: problems without scores before the rest is left.

    Returns:
      float64.

    Raises:
      ValueError: texts that are not n for each problem, scores in `done` that are not n
        finite numbers or of no problem, workers or max_failures below 1.
      VerifierError: problems whose scores did not come.
    """
    n = _answers_each(problems, texts)
    if workers < 1 or max_failures < 1:
        raise ValueError(
            "workers and max_failures must be at least 1, found "
            f"{workers} and {max_failures}; pass for example 4 and 8"
        )
    scores = np.full((len(problems), n), np.nan)
    for index, values in (done or {}).items():
        if not 0 <= index < len(problems):
            raise ValueError(
                f"done must hold problems in 0..{len(problems) - 1}, found {index}; "
                "pass the scores of these problems"
            )
        scores[index] = _checked(values, n, _label(index, problems))

    def ask(index: int) -> list[float]:
        values = verifier(problems[index], texts[index])
        return _checked(values, n, _label(index, problems))

    waiting = deque(j for j in range(len(problems)) if j not in (done or {}))
    failed: dict[int, Exception] = {}
    for index, result in _in_threads(ask, waiting, workers):
        if isinstance(result, Exception):
            failed[index] = result
            if len(failed) == max_failures:
                waiting.clear()  # those that run still end
            continue
        scores[index] = result
        if keep is not None:
            keep(index, result)
    if failed:
        raise _failure(failed, scores, problems)
    return scores


def read_scores(path: Path, ids: Sequence[str], n: int) -> Float[np.ndarray, "P n"]:
    """Scores from a file of JSON lines, in the order of `ids`.

    A line is {"problem": id, "sample": i, "score": x} with i in 0..n-1, or
    {"problem": id, "scores": [n numbers]}; both kinds may be mixed, in any order. null
    is an unknown score and becomes nan, which counts as the lowest.

    Args:
      path: the file; empty lines are skipped.
      ids: every problem's id.
      n: answers to each problem.

    Returns:
      float64.

    Raises:
      ValueError: a line that is none of these, an unknown id, a score given twice, a
        wrong number of scores, or scores missing.
    """
    rows = {name: row for row, name in enumerate(ids)}
    if len(rows) != len(ids):
        raise ValueError(
            f"expected ids that differ, found {len(rows)} among {len(ids)}; name each "
            "problem once"
        )
    scores = np.full((len(ids), n), np.nan)
    source: dict[tuple[int, int], int] = {}
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                for name, sample, score in _parse_line(line, n):
                    place = _place(rows, name, sample, source)
                    source[place] = number
                    scores[place] = score
            except (ValueError, OverflowError) as error:
                raise ValueError(f"{path}, line {number}: {error}") from None
    places = itertools.product(range(len(ids)), range(n))
    if missing := next((place for place in places if place not in source), None):
        row, sample = missing
        raise ValueError(
            f"{path}: expected {len(ids) * n} scores, found {len(source)}; add those "
            f"missing, first that for sample {sample} of problem {ids[row]!r}, or null "
            "where it is unknown"
        )
    return scores


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
            text = _short(error.read().decode(errors="replace"))
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
        found = _short(body.decode(errors="replace"))
        raise _PassingError(f"expected a chat completion, found {found!r}")
    return text


def _read_score(reply: str) -> float:
    """The last score in a reply; or the reply itself, where it is only a number."""
    bare = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*", reply)
    found = [bare[1]] if bare else _SCORE.findall(reply)
    if not found or float(found[-1]) > 10:
        raise _UnreadableError(
            f'expected a reply with "Score: x", x in 0..10, found {_short(reply)!r}'
        )
    return float(found[-1])


def _short(text: str) -> str:
    """The end of a long text, where a score would be."""
    return text if len(text) <= _SHOWN else "..." + text[-_SHOWN:]


def _label(index: int, problems: Sequence[str]) -> str:
    return f"problem {index} ({problems[index][:40]!r})"


def _answers_each(problems: Sequence[str], texts: Sequence[Sequence[str]]) -> int:
    """n; a ValueError where it is not the same for all problems."""
    numbers = {len(row) for row in texts}
    if len(texts) != len(problems) or len(numbers) > 1:
        raise ValueError(
            f"expected the same number of texts for each of {len(problems)} problems, "
            f"found {len(texts)} lists with {sorted(numbers)} texts; finish the run"
        )
    return numbers.pop() if numbers else 0


def _checked(values: Any, n: int, label: str) -> list[float]:
    """A verifier's scores as n finite floats."""
    try:
        scores = [float(value) for value in values]
    except (TypeError, ValueError):
        scores = [math.nan]
    finite = all(map(math.isfinite, scores))
    if len(scores) != n or not finite:
        found = len(scores) if finite else _short(repr(values))
        raise ValueError(
            f"{label}: expected {n} finite scores, found {found}; return one number "
            "for each answer"
        )
    return scores


def _in_threads(
    ask: Callable[[int], list[float]], waiting: deque[int], workers: int
) -> Iterator[tuple[int, list[float] | Exception]]:
    """What came of each index in `waiting`, as it comes, `workers` at a time.

    None is taken out before a thread is free for it, so clearing `waiting` stops all
    that have not begun.
    """
    running: dict[Future[list[float]], int] = {}
    with ThreadPoolExecutor(workers) as pool:
        while waiting or running:
            while waiting and len(running) < workers:
                index = waiting.popleft()
                running[pool.submit(ask, index)] = index
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                error = future.exception()
                failed = isinstance(error, Exception)
                yield running.pop(future), error if failed else future.result()


def _failure(
    failed: Mapping[int, Exception],
    scores: Float[np.ndarray, "P n"],
    problems: Sequence[str],
) -> VerifierError:
    index = min(failed)
    text, label = str(failed[index]), _label(index, problems)
    if not text.startswith(label):
        text = f"{label}: {type(failed[index]).__name__}: {text}"
    have = int(np.isfinite(scores).all(axis=1).sum())
    failure = VerifierError(
        f"expected scores for {len(problems)} problems, found them for {have}; call "
        f"again with what was kept as `done`. Failed: {len(failed)}, first {text}"
    )
    failure.__cause__ = failed[index]
    return failure


def _parse_line(line: str, n: int) -> list[tuple[Any, int, float]]:
    """The problem, sample and score of each score in a line."""
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(
            f"expected JSON, found {_short(line.strip())!r} ({error}); write one "
            "object a line"
        ) from None
    keys = set(row) if isinstance(row, dict) else set()
    if keys == {"problem", "sample", "score"}:
        found = [(row["sample"], row["score"])]
    elif keys == {"problem", "scores"} and isinstance(row["scores"], list):
        found = list(enumerate(row["scores"]))
        if len(found) != n:
            raise ValueError(
                f"expected {n} scores for problem {row['problem']!r}, found "
                f"{len(found)}; give one for each answer"
            )
    else:
        raise ValueError(
            "expected problem, sample and score, or problem and a list of scores, "
            f"found {_short(line.strip())}; write one of these two"
        )
    for sample, _ in found:
        if type(sample) is not int or not 0 <= sample < n:
            raise ValueError(
                f"expected a sample in 0..{n - 1}, found {sample!r}; count from 0"
            )
    return [(row["problem"], sample, _number(score)) for sample, score in found]


def _number(value: Any) -> float:
    if value is None:
        return math.nan
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(
            f"expected a finite number or null as score, found {value!r}; "
            "write null where it is unknown"
        )
    return float(value)


def _place(
    rows: Mapping[str, int],
    name: Any,
    sample: int,
    source: Mapping[tuple[int, int], int],
) -> tuple[int, int]:
    """Where a score belongs; a ValueError where nothing, or already one, does."""
    if not isinstance(name, str) or name not in rows:
        raise ValueError(
            f"expected a problem of this run, found {name!r}; use the ids of its "
            "records"
        )
    place = rows[name], sample
    if place in source:
        raise ValueError(
            f"expected one score for sample {sample} of problem {name!r}, found "
            f"another in line {source[place]}; remove one of them"
        )
    return place
