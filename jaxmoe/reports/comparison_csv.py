"""A comparison as CSV, for spreadsheets and other programs.

Lines end with a line feed, the text is UTF-8; write it with `newline=""`. Texts are in
quotes, numbers are not, and reading them gives the same float; nan is no number.

A spreadsheet takes a text that begins with = + - or @ for a formula, and would compute
what a problem's id says. Texts that begin so, or with their full-width forms, or with
what a spreadsheet skips (tab, carriage return, line feed), get an apostrophe before
them, as do those that begin with an apostrophe: who reads the file takes one apostrophe
away from a text that begins with one, and has the text as it was. Numbers are left as
they are.
"""

import csv
import io
from collections.abc import Iterable, Iterator

from jaxmoe.evals.comparison import Comparison, RunSummary

Row = tuple[str | int | float, ...]

_STARTS = tuple("'=+-@\t\r\n\N{FULLWIDTH EQUALS SIGN}\N{FULLWIDTH PLUS SIGN}") + tuple(
    "\N{FULLWIDTH HYPHEN-MINUS}\N{FULLWIDTH COMMERCIAL AT}"
)


def measures_csv(comparison: Comparison) -> str:
    """All numbers of the runs, one a line: run, kind, name, k, value, low, high.

    kind: "measure", "curve" (one line for each k) or "number". value: the mean, a
    fraction, of the first two; low, high: its bounds. Cells without a meaning are
    empty.
    """
    head = ("run", "kind", "name", "k", "value", "low", "high")
    return csv_text(head, (row for run in comparison.runs for row in _rows(run)))


def problems_csv(comparison: Comparison) -> str:
    """Right answers, a line for each problem of each run: problem, run, right, n.

    Raises:
      ValueError: a run with other than one count for each problem.
    """
    return csv_text(
        ("problem", "run", "right", "n"),
        (
            (problem, run.name, right, run.n)
            for run in comparison.runs
            for problem, right in zip(comparison.problems, run.right, strict=True)
        ),
    )


def differences_csv(comparison: Comparison) -> str:
    """Run b less run a: a, b, measure, difference, low, high, p, holm, test.

    difference, low, high: fractions. holm: the p-value by Holm's method among all
    lines. test: "exact" or "Monte Carlo".
    """
    return csv_text(
        ("a", "b", "measure", "difference", "low", "high", "p", "holm", "test"),
        (
            (d.a, d.b, d.measure, d.interval.mean, d.interval.low, d.interval.high)
            + (d.p_value, d.adjusted, "exact" if d.exact else "Monte Carlo")
            for d in comparison.differences
        ),
    )


def safe_cell(value: str) -> str:
    """A text that no spreadsheet takes for a formula, and that UTF-8 can carry."""
    value = value.encode("utf-8", "replace").decode()
    return f"'{value}" if value.startswith(_STARTS) else value


def _rows(run: RunSummary) -> Iterator[Row]:
    for name, value in run.measures.items():
        yield run.name, "measure", name, "", value.mean, value.low, value.high
    for name, curve in run.curves.items():
        for k, value in zip(curve.ks, curve.intervals, strict=True):
            yield run.name, "curve", name, k, value.mean, value.low, value.high
    for name, number in run.numbers.items():
        yield run.name, "number", name, "", number, "", ""


def csv_text(head: tuple[str, ...], rows: Iterable[Row]) -> str:
    """Rows under a head; texts are made safe, see above."""
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerow(head)
    for row in rows:
        writer.writerow([safe_cell(v) if isinstance(v, str) else v for v in row])
    return file.getvalue()
