"""Numbers and tables as text."""

import math

import pytest

from jaxmoe.reports.text_table import markdown_table, number


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234567.8, "1,234,568"),
        (12.34, "12.3"),
        (1.234, "1.23"),
        (0.01234, "0.0123"),
        (15.0, "15"),
        (math.nan, "nan"),
    ],
)
def test_numbers_have_three_digits(value, text):
    """A table would be read with digits that mean nothing, or too few."""
    assert number(value) == text


def test_columns_are_aligned():
    """A table could not be read in a terminal, or be no Markdown."""
    rows = [("a", "long cell"), ("bcd", "x")]
    assert markdown_table(("one", "b"), rows).splitlines() == [
        "| one | b         |",
        "| --- | --------- |",
        "| a   | long cell |",
        "| bcd | x         |",
    ]
    last = markdown_table(("one", "b"), rows, long_last=True).splitlines()
    assert last[:2] == ["| one | b |", "| --- | - |"]
    assert last[2:] == ["| a   | long cell |", "| bcd | x |"]
