r"""Formulas as the library math-verify reads them: 90° as 90^\circ, 1.5e6 as a product.

What a person would read as the same value and the library does not is written in its
words; all else stays.
"""

import re
from fractions import Fraction

from jaxmoe.evals.tasks.answer_words import OR_AND
from jaxmoe.evals.tasks.number_words import DOUBT, NO_UNIT
from jaxmoe.evals.tasks.peel import undressed

_MANY = {"thousand": 3, "million": 6, "billion": 9, "trillion": 12}
_MANY_WORDS = "|".join(_MANY)
_REWRITTEN = (
    (re.compile(r"°|\\degree(?![A-Za-z])"), r"^\\circ"),
    (re.compile(r"√\s?([0-9]+(?:\.[0-9]+)?|[a-z]|\([^()]{0,40}\))"), r"\\sqrt{\1}"),
    (re.compile(r"\\varnothing(?![A-Za-z])|\\text\{\s?empty set\s?\}"), r"\\emptyset"),
    # Digits in a base: (4210)_5. Other braces and brackets mean something.
    (
        re.compile(
            r"(?<![\w^}\\)])(?:\(([0-9A-F]{1,40})\)|\{([0-9A-F]{1,40})\})"
            r"_(?=\{?\s?[0-9]{1,2}(?![0-9]))"
        ),
        r"\1\2_",
    ),
    (re.compile(r"\\log_\s?(?:e|\{\s?e\s?\})"), r"\\ln "),
    (re.compile(r"(?<=[0-9])\s?\\text\{\s?to\s?\}\s?(?=[0-9])"), ":"),
    # A value and its unit: "7 apples", neither "7 or 8" nor "3 out of 8".
    (
        re.compile(
            r"^\\text\{\s?([-0-9.,/]{1,40})(?=\s[^{}0-9]{1,80}\})"
            rf"(?![^{{}}]*(?:\b(?!(?:{_MANY_WORDS})s?\b)(?i:{NO_UNIT}|of)\b|{OR_AND}))"
        ),
        r"\1\\text{",
    ),
    (re.compile(r"\.\s?\}$"), "}"),
    # A letter behind a blank may be taken for a unit.
    (re.compile(r"(?<=[-+=/])\s{1,3}(?=[A-Za-z])"), ""),
    # The library knows the imaginary unit right behind a digit only.
    (
        re.compile(
            r"(?<![_^])(?<=[0-9])\s{0,3}(?:\\cdot\s{0,3})?"
            r"(?:\{i\}|i(?![A-Za-z_]))"
        ),
        "i",
    ),
    (
        re.compile(
            r"\s?[,;]\s?(?:\\text\{[a-z ]{1,20}\}\s?)?[a-z]\s?\\in\s?"
            r"\\math(?:bb|bf)\s?\{?\s?[NZ]\s?\}?$"
        ),
        "",
    ),
    (
        re.compile(
            r"^((?:[-+0-9.,/{}() ]|\\(?:[dt]?frac|sqrt|pi)(?![A-Za-z])){1,80})=\s?"
            r"([A-Za-z](?:_\{?\w\}?)?)$"
        ),
        r"\2=\1",
    ),
)
_THOUSANDS = re.compile(r"(?<![0-9.,])[0-9]{1,3}(?: [0-9]{3})+(?![0-9])")
_EXPONENT = re.compile(r"([-−]?[0-9]{1,40}(?:\.[0-9]{1,40})?)[eE]([-+]?[0-9]{1,3})")
_MULTIPLIED = re.compile(
    rf"\s{{0,3}}\\text\{{\s?(?P<many>{_MANY_WORDS})s?\b(?P<end>\s?\}})?"
)
_DOT = r"\\dot\s?(?:\{\s?([0-9])\s?\}|([0-9]))"
_DOTS = re.compile(rf"(?<=[0-9.]){_DOT}([0-9]{{0,7}}){_DOT}")
_REPEATING = re.compile(
    r"(?<![0-9.])([0-9]{0,9})\.([0-9]{0,9})\\(?:overline|bar|dot)\s?"
    r"(?:\{([0-9]{1,9})\}|([0-9]))(?!\s?(?:[0-9]|\\(?:overline|bar|dot)))"
)
_LEAD = re.compile(
    r"\\text\s?\{[^{}0-9]{0,80}(?:[:=]|\b(?:is|are|equals))\s?\}:?(?=\s?\S)"
)
_DOUBT = re.compile(DOUBT, re.IGNORECASE)
_OR = re.compile(r"\\text\{\s?or\s?\}|\\lor(?![A-Za-z])|\bor\b")
_VALUE = r"[-−]?\s?(?:[0-9./]|\\(?:[dt]?frac|sqrt|pi)|[{}]|\s){1,60}"
_LESS = r"<|\\leq?(?:slant)?(?![A-Za-z])|≤"
_RANGE = re.compile(
    rf"(?:(?P<low>{_VALUE})(?P<least>{_LESS}))?\s?[a-z]\s?(?P<most>{_LESS})(?P<high>{_VALUE})"
    rf"|[a-z]\s?(?P<way>>|\\geq?(?:slant)?(?![A-Za-z])|≥)(?P<ray>{_VALUE})"
)
_BASE = re.compile(r"([0-9A-Za-z]{1,60})_\{?\s?([0-9]{1,2})\s?\}?")


