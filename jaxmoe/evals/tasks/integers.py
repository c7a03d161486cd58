r"""Reading an integer out of what a box holds."""

import re

from jaxmoe.evals.tasks.answer_words import BE, OTHER
from jaxmoe.evals.tasks.number_words import DOUBT, MANY_WITHIN, NO_UNIT, UNIT
from jaxmoe.evals.tasks.peel import plain

_LONGEST = 200

# "=" but not of "<=", "!=" or ":="; arrows and "therefore" lead to what follows.
_EQUALS = re.compile(
    r"(?<![<>!~])=|\\(?:equiv|coloneqq|triangleq)(?![A-Za-z])|≡"
    r"|(?<=[A-Za-z)}\]])\s+(?:is|are|equals)\b(?!\s+(?:not|a)\b)"
)
_IS = re.compile(r"\b(?:is|are|equals)\b")
_IS_THE_ANSWER = re.compile(
    r"(?<=[0-9])\s*(?:\\text\s?\{\s?|\s)is the (?:final |correct |right )?answer"
    r"(?=\W*$)\s?\}?"
)
_LEADS_TO = re.compile(
    r"\\(?:therefore|[rR]ightarrow|[lL]ongrightarrow|implies|to|iff|Leftrightarrow|"
    r"(?:long)?mapsto)"
    r"(?![A-Za-z])|[∴→⇒⟹]|=>"
)
_MODULO = re.compile(
    r"\\pmod\s{0,3}(?:\{[^{}]{1,20}\}|[0-9]{1,9})"
    r"|\\text\s{0,3}\{\s{0,3}\(mod\s{0,3}\}\s{0,3}[0-9]{1,9}(?:\)|\\text\{\)\})"
    r"|\(\s{0,3}\\?(?:text|mathrm|operatorname)?\s{0,3}\{?\s{0,3}\\?b?mod\b[^()]{0,20}\)"
)
_REDUCED = re.compile(
    r"(?P<value>[0-9]{1,9})\s*\\?b?mod\s*\{?\s*(?P<modulus>[0-9]{1,9})\s*\}?"
)
_OVER_ONE = re.compile(
    r"\\[dtc]?frac\s*(?:\{([^{}]*)\}|([0-9]))\s*(?:\{\s*1\s*\}|1)"
    r"|(?<![0-9])([0-9]+)\s*\\over\s*1(?![0-9])"
)
_SPACED = re.compile(r"(\\[dtc]?frac|\})\s{1,3}(?=\{)")
_DEGREES = re.compile(
    r"(?:\^\s*(?:\{\s*\\circ\s*\}|\\circ)|°|\\degree(?![A-Za-z]))(?:\s*[CF]\b)?|[℃℉]|\\?%"
)
_ORDINAL = re.compile(r"(?<=[0-9])\s*\^?\s*\{?\s*\\?(?:st|nd|rd|th)\b\s*\}?$")
_ENCLOSED = {"(": ")", "[": "]", "{": "}", r"\{": r"\}"}
_ENCLOSED |= {'"': '"', "'": "'", "“": "”", "``": "''"}

