"""Reads the attributes of a Hugging Face JSON file, and says all that is wrong.

A parser takes attributes by name; a bad one is noted and a filler returned, so that
one error can name everything. What was not taken is accounted for at the end.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from jaxmoe.files import printable


@dataclass(frozen=True)
class Kind:
    """What a value must be; `filler` stands in for a bad one until all are read."""

    wanted: str
    holds: Callable[[Any], bool]
    filler: Any


def _is_int(x: Any) -> bool:
    return isinstance(x, int) and not isinstance(x, bool) and abs(x) < 2**31


_LARGEST = 3e38
"""Of numbers that are computed with in float32."""


def _is_real(x: Any) -> bool:
    return _is_int(x) or (isinstance(x, float) and abs(x) <= _LARGEST)


def _is_ids(x: Any) -> bool:
    return _is_int(x) or (isinstance(x, list) and all(_is_int(i) for i in x))


POSITIVE = Kind("a positive integer", lambda x: _is_int(x) and x > 0, 1)
LAYER_COUNT = Kind(
    "a number of layers from 1 to 10000", lambda x: _is_int(x) and 0 < x <= 10_000, 1
)
EXPERT_COUNT = Kind(
    "a number of experts from 0 to 65536", lambda x: _is_int(x) and 0 <= x <= 65_536, 0
)
COUNT = Kind("an integer, 0 or more", lambda x: _is_int(x) and x >= 0, 0)
INDICES = Kind(
    "a list of layer numbers",
    lambda x: isinstance(x, list) and all(_is_int(i) and i >= 0 for i in x),
    [],
)
THETA = Kind("a finite number above 1", lambda x: _is_real(x) and x > 1, 2.0)
REAL = Kind("a positive finite number", lambda x: _is_real(x) and x > 0, 1.0)
WEIGHT = Kind("a finite number, 0 or more", lambda x: _is_real(x) and x >= 0, 0.0)
FACTOR = Kind("a finite number, 1 or more", lambda x: _is_real(x) and x >= 1, 1.0)
MASS = Kind("a number in (0, 1]", lambda x: _is_real(x) and 0 < x <= 1, 1.0)
SHARE = Kind("a number in [0, 1]", lambda x: _is_real(x) and 0 <= x <= 1, 0.0)
FLAG = Kind("true or false", lambda x: isinstance(x, bool), False)
OBJECT = Kind("an object", lambda x: isinstance(x, dict), {})
TOKEN = Kind("a token id", _is_int, 0)
TOKENS = Kind("a token id or a list of them", _is_ids, [])
TEXT = Kind("a string", lambda x: isinstance(x, str), "")
NAMES = Kind(
    "a list of strings",
    lambda x: isinstance(x, list) and all(isinstance(i, str) for i in x),
    [],
)
_REFUSE: Any = object()


@dataclass
class Report:
    """What is wrong with a file: collected while reading, raised at once."""

    missing: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    unsupported: list[str] = field(default_factory=list)
    quantised: list[str] = field(default_factory=list)

    def raise_if_any(self, family: str):
        """Raises one ValueError with everything found, if anything was."""
        parts = (
            ("missing, and without a default", self.missing),
            ("of another type or value than expected", self.wrong),
            ("not supported, and perhaps changing the answers", self.unsupported),
        )
        lines = [f"\n  {title}: {'; '.join(items)}" for title, items in parts if items]
        if self.quantised and not lines:
            raise ValueError(printable(self.quantised[0]))
        lines += [f"\n  {sentence}" for sentence in self.quantised]
        if lines:
            raise ValueError(
                f"this config.json cannot be honoured as a {family} model:"
                f"{printable(''.join(lines))}\n"
                "Correct the file, or take the one released with the weights; leave "
                "an unsupported attribute out (--ignore NAME, ignore=[NAME]) only if "
                "the model does not use it."
            )


def quote(value: Any) -> str:
    """A value as JSON, cut where it is long."""
    text = json.dumps(value, default=repr)
    return text if len(text) <= 80 else text[:77] + "..."


class Attributes:
    """The attributes of one JSON object, each taken by name, the rest accounted for."""

    def __init__(
        self,
        values: dict[str, Any],
        report: Report,
        prefix: str = "",
        file: str = "config.json",
    ):
        """Of an object in `file`; `prefix` goes before the names that are reported."""
        self.left = dict(values)
        self.report = report
        self.prefix = prefix
        self.file = file

    def take(
        self, name: str, kind: Kind, default: Any = _REFUSE, null: Any = _REFUSE
    ) -> Any:
        """The value of `name`; `default` where absent, `null` where it is null.

        A kind of real numbers gives a float, whichever way the file writes it.
        """
        if name not in self.left:
            if default is _REFUSE:
                self.report.missing.append(self.prefix + name)
            return kind.filler if default is _REFUSE else default
        value = self.left.pop(name)
        if value is None and null is not _REFUSE:
            return null
        if value is None or not kind.holds(value):
            self.wrong(name, value, kind.wanted)
            return kind.filler
        return float(value) if isinstance(kind.filler, float) else value

    def wrong(self, name: str, value: Any, wanted: str):
        """Notes a value that is not what it must be."""
        self.report.wrong.append(
            f"{self.prefix}{name} = {quote(value)} (expected {wanted})"
        )

    def rest(self, ignored: set[str], neutral: dict[str, Any]) -> list[str]:
        """What nobody took and no table excuses, as `name = value`; null is no ask."""
        return [
            f"{printable(self.prefix + name)} = {quote(value)}"
            for name, value in self.left.items()
            if value is not None
            and name not in ignored
            and not (name in neutral and neutral[name] == value)
        ]