def readable(latex: str) -> str:
    r"""A formula without its dressing (`peel.undressed`), in words the library knows.

    >>> readable(r"\text{The answer is }0.\overline{6}.")
    '\\frac{2}{3}'
    """
    text = undressed(latex)
    lead = _LEAD.match(text)
    if lead and not _DOUBT.search(lead[0]):
        text = text[lead.end() :].strip()
    for pattern, by in _REWRITTEN:
        text = pattern.sub(by, text)
    text = _THOUSANDS.sub(lambda found: found[0].replace(" ", ""), text)
    text = _MULTIPLIED.sub(_power, text)
    if power := _EXPONENT.fullmatch(text.strip("{} ")):
        text = rf"{power[1]} \times 10^{{{int(power[2])}}}"
    text = _DOTS.sub(r"\\overline{\1\2\3\4\5}", text)
    return _union(_REPEATING.sub(_fraction, text))


def bases_differ(*formulas: str) -> bool:
    """Whether all are digits in a base that is named, and their values differ.

    The library passes over the base.
    """
    values = {_in_base(readable(formula.strip("$"))) for formula in formulas}
    return None not in values and len(values) > 1


def _in_base(text: str) -> int | None:
    found = _BASE.fullmatch(text.strip("{} "))
    try:
        return int(found[1], int(found[2])) if found else None
    except ValueError:  # no such digit, or no such base
        return None


def _power(found: re.Match[str]) -> str:
    """The power of ten for "million"; words behind it stay text."""
    after = "" if found["end"] else r"\text{"
    return rf"\times 10^{{{_MANY[found['many']]}}}{after}"


def _union(text: str) -> str:
    """Inequalities joined by "or" as a union of intervals; other text as it is."""
    parts = _OR.split(text)
    found = [_RANGE.fullmatch(part.strip()) for part in parts]
    if len(parts) < 2 or not all(found):
        return text
    return r" \cup ".join(_interval(range) for range in found if range)


def _interval(range: re.Match[str]) -> str:
    if range["ray"]:
        begins = "(" if range["way"] == ">" else "["
        return rf"{begins}{range['ray']}, \infty)"
    begins = "(" if range["least"] in (None, "<") else "["
    ends = ")" if range["most"] == "<" else "]"
    low = range["low"] or r"-\infty"
    return f"{begins}{low}, {range['high']}{ends}"


def _fraction(found: re.Match[str]) -> str:
    """A repeating decimal as the fraction that it is."""
    whole, fixed, repeated = found[1] or "0", found[2], found[3] or found[4]
    value = Fraction(int(whole + fixed), 10 ** len(fixed))
    value += Fraction(int(repeated), (10 ** len(repeated) - 1) * 10 ** len(fixed))
    return rf"\frac{{{value.numerator}}}{{{value.denominator}}}"
