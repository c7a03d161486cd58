r"""Boxes, integers and lines out of text that no one wrote with care."""

import time

import pytest

from jaxmoe.evals.tasks.extract import (
    LONGEST,
    boxed,
    last_line,
    normalised,
)
from jaxmoe.evals.tasks.integers import integer
from jaxmoe.evals.tasks.peel import plain

# -- boxes ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "contents"),
    [
        (r"so \boxed{73}.", ["73"]),
        (r"\boxed{ 1 } and \fbox{2} and \boxed {3}", ["3", "2", "1"]),
        (r"\boxed{\frac{1}{2}}", [r"\frac{1}{2}"]),
        (r"\boxed{\{1, 2\}}", [r"\{1, 2\}"]),
        (r"\boxed{\text{(B)}}", [r"\text{(B)}"]),
        (r"\boxed{a \boxed{b} c}", ["b", r"a \boxed{b} c"]),
        (r"\\boxed{7}", ["7"]),
        (r"\boxed 73$", ["73"]),
        (r"\boxed73, so", ["73,"]),
        (r"\boxed -5", ["-5"]),
        (r"\boxed B", ["B"]),
        (r"put it in \boxed and \boxed{}", [""]),
        (r"\boxedness{7} \boxes{8} boxed{9}", []),
        ("", []),
    ],
)
def test_boxes(text, contents):
    """An answer in a box would be cut at the first brace, or another one taken."""
    assert list(boxed(text)) == contents


@pytest.mark.parametrize(
    ("text", "contents"),
    [
        (r"\boxed{7", []),
        (r"\boxed{\frac{1}{2}", []),
        (r"\boxed{5} so it is \boxed{7", ["5"]),
        (r"the set {1, 2 has \boxed{7}", ["7"]),
        (r"} } \boxed{7}} }", ["7"]),
        (r"\boxed{\text{7} and \boxed{8}", ["8"]),
        ("\\", []),
    ],
)
def test_unbalanced_braces(text, contents):
    r"""An answer cut off within "\boxed{73}" would count as 7, or a stray brace hide
    the boxes around it."""
    assert list(boxed(text)) == contents


def test_a_box_longer_than_an_answer_is_none():
    """Nested boxes would be copied again and again, or a lost brace box a page."""
    assert list(boxed(rf"\boxed{{1}} \boxed{{{'x' * LONGEST}}}"))[1:] == ["1"]
    assert list(boxed(rf"\boxed{{1}} \boxed{{{'x' * (LONGEST + 1)}}}")) == ["1"]


HOSTILE = [
    "\\boxed{",
    "\\boxed{\\boxed{}",
    "{",
    "}",
    "\\",
    "\\\\boxed",
    "\\boxed 1",
    "\\text{",
    "\\boxed{\\text{",
    " ",
    "\n",
    "1,",
]


@pytest.mark.thorough
@pytest.mark.parametrize("piece", HOSTILE, ids=repr)
def test_time_is_linear(piece):
    """One bad answer would hold up a run for hours."""
    text = piece * (300_000 // len(piece))
    nested = "\\boxed{" * 20_000 + "}" * 20_000
    start = time.process_time()
    for content in boxed(text):
        integer(content)
    for content in boxed(nested):
        plain(content)
    last_line(text)
    normalised(text)
    assert time.process_time() - start < 10  # quadratic: minutes


# -- integers ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("73", 73),
        ("073", 73),
        ("000", 0),
        (" 7 3 ", None),
        ("-5", -5),
        ("−5", -5),
        ("- 5", -5),
        ("+5", 5),
        ("1,234", 1234),
        ("1{,}234", 1234),
        (r"1,\!234", 1234),
        (r"1\,234\,567", 1234567),
        ("12,34", None),
        ("73.", 73),
        ("73,", 73),
        ("73.0", 73),
        ("73.5", None),
        ("$73$", 73),
        (r"\$73", 73),
        (r"\(73\)", 73),
        (r"\text{73}", 73),
        (r"\mathbf{\text{073}}", 73),
        (r"73\text{ cm}", 73),
        (r"73 \text{ square units.}", 73),
        (r"73^\circ", 73),
        (r"336^{\circ}", 336),
        ("73°", 73),
        ("**73**", 73),
        ("{73}", 73),
        ("m + n = 73", 73),
        (r"\text{Answer: } 73", 73),
        ("x <= 73", None),
        ("3:4", None),
        (r"\frac{7}{2}", None),
        ("7/2", None),
        ("2^5", None),
        ("5!", None),
        (r"\sqrt{49}", None),
        (r"7\pi", None),
        ("7x", None),
        ("7 x", None),
        ("7 or 8", None),
        ("12 pi", None),
        ("12 x y", None),
        ("7 pi r", None),
        ("10 sqrt", None),
        (r"12 \mathit{xy}", None),
        (r"12 \text{ pi}", None),
        (r"12 \text{ x}", None),
        (r"12 \text{ thousand dollars}", None),
        (r"12 \text{ dollars or more}", None),
        ("73 cm", 73),
        ("73 m", 73),
        ("73 degrees", 73),
        ("73 square units", 73),
        ("73 dollars.", 73),
        ("73 percent", 73),
        (r"73 \text{ m}", 73),
        (r"73\,\mathrm{apples}", 73),
        (r"\text{73 apples}", 73),
        (r"\mathbf{73 \text{ ways}}", 73),
        ("x=5, y=73", None),
        ("x = 5,y = 73", None),
        ("x=5; y=73", None),
        (r"x=5 \text{ and } y=73", None),
        ("x: 5, y: 73", None),
        ("x, y = 73", None),
        ("f(1, 2) = 73", 73),
        ("a_{1,2} = 73", 73),
        ("m + n = 5 + 68 = 73", 73),
        ("1,000 + 234 = 1,234", 1234),
        ("７", 7),
        ("²", None),
        ("", None),
        ("seventy", None),
        ("9" * 100, int("9" * 100)),
        ("9" * 5000, None),
    ],
)
def test_integer(text, value):
    """A right answer in another dress would be wrong, or half an expression right."""
    assert integer(text) == value


# -- words ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("latex", "text"),
    [
        (r"$\text{(B)}$", "(B)"),
        (r"\mathrm{\mathbf{x}}", "x"),
        (r"\left( 1,\;2 \right)", "( 1, 2 )"),
        (r"\text{unclosed", r"\text{unclosed"),
        (r"\frac{1}{2}", r"\frac{1}{2}"),
        (r"a\quad b~c", "a b c"),
    ],
)
def test_plain(latex, text):
    r"""A letter in \text{} would not be read, or a formula lose its braces."""
    assert plain(latex) == text


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a\nb\n\n  \n", "b"),
        ("one", "one"),
        ("a\r\nb\r\n", "b"),
        ("", ""),
        (" \n", ""),
        ("a\n" + "b" * (LONGEST + 1), ""),
    ],
)
def test_last_line(text, line):
    """An answer would be looked for in the blank lines after it."""
    assert last_line(text) == line


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("  New\t York. ", "new york"),
        ("**Paris**.", "paris"),
        ("STRASSE", "strasse"),
        ("Straße", "strasse"),
        ("3.14", "3.14"),
        ("`x_1`", "x_1"),
        ("?", "?"),
        ("", ""),
    ],
)
def test_normalised(text, words):
    """A full stop or a capital would make a right answer wrong."""
    assert normalised(text) == words
