"""Rows of results: as a table to read, and as JSON."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxmoe.benchmarks.timing import Spread
from jaxmoe.reports.text_table import markdown_table, number

AT_LEAST, AT_MOST = "at least", "at most"
HEAD = ("benchmark", "what", "value", "target", "", "detail")


@dataclass(frozen=True)
class Row:
    """One result.

    value: None where the benchmark failed. target: comparison and number, or None.
    detail: what stands beside it: text, numbers, or a `Spread` of all rounds.
    """

    benchmark: str
    what: str
    value: float | None
    unit: str
    target: tuple[str, float] | None = None
    detail: Mapping[str, Any] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        """Whether the value reaches its target; None where it has none."""
        if self.target is None or self.value is None:
            return None
        comparison, number = self.target
        return self.value >= number if comparison == AT_LEAST else self.value <= number


def failed(benchmark: str, error: BaseException) -> Row:
    """The row of a benchmark that raised."""
    text = " ".join(str(error).split())
    return Row(benchmark, "failed", None, "", detail={type(error).__name__: text})


def _shown(value: Any) -> str:
    if isinstance(value, Spread):
        ends = f"{number(value.least)}..{number(value.most)}"
        return f"{number(value.median)} ({ends})"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return str(value) if isinstance(value, int) else number(value)


def _cells(row: Row) -> tuple[str, ...]:
    value = "-" if row.value is None else f"{number(row.value)} {row.unit}".strip()
    target = ""
    if row.target is not None:
        target = f"{row.target[0]} {number(row.target[1])} {row.unit}".strip()
    met = {None: "", True: "met", False: "missed"}[row.met]
    detail = ", ".join(f"{name} {_shown(value)}" for name, value in row.detail.items())
    return row.benchmark, row.what, value, target, met, detail


def line(row: Row) -> str:
    """One row alone, without its detail."""
    *cells, _ = _cells(row)
    return "  ".join(filter(None, cells))


def table(rows: Iterable[Row]) -> str:
    """Markdown, with its columns aligned."""
    return markdown_table(HEAD, map(_cells, rows), long_last=True)


def as_json(row: Row) -> dict[str, Any]:
    """The row as JSON takes it: every spread with its median, ends and rounds."""
    target = None
    if row.target is not None:
        target = {"comparison": row.target[0], "number": row.target[1]}
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
        "rounds": list(value.values),
    }