_POWER = r"(?:\s*(?:\^\s*\{?\s*-?\s*[0-9]\s*\}?|[²³]))?"
_TEXT = r"\\(?:text|textrm|textbf|textit|textsf|textnormal|mathrm|mathbf|mbox|hbox|rm)"
_WORDS_FONT = r"\\(?:text|textrm|textbf|textit|textnormal|mbox)"
_LETTER = r"[^\W\d_]"
_TEXT_UNIT = re.compile(
    rf"(?P<before>{_TEXT}\s{{0,3}}\{{[^{{}}]*?)(?<!{_LETTER})"
    rf"(?![^{{}}]*(?:\b(?i:{NO_UNIT})\b|{MANY_WITHIN}))"
    rf"(?:{_LETTER}{{2}}(?:{_LETTER}|[ ./])*|[^\W\d_A-Za-z]"
    rf"|(?<=\{{)[~ ]?[smghNJVWAL](?:\s?[/·.]\s?[A-Za-z]{{1,3}})?)\}}{_POWER}"
)
_AFTERTHOUGHT = re.compile(
    rf"{_TEXT}\s{{0,3}}\{{\s?,\s(?:as (?:required|desired|needed|wanted|claimed)"
    r"|which is (?:the|our) (?:final )?answer)\s?[.!]?\s?\}\s*$"
)
_RATIO_OF_UNITS = re.compile(
    rf"\\[dtc]?frac\s*\{{\s*({_TEXT}\s{{0,3}}\{{[^{{}}0-9]*\}})\s*\}}"
    rf"\s*\{{\s*{_TEXT}\s{{0,3}}\{{[^{{}}0-9]*\}}{_POWER}\s*\}}"
)
_REMARK = rf"\s\((?:{UNIT}|(?:the |our )?(?:final |correct )?answer)\)"
_TUPLE = r"\([a-z](?:,\s?[a-z]){1,3}\)"
_INTEGER = re.compile(
    r"(?P<sign>[-+]?)\s*"
    r"(?P<digits>[0-9]{1,3}(?:(?:,\s?| |')[0-9]{3})+|[0-9]+)"
    r"(?:\.0*)?(?:/1|_\{?\s*(?:10|ten)\s*\}?)?"
    rf"(?:\s*(?:cm|mm|km|kg)\b{_POWER}|(?:(?:\s+{UNIT}{_POWER}){{1,4}}(?:\s*{_TUPLE})?)?"
    rf"(?:{_REMARK})?)"
)
# More than one value, as in "x=5, y=73". The comma of "1,000 + 234 = 1234" is none.
_SEVERAL = re.compile(
    r"(?:,(?!\s?[0-9]{3})|;|(?:=|\bis\b).*\b(?:and|or)\b).*(?:=|\bis\b|(?<=[A-Za-z]):)",
    re.DOTALL,
)
_CONDITION = re.compile(r"\b(?:[Ii]f|when|where|for|given|unless)\b")
_BRACKETED = re.compile(r"\([^()]*\)|\{[^{}]*\}")
# Words that lead up to the value: "The answer is 73", "Answer: 73".
_WORDS = re.compile(
    r"(?P<words>[A-Za-z][A-Za-z' ]{0,80}?)\s*(?::|\b(?:is|are|equals))\s+"
)
_COLON = re.compile(rf"(?<={_LETTER})\s*(?::|\\colon(?![A-Za-z]))")  # not of "3:4"
_OTHER_ANSWER = (
    r"(?:(?:die|das|la|le|el|il|a|o|de|het|den|the|also|donc|luego|portanto)\s"
    rf"|l['’]|所以|因此|故|最终|正确|最終的な)?{OTHER}"
)
_OTHER_WORDS = re.compile(rf"(?i:{_OTHER_ANSWER})\s?(?:{BE}\s?)?(?=[0-9])")
_HEDGE = re.compile(
    rf"{DOUBT}|\b(?:over|under|between|either|if|unless|when|plus|divided|squared|cubed"
    r"|factorial|(?:square|cube|nth) root|(?:square|cube|log\w*|reciprocal|opposite) of"
    r"|(?<=\w )(?<!of )times|in (?:tens|hundreds|thousands|millions|dozens))\b",
    re.IGNORECASE,
)
"""The same, and words that may belong to a value that is named."""
_LEADS = re.compile(
    r"(?:[:=：]|\b(?:is|are|equals|equal to|was|were|has|have|had|gives?|yields?|gets?"
    r"|got|obtain|exactly|total of)"
    rf"|^(?:{_OTHER_ANSWER})\s?{BE}?"
    r"|^(?:USD|EUR|GBP|thus|so|hence|therefore|then|finally|total|a total of|together"
    r"|ans|(?:the )?(?:final )?answer|[一总]?共有?|合计|答))[\s,.]*$",
    re.IGNORECASE,
)
"""The end of words that lead up to a value and say nothing else about it."""
_NAMES = re.compile(r"[A-Za-z](?:\s*(?:[-+*/=(),]|\\cdot|\\times)?\s*[A-Za-z])*")


def integer(text: str) -> int | None:
    r"""The integer that a box holds, or None where it holds anything else.

    Read are any dressing (`peel.plain`), leading zeros, signs (a Unicode minus too),
    commas or spaces between thousands, "73.0", "\frac{73}{1}", brackets around it,
    units behind ("73^\circ", "73\%", "73 cm^2", "73 ways", within \text{...} or
    \mathrm{...} any words but those that change a number), words before ("The answer
    is 73", "Answer: 73"), a modulus ("N \equiv 73 \pmod{1000}"), and the one integer
    among the sides of an equation ("m + n = 73", "73 = m + n"). Not read is whatever is
    still to be worked out, such as "7/2", "2^5", "5!" or "12 pi", what is not certain
    ("twice the answer is 73"), and more than one number or assignment ("x=5, y=73").
    """
    if len(text) > _LONGEST:
        return None
    # Any unit that is set as text becomes one that `_INTEGER` knows.
    text = _IS_THE_ANSWER.sub("", _AFTERTHOUGHT.sub("", text))
    named = _RATIO_OF_UNITS.sub(r"\1", _MODULO.sub("", text.replace("{,}", ",")))
    named = _TEXT_UNIT.sub(r"\g<before> units}", _lead_out(named))
    cleaned = plain(_SPACED.sub(r"\1", named)).replace("−", "-").replace("–", "-")
    cleaned = _OVER_ONE.sub(r" \1\2\3 ", cleaned)
    led = [part for part in _LEADS_TO.split(cleaned) if part.strip()]
    cleaned = led[-1] if led else ""
    if _CONDITION.search(cleaned) or _SEVERAL.search(_BRACKETED.sub("", cleaned)):
        return None
    if any(map(_HEDGE.search, _IS.split(cleaned)[:-1])):
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
    found = re.match(
        rf"\s*{_WORDS_FONT}\s{{0,3}}\{{([^{{}}0-9]*)\}}(?=\s*[^\s(])", text
    )
    if not found or _HEDGE.search(found[1]) or not _LEADS.search(found[1].strip()):
        return text
    return text[found.end() :]


def _number(side: str) -> int | None:
    """The integer that one side of an equation is."""
    side = side.strip()
    if lead := _WORDS.match(side):
        if _HEDGE.search(lead["words"]):
            return None
        side = side[lead.end() :]
    *before, side = _COLON.split(side)
    if any(map(_HEDGE.search, before)):
        return None
    side = _OTHER_WORDS.sub("", side.lstrip(" :"))
    side = _DEGREES.sub("", side).strip().lstrip(": ")
    reduced = _REDUCED.fullmatch(side)
    if reduced and int(reduced["value"]) < int(reduced["modulus"]):
        side = reduced["value"]
    side = _ORDINAL.sub("", _unbracketed(side.rstrip(".,;:")))
    if side[:1] in "+-":
        side = side[:1] + _unbracketed(side[1:])
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
            bare = _unbracketed(inner)
            if not set("()[]{}") & set(bare):
                return bare
    return text
