"""Comparing what programs print and return with what they should."""

import json
import math
from decimal import Decimal
from typing import Any

TOLERANCE = 1e-6
"""Relative or absolute, whichever is larger: what judges commonly allow floats."""

_NUMBER_LETTERS = frozenset("0123456789+-.eEinfatyINFATY")
_LONG_DIGITS = 4000
"""Python refuses to read integers of more than 4300 digits."""


def same_output(printed: str, expected: str) -> bool:
    """Whether two outputs agree line by line.

    Blanks around the whole and around each line do not count. Lines agree if they are
    equal as text, or if they hold numbers and agree word by word: words are equal as
    text, or as decimal numbers of any length; where the expected one is written as a
    float ("0.5", "1e-3"), `TOLERANCE` is close enough. Integers are compared exactly.
    LiveCodeBench compares all numbers exactly.
    """
    found, wanted = (
        [line.strip() for line in text.strip().split("\n")]
        for text in (printed, expected)
    )
    if len(found) != len(wanted):
        return False
    return all(a == b or _same_words(a, b) for a, b in zip(found, wanted, strict=True))


def same_json(found: str, expected: str) -> bool:
    """Whether two JSON texts have equal values; False where one is no JSON.

    Where one number is a float, `TOLERANCE` is close enough; LiveCodeBench compares
    exactly. As in Python, true equals 1.
    """
    try:
        pairs = [(read_json(found), read_json(expected))]
    except (ValueError, RecursionError):
        return False
    while pairs:
        a, b = pairs.pop()
        if isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
            pairs.extend(zip(a, b, strict=True))
        elif isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
            pairs.extend((a[name], b[name]) for name in a)
        elif isinstance(a, list | dict) or not (a == b or _close(a, b)):
            return False
    return True


def read_json(text: str) -> Any:
    """The value of JSON text, integers of any length included."""
    return json.loads(text, parse_int=_whole)


def _whole(digits: str) -> int | Decimal:
    return int(digits) if len(digits) <= _LONG_DIGITS else Decimal(digits)


def _close(a: Any, b: Any) -> bool:
    numbers = isinstance(a, int | float) and isinstance(b, int | float)
    if not numbers or not (isinstance(a, float) or isinstance(b, float)):
        return False
    try:
        return math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
    except OverflowError:
        return False  # an integer beyond all floats


def _same_words(a: str, b: str) -> bool:
    found, wanted = a.split(), b.split()
    if len(found) != len(wanted) or not any(
        _decimal(word) is not None for word in wanted
    ):
        return False
    return all(
        x == y or _same_numbers(x, y) for x, y in zip(found, wanted, strict=True)
    )


def _same_numbers(found: str, expected: str) -> bool:
    a, b = _decimal(found), _decimal(expected)
    if a is None or b is None:
        return False
    if a == b:
        return True
    if not (a.is_finite() and b.is_finite() and set(".eE") & set(expected)):
        return False
    try:
        return abs(a - b) <= Decimal(TOLERANCE) * max(abs(b), Decimal(1))
    except ArithmeticError:  # exponents beyond all bounds
        return False


def _decimal(word: str) -> Decimal | None:
    if not _NUMBER_LETTERS.issuperset(word):  # Decimal reads "1_000" and "٣" too
        return None
    try:
        number = Decimal(word)
    except ArithmeticError:
        return None
    return None if number.is_nan() else number
