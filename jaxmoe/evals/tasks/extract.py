r"""Reading answers out of text: boxes, integers, last lines.

Every function takes time linear in its text, however strange that is: an answer of a
megabyte of open braces must not hold up a run.
"""

import re
from collections.abc import Iterator

LONGEST = 1000
"""Characters of what can be an answer; longer boxes and lines are none."""

_LONGEST_INTEGER = 200

# Backslashes come in pairs where a text was escaped twice; more are no command.
# A command takes what follows in braces or, as TeX reads it, one bare token; here one
# number or one letter, for "\boxed 73" means the whole number.
_BOX = r"\\{1,2}(?:boxed|fbox)(?![A-Za-z])"
_BARE = r"[-−+]?[0-9][0-9,.]{0,30}|[A-Z](?![A-Za-z])"
_TOKEN = re.compile(
    rf"(?P<box>{_BOX}\s{{0,3}}\{{)|{_BOX}\s{{0,3}}(?P<bare>{_BARE})|\\.|[{{}}]",
    re.DOTALL,
)

_SHIFT = "text|textbf|textit|textrm|mathrm|mathbf|mathsf|mathit|mbox|bf|rm|bm"
_WRAPPED = re.compile(rf"\\(?:{_SHIFT})\s{{0,3}}\{{([^{{}}]*)\}}")
# Thin and other spaces, and the marks that switch mathematics on and off.
_SPACE = re.compile(r"\\[,;: ]|\\q?quad(?![A-Za-z])|~")
_NO_INK = re.compile(r"\\!|\\(?:left|right)(?![A-Za-z])|\\[()\[\]]|\\?\$")
_NESTING = 4

_DEGREES = re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ)|°")
_BEFORE_VALUE = re.compile("(?<![<>!])=|(?<=[A-Za-z]):")  # not of "<=" or "3:4"
# More than one value, as in "x=5, y=73". The comma of "1,000 + 234 = 1234" is none.
_SEVERAL = re.compile(
    r"(?:,(?![0-9]{3})|;|=.*\b(?:and|or)\b).*(?:=|(?<=[A-Za-z]):)", re.DOTALL
)
_BRACKETED = re.compile(r"\([^()]*\)|\{[^{}]*\}")

# Words in mathematics are products of variables, so that "12 pi" is not 12: whatever is
# set as text may be a unit, and beside it only words that are nothing else. Words that
# change the number or name another one are no unit anywhere.
_NO_UNIT = "pi|sqrt|or|and|times|over|mod|dozen|hundred|[a-z]*thousand|[a-z]*illions?"
_TEXT_UNIT = re.compile(
    r"(?P<before>\\(?:text|textrm|mathrm|mbox|rm)\s{0,3}\{[^{}]*?)(?<![A-Za-z])"
    rf"(?![^{{}}]*\b(?:{_NO_UNIT})\b)[A-Za-z]{{2}}[A-Za-z .]*\}}"
)
_UNIT = (
    r"(?:(?:square|cubic|sq\.?)\s)?(?:units?|[ck]?m|mm|kg|inch|inches|foot|feet|ft|"
    r"miles?|(?:centi|kilo)?met(?:er|re)s?|degrees?|radians?|percent|dollars?|cents?|"
    r"seconds?|minutes?|hours?|days?|years?)"
)
_INTEGER = re.compile(
    r"(?P<sign>[-+]?)\s*"
    r"(?P<digits>[0-9]{1,3}(?:[, ][0-9]{3})+|[0-9]+)(?:\.0*)?"
    rf"(?:\s+{_UNIT})?"
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


def plain(latex: str) -> str:
    r"""Without what only dresses text: $, \(, \left, \text{...}, thin spaces.

    >>> plain(r"$\text{(B)}$")
    '(B)'
    """
    text = _SPACE.sub(" ", _NO_INK.sub("", latex))
    for _ in range(_NESTING):
        text, count = _WRAPPED.subn(r" \1 ", text)
        if not count:
            break
    return " ".join(text.split())


def integer(text: str) -> int | None:
    r"""The integer that a box holds, or None where it holds anything else.

    Read are leading zeros, signs (a Unicode minus too), commas or spaces between
    thousands, "73.0", units behind ("73^\circ", "73 cm", any words within \text{...} or
    \mathrm{...}), words before a colon and all before an equals sign ("m + n = 73").
    Not read is whatever is still to be worked out, such as "7/2", "2^5", "5!" or
    "12 pi", and more than one number or assignment ("x=5, y=73").
    """
    if len(text) > _LONGEST_INTEGER:
        return None
    # Any unit that is set as text becomes one that `_INTEGER` knows.
    named = _TEXT_UNIT.sub(r"\g<before> units}", text.replace("{,}", ","))
    cleaned = plain(named).replace("−", "-")
    if _SEVERAL.search(_BRACKETED.sub("", cleaned)):
        return None
    cleaned = _DEGREES.sub("", _BEFORE_VALUE.split(cleaned)[-1])
    found = _INTEGER.fullmatch(cleaned.strip(f" {{}}{_MARKUP}").rstrip(".,"))
    if not found:
        return None
    return int(found["sign"] + re.sub("[, ]", "", found["digits"]))


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
