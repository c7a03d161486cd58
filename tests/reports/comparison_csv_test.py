"""CSV of a comparison: read again, it holds the same; no cell is a formula."""

import csv
import io
import math
from dataclasses import replace

import pytest

from jaxmoe.evals.comparison import Comparison, Curve, Difference, RunSummary
from jaxmoe.evals.metrics import Interval
from jaxmoe.reports.comparison_csv import (
    differences_csv,
    measures_csv,
    problems_csv,
    safe_cell,
)

THIRD = Interval(1 / 3, 0.1 + 0.2, 2 / 3)


def _comparison(name="es", problems=("p,1", 'q"2')):
    run = RunSummary(
        name=name,
        about={},
        n=4,
        measures={"accuracy": THIRD},
        numbers={"mean log-probability": -0.25, "self-certainty": math.nan},
        curves={"pass@k": Curve((1, 4), (THIRD, Interval(0.5, -0.0, 1.0)))},
        right=(1, 3),
    )
    return Comparison("math", problems, len(problems), (run,), (), ())


def _rows(text):
    return list(csv.reader(io.StringIO(text, newline="")))


def test_measures_are_read_as_they_were():
    """Other programs would compute with rounded numbers, or with another run's."""
    head, *rows = _rows(measures_csv(_comparison()))
    assert head == ["run", "kind", "name", "k", "value", "low", "high"]
    assert [row[:4] for row in rows] == [
        ["es", "measure", "accuracy", ""],
        ["es", "curve", "pass@k", "1"],
        ["es", "curve", "pass@k", "4"],
        ["es", "number", "mean log-probability", ""],
        ["es", "number", "self-certainty", ""],
    ]
    for row in rows[:2]:
        assert Interval(*map(float, row[4:])) == THIRD
    assert [float(v) for v in rows[2][4:]] == [0.5, 0.0, 1.0]
    assert rows[3][4:] == ["-0.25", "", ""]
    assert rows[4][4:] == ["nan", "", ""]


def test_differences_are_read_as_they_were():
    """A paper's table would have another sign, or an uncorrected p-value."""
    difference = Difference("base", "es", "pass@4", THIRD, 0.02, False, 0.06)
    found = replace(_comparison(), differences=(difference,))
    head, row = _rows(differences_csv(found))
    assert head[:3] == ["a", "b", "measure"] and head[6:] == ["p", "holm", "test"]
    assert row[:3] == ["base", "es", "pass@4"]
    assert Interval(*map(float, row[3:6])) == THIRD
    assert row[6:] == ["0.02", "0.06", "Monte Carlo"]


def test_problems_are_read_as_they_were():
    """An id with a comma or a line end would move its counts to another column."""
    ids = ("p,1", 'q"2\nline two')
    head, *rows = _rows(problems_csv(_comparison(problems=ids)))
    assert head == ["problem", "run", "right", "n"]
    assert rows == [[ids[0], "es", "1", "4"], [ids[1], "es", "3", "4"]]


@pytest.mark.parametrize(
    "value",
    [
        "=1+1",
        "+1",
        "-1",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "\n=1",
        "\uff1d1",
        "'=1",
        "''",
        "'",
    ],
)
def test_formulas_are_taken_for_text_and_can_be_had_back(value):
    """A spreadsheet would compute what a problem's id or a run's name says."""
    cell = safe_cell(value)
    assert cell == f"'{value}"
    for table in (
        measures_csv(_comparison(value)),
        problems_csv(_comparison(value, (value, "plain"))),
    ):
        cells = {cell for row in _rows(table) for cell in row}
        assert cell in cells
        assert value not in cells


@pytest.mark.parametrize("value", ["plain", "a=b", "", "1", "\\frac{1}{2}", " =1"])
def test_other_texts_are_left_as_they_are(value):
    """Ids would no longer match those of the other files."""
    assert safe_cell(value) == value


def test_lines_end_alike_and_can_be_written():
    """A file would have two kinds of line ends, or not be written at all."""
    text = problems_csv(_comparison("half\ud800surrogate"))
    assert text.encode("utf-8").count(b"\n") == 3
    assert b"\r" not in text.encode()


def test_refuses_counts_of_other_problems():
    """Counts would stand beside the wrong problems."""
    with pytest.raises(ValueError, match="shorter|longer"):
        problems_csv(_comparison(problems=("p",)))
