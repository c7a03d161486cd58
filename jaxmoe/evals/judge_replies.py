"""What a judge's reply says: a score of 0 to 10, as a person would read it."""

import re
from typing import Any

from jaxmoe.evals.tasks.reasoning import answer_in

# Every repetition is bounded, so a search takes linear time.
_DRESS = r"[\s*_`\"':=<\[({$~→|]"
_SCORE = re.compile(
    r"(?<![a-z])(?P<line>^[\s>#*_`\"'{(\[-]{0,8}(?:(?:final|overall|total)\s)?)?"
    r"score\b>?(?:\s?\([^()\n]{0,40}\))?"
    rf"(?:{_DRESS}|[-–—]\s){{0,12}}(?:(?:is|of|would be)\b{_DRESS}{{0,6}})?"
    r"(?:\\[a-z]{2,8}\{\s?){0,2}"
    r"(?P<score>[0-9]{1,4}(?:\.[0-9]{1,6})?)(?![0-9eE]|[.,][0-9]|\s?\\?%)"
    r"(?P<rest>[\s*_`\"'>\])}$]{0,6}"
    r"(?:(?P<of>/|\bout of\b|\bof\b)\s?(?P<scale>[0-9]{1,6}(?:\.[0-9]+)?)"
    r"|(?P<range>(?:[-–—±]|\+/?-|\\pm|\bto\b|\bor\b)\s?[0-9]))?)",
    re.IGNORECASE | re.MULTILINE,
)
_BARE = re.compile(
    r"[\s*_`$]{0,8}([0-9]{1,4}(?:\.[0-9]{1,6})?)(?:\s?/\s?10)?[\s*_`$.]{0,8}"
)
_ASIDE = re.compile(r"\([^()]{0,200}[A-Za-z][^()]{0,200}\)")
_LARGEST = 10.0


def content_of(completion: Any) -> str | None:
    """The text of a chat completion, "" where the model said nothing; None for none.

    The content may be a list of parts, whose texts are joined. Reasoning that an
    endpoint sends apart is none of it.
    """
    try:
        content = completion["choices"][0]["message"]["content"]
    except (LookupError, TypeError):
        return None
    if isinstance(content, list):
        parts = [part.get("text") for part in content if isinstance(part, dict)]
        content = "".join(text for text in parts if isinstance(text, str))
    return content if isinstance(content, str) else "" if content is None else None


def score_in(reply: str) -> float | None:
    """The score of 0 to 10 in a reply; None where there is none.

    The last "Score: x" that begins a line, else the last one anywhere; of reasoning and
    of asides in brackets none counts. x may be dressed ("**7**", "[7]"), said to be out
    of 10, or be the whole reply. Another scale, a range and a percentage are no score,
    and what is not within 0 to 10 neither.
    """
    text = answer_in(reply)
    if bare := _BARE.fullmatch(text):
        return _within(bare[1])
    last = None
    for found in _SCORE.finditer(_ASIDE.sub(" ", text)):
        if found["line"] is not None or last is None or last["line"] is None:
            last = found
    if last is None or last["range"] or _is_bound(last):
        return None
    if last["of"] and float(last["scale"]) != _LARGEST:
        return None
    return _within(last["score"])


def _is_bound(found: re.Match[str]) -> bool:
    """Whether "<7" was said; "<7>" is a score in brackets."""
    before = found.string[: found.start("score")].rstrip()
    return before.endswith("<") and not found["rest"].lstrip().startswith(">")


def _within(digits: str) -> float | None:
    score = float(digits)
    return score if score <= _LARGEST else None
