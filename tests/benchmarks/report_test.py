import json

import pytest

from jaxmoe.benchmarks.report import (
    AT_LEAST,
    AT_MOST,
    Row,
    Target,
    as_json,
    failed,
    line,
    number,
    spreads,
    table,
)
from jaxmoe.benchmarks.timing import Spread

ROWS = [
    Row("decode", "n = 1", 12.34, "ms", detail={"ms": Spread((12.0, 12.34, 13.0))}),
    Row("decode", "share", 61.0, "%", Target(AT_LEAST, 60.0, 70.0), {"least": 7.5}),
    Row("length", "8192 against 128", 1.2, "x", Target(AT_MOST, 1.1)),
]
TABLE = """\
| benchmark | what             | value   | target                      |        | detail |
| --------- | ---------------- | ------- | --------------------------- | ------ | ------ |
| decode    | n = 1            | 12.3 ms |                             |        | ms 12.3 (12..13, middle half 4%) |
| decode    | share            | 61 %    | at least 60 % (moonshot 70) | met    | least 7.5 |
| length    | 8192 against 128 | 1.2 x   | at most 1.1 x               | missed |        |"""  # noqa: E501


def test_table():
    """Columns would not line up, or a missed target would not be seen."""
    assert table(ROWS) == TABLE


def test_a_line_stands_alone():
    """Progress would say nothing of targets."""
    assert line(ROWS[2]) == "length  8192 against 128  1.2 x  at most 1.1 x  missed"


@pytest.mark.parametrize(
    ("value", "target", "met"),
    [
        (60.0, Target(AT_LEAST, 60.0), True),
        (59.9, Target(AT_LEAST, 60.0), False),
        (1.1, Target(AT_MOST, 1.1), True),
        (1.11, Target(AT_MOST, 1.1), False),
        (1.0, None, None),
        (None, Target(AT_MOST, 1.1), None),
    ],
)
def test_targets_are_met_or_missed(value, target, met):
    """A target would be compared the wrong way round."""
    assert Row("a", "b", value, "x", target).met is met


def test_a_moonshot_is_named():
    """What nobody expected would read as what was asked for."""
    for value, word in ((0.9, "moonshot"), (1.1, "met"), (1.3, "missed")):
        row = Row("a", "b", value, "x", Target(AT_MOST, 1.2, 1.0))
        assert line(row).endswith(f"  {word}")


def test_spreads_are_told_by_benchmark():
    """A table of a machine that was not quiet would look like any other."""
    wide = Row("decode", "n = 8", 2.0, "ms", detail={"ms": Spread((1.0, 2.0, 3.0))})
    text = spreads([*ROWS, wide])
    assert "decode 27% (widest 50%)" in text and "length" not in text


def test_a_failure_is_a_row():
    """What raised would be missing from the table, and nobody would ask."""
    row = failed("slots", ValueError("no\nroom"))
    assert (row.benchmark, row.value, row.met) == ("slots", None, None)
    assert "ValueError no room" in table([row])


def test_json_holds_every_round():
    """Spread could not be judged later, or the file would be no JSON."""
    told = json.loads(json.dumps([as_json(row) for row in ROWS]))
    rounds = {"median": 12.34, "min": 12, "max": 13, "rounds": [12, 12.34, 13]}
    rounds["quartiles"] = [12.17, 12.67]
    assert told[0]["detail"] == {"ms": rounds}
    wanted = {"comparison": "at least", "number": 60, "moonshot": 70}
    assert told[1]["target"] == wanted
    assert [row["met"] for row in told] == [None, True, False]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234567.8, "1,234,568"),
        (123.4, "123"),
        (12.34, "12.3"),
        (-1.234, "-1.23"),
        (0.01234, "0.0123"),
        (15.0, "15"),
        (float("nan"), "nan"),
    ],
)
def test_numbers_are_short(value, text):
    """Digits that mean nothing would fill the table."""
    assert number(value) == text
