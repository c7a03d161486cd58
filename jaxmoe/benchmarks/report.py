"""Rows of results: as a table to read, and as JSON."""

import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from jaxmoe.benchmarks.timing import Spread
from jaxmoe.reports.text_table import markdown_table, number

AT_LEAST, AT_MOST = "at least", "at most"
HEAD = ("benchmark", "what", "value", "target", "", "detail")


class Target(NamedTuple):
    """comparison: `AT_LEAST` or `AT_MOST`. moonshot: a number beyond it, or None."""

    comparison: str
    number: float
    moonshot: float | None = None

    def is_met(self, value: float) -> bool:
        """Whether a value reaches the number."""
        return self._reaches(value, self.number)

    def is_moonshot(self, value: float) -> bool:
        """Whether a value reaches the number beyond."""
        return self.moonshot is not None and self._reaches(value, self.moonshot)

    def _reaches(self, value: float, number: float) -> bool:
        return value >= number if self.comparison == AT_LEAST else value <= number


@dataclass(frozen=True)
class Row:
    """One result.

    value: None where the benchmark failed. target: None where it has none. detail: what
    stands beside it: text, numbers, or a `Spread` of all rounds.
    """

    benchmark: str
    what: str
    value: float | None
    unit: str
    target: Target | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        """Whether the value reaches its target; None where it has none."""
        if self.target is None or self.value is None:
            return None
        return self.target.is_met(self.value)

    @property
    def rounds(self) -> Spread | None:
        """The first spread beside it: that of its own value, by custom."""
        spreads = (v for v in self.detail.values() if isinstance(v, Spread))
        return next(spreads, None)


def failed(benchmark: str, error: BaseException) -> Row:
    """The row of a benchmark that raised."""
    text = " ".join(str(error).split())
    return Row(benchmark, "failed", None, "", detail={type(error).__name__: text})


def _shown(value: Any) -> str:
    if isinstance(value, Spread):
        ends = f"{number(value.least)}..{number(value.most)}"
        far = "" if value.width is None else f", middle half {value.width:.0%}"
        return f"{number(value.median)} ({ends}{far})"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return str(value) if isinstance(value, int) else number(value)


def _cells(row: Row) -> tuple[str, ...]:
    value = "-" if row.value is None else f"{number(row.value)} {row.unit}".strip()
    detail = ", ".join(f"{name} {_shown(value)}" for name, value in row.detail.items())
    return row.benchmark, row.what, value, _target(row), _met(row), detail


def _target(row: Row) -> str:
    if row.target is None:
        return ""
    comparison, wanted, moonshot = row.target
    shown = f"{comparison} {number(wanted)} {row.unit}".strip()
    return shown if moonshot is None else f"{shown} (moonshot {number(moonshot)})"


def _met(row: Row) -> str:
    if row.target is None or row.value is None:
        return ""
    if row.target.is_moonshot(row.value):
        return "moonshot"
    return "met" if row.met else "missed"


def spreads(rows: Iterable[Row]) -> str:
    """One line: how far the rounds of each benchmark spread.

    Of each row the middle half of its rounds over their median; of a benchmark's rows
    the median and the widest.
    """
    found: dict[str, list[float]] = {}
    for row in rows:
        if row.rounds is not None and row.rounds.width is not None:
            found.setdefault(row.benchmark, []).append(row.rounds.width)
    parts = [
        f"{name} {statistics.median(widths):.0%} (widest {max(widths):.0%})"
        for name, widths in found.items()
    ]
    return f"Middle half of rounds over their median: {', '.join(parts) or 'no rounds'}"


def line(row: Row) -> str:
    """One row alone, without its detail."""
    *cells, _ = _cells(row)
    return "  ".join(filter(None, cells))


def table(rows: Iterable[Row]) -> str:
    """Markdown, with its columns aligned."""
    return markdown_table(HEAD, map(_cells, rows), long_last=True)


def as_json(row: Row) -> dict[str, Any]:
    """The row as JSON takes it: every spread with its median, ends and rounds."""
    target = None if row.target is None else row.target._asdict()
    return {
        "benchmark": row.benchmark,
        "what": row.what,
        "value": row.value,
        "unit": row.unit,
        "target": target,
        "met": row.met,
        "detail": {name: plain(value) for name, value in row.detail.items()},
    }


def plain(value: Any) -> Any:
    """A detail as JSON takes it."""
    if not isinstance(value, Spread):
        return value
    return {
        "median": value.median,
        "min": value.least,
        "max": value.most,
        "quartiles": list(value.quartiles),
        "rounds": list(value.values),
    }
