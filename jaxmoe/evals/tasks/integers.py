r"""Reading an integer out of what a box holds."""

import re

from jaxmoe.evals.tasks.peel import plain

_LONGEST = 200

# "=" but not of "<=", "!=" or ":="; arrows and "therefore" lead to what follows.
_EQUALS = re.compile(r"(?<![<>!~])=|\\equiv(?![A-Za-z])|≡")
_LEADS_TO = re.compile(
    r"\\(?:therefore|[rR]ightarrow|[lL]ongrightarrow|implies|to|iff|Leftrightarrow)"
    r"(?![A-Za-z])|[∴→⇒⟹]|=>"
)
_MODULO = re.compile(
    r"\\pmod\s{0,3}(?:\{[^{}]{1,20}\}|[0-9]{1,9})"
    r"|\\text\s{0,3}\{\s{0,3}\(mod\s{0,3}\}\s{0,3}[0-9]{1,9}(?:\)|\\text\{\)\})"
    r"|\(\s{0,3}\\?(?:text|mathrm|operatorname)?\s{0,3}\{?\s{0,3}\\?b?mod\b[^()]{0,20}\)"
)
_OVER_ONE = re.compile(r"\\[dt]?frac\s*(?:\{([^{}]*)\}|([0-9]))\s*(?:\{\s*1\s*\}|1)")
_DEGREES = re.compile(r"\^\s*(?:\{\s*\\circ\s*\}|\\circ)|°|\\degree(?![A-Za-z])|\\?%")
_ORDINAL = re.compile(r"(?<=[0-9])\s*\^?\s*\{?\s*\\?(?:st|nd|rd|th)\b\s*\}?$")
_ENCLOSED = {"(": ")", "[": "]", "{": "}", r"\{": r"\}"}

# Words in mathematics are products of variables, so that "12 pi" is not 12: whatever is
# set as text may be a unit, and beside it only words that are nothing else. Words that
# change the number or name another one are no unit anywhere.
_NO_UNIT = (
    "pi|sqrt|or|and|times|over|mod|base|dozen|hundred|[a-z]*thousand|[a-z]*illions?|"
    "squared|cubed|factorial|half|plus|minus|to|than"
)
_POWER = r"(?:\s*(?:\^\s*\{?\s*-?\s*[0-9]\s*\}?|[²³]))?"
_TEXT = r"\\(?:text|textrm|textbf|textit|textsf|textnormal|mathrm|mathbf|mbox|hbox|rm)"
_TEXT_UNIT = re.compile(
    rf"(?P<before>{_TEXT}\s{{0,3}}\{{[^{{}}]*?)(?<![A-Za-z])"
    rf"(?![^{{}}]*\b(?:{_NO_UNIT})\b)[A-Za-z]{{2}}[A-Za-z ./]*\}}{_POWER}"
)
_UNIT = (
    r"(?:(?:square|cubic|sq\.?)\s)?(?:units?|[ck]?m|mm|kg|inch|inches|in|foot|feet|ft|"
    r"miles?|(?:centi|kilo)?met(?:er|re)s?|degrees?|radians?|percent|dollars?|cents?|"
    r"seconds?|minutes?|hours?|days?|years?|people|ways|USD)"
)
_INTEGER = re.compile(
    r"(?P<sign>[-+]?)\s*"
    r"(?P<digits>[0-9]{1,3}(?:(?:,\s?| |')[0-9]{3})+|[0-9]+)"
    r"(?:\.0*)?(?:/1|_\{?10\}?)?"
    rf"(?:\s+{_UNIT}{_POWER})?"
)
# More than one value, as in "x=5, y=73". The comma of "1,000 + 234 = 1234" is none.
_SEVERAL = re.compile(
    r"(?:,(?!\s?[0-9]{3})|;|=.*\b(?:and|or)\b).*(?:=|(?<=[A-Za-z]):)", re.DOTALL
)
_BRACKETED = re.compile(r"\([^()]*\)|\{[^{}]*\}")
# Words that lead up to the value: "The answer is 73", "Answer: 73".
_WORDS = re.compile(
    r"(?P<words>[A-Za-z][A-Za-z' ]{0,80}?)\s*(?::|\b(?:is|are|equals))\s+"
)
_COLON = re.compile(r"(?<=[A-Za-z])\s*:")  # not of "3:4"
_HEDGE = re.compile(
    r"\b(?:not|no|approx\w*|about|around|roughly|nearly|almost|least|most|than|over|"
    r"under|between|minus|negative|half|twice|double|either|if|unless)\b",
    re.IGNORECASE,
)
_NAMES = re.compile(r"[A-Za-z](?:\s*(?:[-+*/=(),]|\\cdot|\\times)?\s*[A-Za-z])*")


