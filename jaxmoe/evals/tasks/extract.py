r"""Reading answers out of text: boxes, last lines.

Every function takes time linear in its text, however strange that is: an answer of a
megabyte of open braces must not hold up a run.
"""

import re
from collections import deque
from collections.abc import Callable, Iterator

LONGEST = 1000
"""Characters of what can be an answer; longer boxes and lines are none."""

# What joins boxes into one answer: a comma, "and" or "or", marks of mathematics, and
# the name of the next value: "x = \\boxed{1} or x = \\boxed{2}".
_JOINED = re.compile(
    r"(?:[\s$]|\\[,;: ()\[\]]|\\q?quad|\\\\(?:\[[^\]]{0,20}\])?|\*\*)*"
    r"(?:[,，、;&]|\\(?:text|textbf|mathrm)\{[^{}]{0,40}\b(?:and|or)\s*\}|,?\s*(?:and|or)\b)"
    r"(?:[\s$]|\\[,;: ()\[\]]|\\q?quad|\\\\(?:\[[^\]]{0,20}\])?|\*\*)*"
    r"(?:[A-Za-z]{1,2}(?:_\{?[0-9A-Za-z]\}?)?\s{0,3}=[\s$]{0,5})?",
)
_JOINING = 80
"""Characters between two boxes that are joined, at most."""

_TAGGED = re.compile(
    r"<(?P<tag>answer|final_answer)>|<\|begin_of_(?P<mark>box)\|>", re.IGNORECASE
)

# Backslashes come in pairs where a text was escaped twice; more are no command.
# A command takes what follows in braces or, as TeX reads it, one bare token; here one
# number or one letter, for "\boxed 73" means the whole number.
_BOX = r"\\{1,2}(?:boxed|fbox)(?![A-Za-z])"
_BARE = r"[-−+]?[0-9][0-9,.]{0,30}|[A-Z](?![A-Za-z])"
_TOKEN = re.compile(
    rf"(?P<box>{_BOX}\s{{0,3}}\{{)|{_BOX}\s{{0,3}}(?P<bare>{_BARE})|\\.|[{{}}]",
    re.DOTALL,
)

_ENDING = ".,;:!?。！？"
_MARKUP = "*_`"


def boxed(text: str) -> Iterator[str]:
    r"""What stands in each \boxed{...} or \fbox{...}, the one that begins last first.

    A box that never closes is none: where an answer was cut off, "\boxed{7" may be the
    beginning of 73. Boxes longer than `LONGEST` are left out. Boxes within boxes count
    as well, and \{ and \} are no braces.
    """
    for start, end in boxed_spans(text):
        yield text[start:end].strip()


def boxed_spans(text: str) -> Iterator[tuple[int, int]]:
    """Where the contents of the boxes of `boxed` begin and end."""
    spans: list[tuple[int, int]] = []
    opened: list[int | None] = []  # for each brace its box's beginning, or None
    for token in _TOKEN.finditer(text):
        if token["bare"] is not None:
            spans.append(token.span("bare"))
        elif token["box"] is not None:
            opened.append(token.end())
        elif token[0] == "{":
            opened.append(None)
        elif token[0] == "}" and opened:
            start = opened.pop()
            if start is not None and token.start() - start <= LONGEST:
                spans.append((start, token.start()))
    yield from sorted(spans, reverse=True)


def final_boxes(
    text: str, passed_over: Callable[[str], bool] = lambda content: False
) -> list[str]:
    """What the last box says, see `final_box_spans`; stripped."""
    spans = final_box_spans(text, passed_over)
    return [text[start:end].strip() for start, end in spans]


def final_box_spans(
    text: str, passed_over: Callable[[str], bool] = lambda content: False
) -> list[tuple[int, int]]:
    """Where the last box has its content, and where boxes have that are joined to it.

    Joined by a comma, "and" or "or", boxes are one answer of several parts, in their
    order. Otherwise the last one alone counts. What stands within another box is part
    of that. Without a box, <answer>...</answer> is one. Empty where there is neither.

    Args:
      passed_over: of a content, whether the box does not count, where others do.
    """
    spans = _outermost(text)
    chosen = [s for s in spans if not passed_over(text[slice(*s)].strip())] or spans
    if not chosen:
        return _tagged(text)
    parts = [chosen[0]]
    for span in chosen[1:]:
        between = text[span[1] : parts[-1][0]]
        if len(between) > _JOINING + 20:
            break
        head, closed, tail = between.partition("}")
        between = head + (tail if closed else "")
        between = re.sub(rf"{_BOX}\s{{0,3}}\{{?$", "", between)
        if len(between) > _JOINING or not _JOINED.fullmatch(between):
            break
        parts.append(span)
    return parts[::-1]


def all_boxes(text: str) -> list[str]:
    """What all boxes hold that are not within another one, in their order."""
    return [text[start:end].strip() for start, end in _outermost(text)[::-1]]


def last_match(pattern: re.Pattern[str], text: str) -> re.Match[str] | None:
    """The last of a pattern's matches."""
    last = deque(pattern.finditer(text), maxlen=1)
    return last[0] if last else None


def _outermost(text: str) -> list[tuple[int, int]]:
    """Boxes that are not within another one, the last one first."""
    outer: list[tuple[int, int]] = []
    for span in sorted(boxed_spans(text)):
        if not outer or span[0] >= outer[-1][1]:
            outer.append(span)
    return outer[::-1]


def _tagged(text: str) -> list[tuple[int, int]]:
    """What the last <answer>...</answer> holds, or GLM's marks of a box."""
    last = last_match(_TAGGED, text)
    if last is None:
        return []
    close = f"</{last['tag']}>" if last["tag"] else f"<|end_of_{last['mark']}|>"
    end = text.find(close, last.end(), last.end() + LONGEST)
    return [(last.end(), end)] if end >= 0 else []


def last_line(text: str) -> str:
    """The last line that is not blank; "" where there is none or it is too long."""
    line = text.rstrip()
    line = line[line.rfind("\n") + 1 :].strip()
    return line if len(line) <= LONGEST else ""


def normalised(text: str) -> str:
    """For comparing words: blanks as one, no case, no end punctuation or emphasis.

    What would leave nothing is left out: "?" stays "?".
    """
    words = " ".join(text.split()).casefold()
    bare = words.strip(f"{_MARKUP} ").rstrip(f"{_ENDING}{_MARKUP} ")
    return bare or words
