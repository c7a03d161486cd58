"""What a judge's reply says: a score of 0 to 10, as a person would read it."""

import re
from typing import Any

from jaxmoe.evals.message_parts import text_of_parts
from jaxmoe.evals.tasks.reasoning import answer_in

# Every repetition is bounded, so a search takes linear time.
_QUOTES = "\"'`“”‘’„«»"
_DRESS = (
    rf"(?:[\s*_{_QUOTES}:：=<\[({{$~→|\u2600-\u27bf\u2b50\ufe0f\U0001f300-\U0001faff]"
)
_DRESS += r"|[-=]>|\\[(\[])"
_NUMBER = r"[0-9]{1,4}(?:\.[0-9]{1,6})?|\.[0-9]{1,6}"
_SCORE = re.compile(
    rf"(?<![a-z])(?P<line>^[\s>#*_{_QUOTES}{{(\[-]{{0,8}}(?:(?:final|overall|total)\s)?)?"
    r"score(?![a-z0-9]|_[a-z0-9])>?(?:\s?\([^()\n]{0,40}\)|\s?\[0\s?[-–,]\s?10\])?"
    rf"(?:{_DRESS}|[-–—]\s){{0,12}}(?:(?:is|of|would be)\b{_DRESS}{{0,6}})?"
    # Not a fraction or root, of which this is a part.
    r"(?:\\(?!(?:[dtc]?frac|sqrt)\b)[a-z]{2,8}\{\s?){0,2}"
    rf"(?P<score>{_NUMBER})"
    r"(?!(?!p(?:oin)?ts?\b)[0-9a-z]|[.,][0-9]|\s?(?:\\?[%‰]|per\s?cent\b))"
    rf"(?P<rest>(?:[ \t*_{_QUOTES}>\])}}$]|\\[)\]]){{0,6}}"
    r"(?:(?P<of>\s?/|\bout of\b|\bof\b)\s?(?P<scale>[0-9]{1,6}(?:\.[0-9]+)?)"
    # "8 — 3 mistakes" gives a reason, and no range.
    r"|(?P<range>(?:[±]|\+/?-|\\pm|\bto\b|\bor\b|(?<![ \t])[-–—]"
    r"|[-–—](?![ \t]?[0-9.]{1,8}[ \t]{1,3}(?!points?\b|pts\b|out\b|of\b|or\b|is\b)"
    r"[a-z]))[ \t]?[0-9]))?)",
    re.IGNORECASE | re.MULTILINE,
)
_MORE = re.compile(r"\s?/\s?\w")
"""After a score and its scale: then it is a date, or its scale is a word."""
_BARE = re.compile(
    rf"[\s*_`$]{{0,8}}(?:\\boxed\{{\s?)?({_NUMBER})(?:\s?/\s?10)?[\s*_`$.}}]{{0,8}}"
)
_TABLE = re.compile(
    r"^[ \t]{0,3}(?P<head>\|[^\n]{0,500})\n[ \t]{0,3}\|[-:| \t]{1,500}\n"
    r"(?P<rows>(?:[ \t]{0,3}\|[^\n]{0,2000}(?:\n|\Z)){1,50})",
    re.MULTILINE,
)
_ASIDE = re.compile(r"\([^()]{0,200}[A-Za-z][^()]{0,200}\)")
_LARGEST = 10.0
_LONGEST = 1 << 20
"""Characters of a reply; one with more has run away, and is not searched."""


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
        content = text_of_parts(content)
    return content if isinstance(content, str) else "" if content is None else None


def score_in(reply: str) -> float | None:
    """The score of 0 to 10 in a reply; None where there is none.

    The last "Score: x" that begins a line, else the last one anywhere; of reasoning and
    of asides in brackets none counts. x may be dressed ("**7**", "[7]"), said to be out
    of 10, be the whole reply, or stand in the one row of a table, below "Score", or in
    the row of the total. Another scale, a range and a percentage are no score,
    and what is not within 0 to 10 neither.
    """
    if len(reply) > _LONGEST:
        return None
    text = answer_in(reply)
    if bare := _BARE.fullmatch(text):
        return _within(bare[1])
    last = None
    for found in _SCORE.finditer(_TABLE.sub(_in_table, _ASIDE.sub(" ", text))):
        if found["line"] is not None or last is None or last["line"] is None:
            last = found
    if last is None or last["range"] or _is_bound(last):
        return None
    if _MORE.match(last.string, last.end()):
        return None
    if last["of"] and float(last["scale"]) != _LARGEST:
        return None
    return _within(last["score"])


def _in_table(table: re.Match[str]) -> str:
    """A table's score as a line; the table as it is where no one row has it."""
    names = [name.lower() for name in _cells(table["head"])]
    rows = [_cells(line) for line in table["rows"].splitlines()]
    total = [row for row in rows if {"total", "overall", "final"} & _words(row[:1])]
    rows = total or rows
    if names.count("score") != 1 or len(rows) != 1 or len(rows[0]) != len(names):
        return table[0]
    return f"Score: {rows[0][names.index('score')]}\n"


def _cells(line: str) -> list[str]:
    return [cell.strip(" \t*_`") for cell in line.strip().strip("|").split("|")]


def _words(cells: list[str]) -> set[str]:
    return set(" ".join(cells).lower().split())


def _is_bound(found: re.Match[str]) -> bool:
    """Whether "<7" was said; "<7>" is a score in brackets."""
    before = found.string[: found.start("score")].rstrip()
    return before.endswith("<") and not found["rest"].lstrip().startswith(">")


def _within(digits: str) -> float | None:
    score = float(digits)
    return score if score <= _LARGEST else None