def integer(text: str) -> int | None:
    r"""The integer that a box holds, or None where it holds anything else.

    Read are any dressing (`peel.plain`), leading zeros, signs (a Unicode minus too),
    commas or spaces between thousands, "73.0", "\frac{73}{1}", brackets around it,
    units behind ("73^\circ", "73\%", "73 cm^2", any words within \text{...} or
    \mathrm{...}), words before ("The answer is 73", "Answer: 73"), a modulus
    ("N \equiv 73 \pmod{1000}"), and the one integer among the sides of an equation
    ("m + n = 73", "73 = m + n"). Not read is whatever is still to be worked out, such
    as "7/2", "2^5", "5!" or "12 pi", and more than one number or assignment
    ("x=5, y=73").
    """
    if len(text) > _LONGEST:
        return None
    # Any unit that is set as text becomes one that `_INTEGER` knows.
    named = _MODULO.sub("", _OVER_ONE.sub(r" \1\2 ", text.replace("{,}", ",")))
    named = _TEXT_UNIT.sub(r"\g<before> units}", _lead_out(named))
    cleaned = plain(named).replace("−", "-").replace("–", "-")
    cleaned = _LEADS_TO.split(cleaned)[-1]
    if _SEVERAL.search(_BRACKETED.sub("", cleaned)):
        return None
    sides = _EQUALS.split(cleaned)
    values = {_number(side) for side in sides} - {None}
    if len(values) > 1:
        # Worked out from left to right: the last side is what it comes to.
        return _number(sides[-1])
    return values.pop() if values else None


def only_names(content: str) -> bool:
    r"""Whether a box names a quantity and no value: \boxed{m+n}."""
    return len(content) <= _LONGEST and bool(_NAMES.fullmatch(plain(content)))


def _lead_out(text: str) -> str:
    r"""Without words that lead up to what follows: \text{The answer is }73."""
    found = re.match(rf"\s*{_TEXT}\s{{0,3}}\{{([^{{}}]*)\}}(?=\s*\S)", text)
    if not found or _HEDGE.search(found[1]):
        return text
    words = found[1].strip().lower()
    leads = words.endswith((":", "=", " is", " are", "equals", "equal to"))
    return text[found.end() :] if leads or words == "is" else text


def _number(side: str) -> int | None:
    """The integer that one side of an equation is."""
    lead = _WORDS.match(side.strip())
    if lead:
        if _HEDGE.search(lead["words"]):
            return None
        side = side.strip()[lead.end() :]
    side = _DEGREES.sub("", _COLON.split(side)[-1]).strip().lstrip(": ")
    side = _ORDINAL.sub("", _unbracketed(side.rstrip(".,;:")))
    side = re.sub(r"^([-+])\s*\(?", r"\1", side)
    found = _INTEGER.fullmatch(side.strip(" {}*_`").rstrip(".,;"))
    if not found:
        return None
    return int(found["sign"] + re.sub("[, ']", "", found["digits"]))


def _unbracketed(text: str) -> str:
    """Without brackets around all of it."""
    text = text.strip()
    for opening, closing in _ENCLOSED.items():
        if text.startswith(opening) and text.endswith(closing):
            inner = text[len(opening) : -len(closing)]
            if not set("()[]{}") & set(inner):
                return inner.strip()
    return text
