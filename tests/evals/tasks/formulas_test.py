r"""Formulas in the words of math-verify, with the value that a person would read."""

import time

import pytest

from jaxmoe.evals.tasks.formulas import bases_differ, readable
from jaxmoe.evals.tasks.peel import plain, undressed

READABLE = [
    (r"\frac{3}{4}", r"\frac{3}{4}"),
    (r"\frac{3}{4}.", r"\frac{3}{4}"),
    (r"\boldsymbol{\frac{3}{4}}", r"\frac{3}{4}"),
    (r"\boldsymbol{(3,\frac{\pi}{2})}", r"(3,\frac{\pi}{2})"),
    (r"\left.(1,2)\right.", "(1,2)"),
    (r"**7**", "7"),
    (r"\text{10\%}", r"10\%"),
    (r"2^\text{10}", "2^{10}"),
    (r"\text{7 apples}", r"7\text{ apples}"),
    (r"\text{Evelyn.}", r"\text{Evelyn}"),
    (r"\text{The answer is }\frac{3}{4}", r"\frac{3}{4}"),
    (r"\text{The answer is not }7", r"\text{The answer is not }7"),
    (r"\text{USD }18.90", "18.90"),
    ("90°", r"90^\circ"),
    ("2√13", r"2\sqrt{13}"),
    (r"\varnothing", r"\emptyset"),
    (r"11\,111\,111", "11111111"),
    (r"(1,\,234)", "(1, 234)"),
    ("1 000", "1000"),
    ("1 00", "1 00"),
    (r"6-5\mathrm{i}", "6-5i"),
    (r"6-5\cdot i", "6-5i"),
    (r"\sum_{i=1}^{5} i", r"\sum_{i=1}^{5} i"),
    (r"\pi\mathrm{i}", r"\pi i"),
    ("(4210)_5", "4210_5"),
    (r"0.\overline{6}", r"\frac{2}{3}"),
    (r"0.1\bar{6}", r"\frac{1}{6}"),
    (r"\overline{AB}", r"\overline{AB}"),
    ("1.5e6", r"1.5 \times 10^{6}"),
    ("2e", "2e"),
    (r"1.5\text{ million}", r"1.5\times 10^{6}"),
    ("7=n", "n=7"),
    ("x=y", "x=y"),
    (r"x<2\text{ or }x\ge 3", r"(-\infty, 2) \cup [ 3, \infty)"),
    (r"x=2\text{ or }x=3", r"x=2\text{ or }x=3"),
    (r"\frac{\pi}{4}+2k\pi,\ k\in\mathbb{Z}", r"\frac{\pi}{4}+2k\pi"),
    (r"3\text{ to }4", "3:4"),
    # One value of several would be left.
    (r"\text{7 or 8}", r"\text{7 or 8}"),
    (r"\text{7 oder acht}", r"\text{7 oder acht}"),
    (r"\text{5 hours 30 minutes}", r"\text{5 hours 30 minutes}"),
    (r"\text{3 out of 8}", r"\text{3 out of 8}"),
    (r"\text{7 dozen}", r"\text{7 dozen}"),
    (r"\text{2 hundred}", r"\text{2 hundred}"),
    (r"\text{7 halves}", r"\text{7 halves}"),
    (r"\text{7 miles per hour}", r"7\text{ miles per hour}"),
    (r"\text{1.5 million}", r"1.5\times 10^{6}"),
    # Words that take the value back.
    (r"\text{Approximately: }7", r"\text{Approximately: }7"),
    (r"\text{Not: }7", r"\text{Not: }7"),
    (r"\text{The answer isn't: }7", r"\text{The answer isn't: }7"),
    (r"\text{Twice the answer is }7", r"\text{Twice the answer is }7"),
    (r"\text{Ungefähr: }7", r"\text{Ungefähr: }7"),
    (r"\text{约: }7", r"\text{约: }7"),
    (r"\text{Final answer: }7", "7"),
    (r"\text{答案：}7", "7"),
    # Words of any script are words.
    (r"7\text{个}", r"7\text{个}"),
    (r"\text{7 或 8}", r"\text{7 或 8}"),
    (r"\text{The area under the curve is }7", "7"),
    (r"\text{The distance between A and B is }7", "7"),
    # Braces of exponents, arguments of functions.
    (r"\sum^{10}_{i=1} i", r"\sum^{10}_{i=1} i"),
    (r"C^{10}_{3}", r"C^{10}_{3}"),
    (r"\int^{2}_{1} x", r"\int^{2}_{1} x"),
    ("f(x)_1", "f(x)_1"),
    ("f(10)_2", "f(10)_2"),
    ("x = (101)_2", "x = 101_2"),
    # Dots mark the first and the last digit that repeat.
    (r"0.\dot{1}2\dot{3}", r"\frac{41}{333}"),
    (r"0.2\dot{3}\dot{4}", r"\frac{116}{495}"),
    (r"0.\dot{3}", r"\frac{1}{3}"),
    (r"0.\overline{1}2", r"0.\overline{1}2"),
    ("√2.5", r"\sqrt{2.5}"),
]


@pytest.mark.parametrize(("latex", "text"), READABLE)
def test_readable(latex, text):
    """The library would read another value, or none."""
    assert readable(latex).replace("  ", " ") == text
    assert readable(readable(latex)) == readable(latex)


@pytest.mark.parametrize(
    ("latex", "text"),
    [
        (r"\mathbf{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\text{a \textbf{b {c}}}", "a b c"),
        ("{a}+{b}", "a + b"),
        (r"\{1\}", r"\{1\}"),
    ],
)
def test_fonts_around_braces(latex, text):
    """A fraction in bold would keep its font, and be no number."""
    assert plain(latex) == text


@pytest.mark.parametrize(
    ("right", "box", "differ"),
    [
        ("$4210_{5}$", "4210_5", False),
        ("$4210_{5}$", "4210_{6}", True),
        ("(4210)_5", "4210_6", True),
        ("(4210)_5", "4210_5", False),
        ("$4210_{5}$", "4210", False),
        ("$10_2$", "2_{10}", False),
        ("$7$", "8", False),
    ],
)
def test_bases(right, box, differ):
    """The library passes over the base: 4210 in base 6 would be right."""
    assert bases_differ(right, box) == differ
    assert bases_differ(box, right) == differ


@pytest.mark.thorough
@pytest.mark.parametrize(
    "piece",
    [
        *("\\mathbf{", "{", "}", "\\text{", "1 000 ", "x<2 or ", "(1", "(1)_2", "{1}_"),
        *("0.\\dot{1}", "0.1", "\\dot1", "√(", "\\text{7 ", "1.5e", "-", "<", " "),
    ],
)
def test_takes_linear_time(piece):
    """An answer's last box may hold anything."""
    text = piece * (30_000 // len(piece))
    start = time.process_time()
    undressed(text)
    plain(text)
    readable(text)
    assert time.process_time() - start < 1
