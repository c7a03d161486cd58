"""Outputs compared as judges compare them."""

import pytest

from jaxmoe.evals.tasks.outputs import same_json, same_output

OUTPUTS = [
    ("0.3333333", "0.3333334", True),
    ("1000000.5", "1000000", False),
    ("2", "2.0", True),
    ("2.0", "2", True),
    ("2.0000001", "2", False),
    ("a 0.1", "a 0.1000000001", True),
    ("a  b", "a b", False),
    ("1 2", "1  2", True),
    ("inf", "inf", True),
    ("nan", "nan", True),
    ("nan", "1.0", False),
    ("1e-7", "0.0", True),
    ("1e-5", "0.0", False),
    ("10000000", "10000001", False),
    ("1e9", "1000000000", True),
    ("YES", "yes", False),
    ("1_000", "1000", False),
    ("٣", "3", False),
    ("1\n2\n", "1\n2", True),
    ("1\n\n2", "1\n2", False),
    ("1E400", "1E400", True),
    ("9" * 5000, "9" * 5000 + ".0", True),
    ("9" * 5000, "9" * 4999 + "8", False),
]


@pytest.mark.parametrize(("printed", "expected", "same"), OUTPUTS)
def test_same_output(printed, expected, same):
    """A right program would fail on the last digit, or a wrong one pass."""
    assert same_output(printed, expected) == same


@pytest.mark.parametrize(
    ("found", "expected", "same"),
    [
        ("0.3333333", "0.3333334", True),
        ("1" + "0" * 5000, "1" + "0" * 5000, True),
        ("1" + "0" * 5000, "2" + "0" * 5000, False),
        ("[1, 2.0000001]", "[1, 2.0]", True),
        ("1000001", "1000000", False),
        ("[" * 100_000, "[]", False),
    ],
)
def test_same_json(found, expected, same):
    """Results of functions would be held to other rules than prints."""
    assert same_json(found, expected) == same
