"""Mathematics by math-verify: verdicts, normal forms, and what must not hold up."""

import importlib.util
import threading
import time

import pytest

from jaxmoe.evals.tasks import math_verify
from jaxmoe.evals.tasks.math_verify import Math

pytestmark = pytest.mark.extras


@pytest.fixture
def library():
    """The optional library, which only the process of its own imports."""
    pytest.importorskip("math_verify")


_MATRIX = r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}"
_ROW = "Matrix([[1, 2, 3, 4]])"


def _question(answer, task=None):
    row = {"problem": "p", "answer": answer}
    return (task or Math()).question(row, id="a", seed=0, template=None)


def test_a_missing_library_is_named(monkeypatch):
    """The user would be told of a module, and not of what to install."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    math_verify._reader.cache_clear()
    with pytest.raises(ImportError, match=r'pip install "jaxmoe\[math\]"'):
        _question("1")
    math_verify._reader.cache_clear()


@pytest.mark.parametrize("answer", [None, "", " ", True, ["1"]])
def test_answers_that_are_no_mathematics_are_refused(answer):
    """An empty reference would equal nothing, and every answer be wrong."""
    with pytest.raises(ValueError, match="LaTeX or a number"):
        _question(answer)


def test_only_the_last_box_is_seen():
    """The library's search is slow in long texts; other boxes have no say."""
    text = "x" * 5000 + r"\boxed{\bf 7}" + "y" * 5000
    assert math_verify._seen(text, [r"\bf 7"]) == r"$\boxed{7}$"
    assert math_verify._seen(text, ["3", "5"]) == r"$\boxed{3, 5}$"
    assert math_verify._seen(text, []) == "y" * 2000


@pytest.mark.parametrize(
    ("reference", "text", "answer", "correct"),
    [
        (r"\frac12", r"so \boxed{0.5}", "1/2", True),
        ("5", r"\boxed{5\\[2pt]}", "5", True),
        ("5", r"\boxed{\begin{pmatrix}5\end{pmatrix}}", "5", True),
        ("5", r"\boxed{\begin{array}{r}5\\\end{array}}", "5", True),
        (r"\begin{pmatrix}5\end{pmatrix}", r"\boxed{5}", "5", True),
        (
            r"\begin{pmatrix}1\\2\end{pmatrix}",
            r"\boxed{\begin{pmatrix}1\\[4pt]2\end{pmatrix}}",
            "Matrix([[1], [2]])",
            True,
        ),
        (
            r"\begin{bmatrix}1&0\\0&1\end{bmatrix}",
            r"\boxed{\begin{bmatrix}1&0\\[1ex]0&1\end{bmatrix}}",
            "Matrix([[1, 0], [0, 1]])",
            True,
        ),
        (0.5, r"\boxed{\frac{2}{4}}", "1/2", True),
        (r"$\frac{1}{2}$", r"\boxed{50\%}", "1/2", True),
        (73, r"\boxed{5} no, much later. " + "x" * 2000 + r"\boxed{73}", "73", True),
        ("x+1", r"\boxed{1+x}", "x + 1", True),
        ("x+1", r"\boxed{x+2}", "x + 2", False),
        (_MATRIX, rf"\boxed{{{_MATRIX}}}", "Matrix([[1, 2], [3, 4]])", True),
        (_MATRIX, rf"${_MATRIX}$", "Matrix([[1, 2], [3, 4]])", True),
        (_MATRIX, r"\boxed{\begin{pmatrix}1&2&3&4\end{pmatrix}}", _ROW, False),
        (r"\\left(1,\\frac12\\right)", r"\boxed{(1,0.5)}", "(1, 1/2)", True),
        (1234567, r"\boxed{1,\! 234,\! 567}", "1234567", True),
        (
            "z = 1 + 1 = 2",
            r"\boxed{z = 1 + 1 = 2}",
            "Eq(z, 1 + 1) & Eq(1 + 1, 2)",
            True,
        ),
        (r"\{1,2\}", r"\boxed{2} and \boxed{1}", "{1, 2}", True),
        (r"\boxed{1} papers and \boxed{2} bins", r"\boxed{1, 2}", "{1, 2}", True),
        ("2, 3", r"$x=\boxed{2}$ or $x=\boxed{3}$", "{2, 3}", True),
        (r"\frac34", r"\boxed{\boldsymbol{\frac{3}{4}}}", "3/4", True),
        (r"\frac34", r"It is $\mathbf{\frac{3}{4}}$.", "3/4", True),
        ("[-2,7]", r"\boxed{-2\le x\le 7}", "(-2 <= x) & (x <= 7)", True),
        ("[-2,7]", r"\boxed{-2< x< 7}", "(-2 < x) & (x < 7)", False),
        ("4210_5", r"\boxed{4210_6}", "4210", False),
        (r"1.5\text{ million}", r"\boxed{1.5}", "3/2", False),
        ("4210_5", "It is $4210_6$.", "4210", False),
        ("4210_5", "It is $(4210)_5$.", "4210", True),
        ("7", r"\boxed{\text{7 apples}}", "7", True),
        ("7", r"\boxed{7\text{个}}", "7", True),
        ("7", r"\boxed{\text{答案：}7}", "7", True),
        ("1", "", None, False),
        ("1", "no idea", None, False),
        ("1", r"\boxed{", None, False),
    ],
)
def test_grade(library, reference, text, answer, correct):
    """Equal values in other words would be wrong, or would not vote together."""
    grade = Math().grade(_question(reference), text)
    assert (grade.answer, grade.correct) == (answer, correct)
    assert grade.details["boxed"] == ("boxed{" in text and "}" in text)
    assert not grade.details["timed_out"]


@pytest.mark.parametrize(
    ("reference", "box"),
    [
        *(("7", "7 or 8"), ("5", "5 hours 30 minutes"), ("3", "3 out of 8")),
        *(("7", "7 dozen"), ("7", "7 halves"), ("8", "7 或 8"), ("8", "7 или 8")),
    ],
)
def test_the_first_of_several_numbers_is_no_answer(library, reference, box):
    """A wrong answer would be right by the number that it begins with."""
    text = rf"\boxed{{\text{{{box}}}}}"
    assert not Math().grade(_question(reference), text).correct


def test_votes_go_by_the_base(library):
    """4210 in base 5 and in base 6 would vote together, whichever came first."""
    for brackets, none in (("(4210)_5", "4210_6"), ("4210_6", "(4210)_5")):
        for form in (r"\boxed{%s}", "It is $%s$."):
            texts = [form % brackets, form % none, form % brackets]
            assert Math().classes(texts) == [0, 1, 0]


def test_a_reference_that_cannot_be_read_is_refused(library):
    """Every answer would be wrong, and nobody be told."""
    with pytest.raises(ValueError, match="math-verify cannot read"):
        _question("$ $")


def test_threads_grade_too(library):
    """The library's alarms fail outside of the main thread."""
    question = _question("2")
    grades = []
    threads = [
        threading.Thread(
            target=lambda i=i: grades.append(
                (i, Math().grade(question, rf"\boxed{{{i}}}"))
            )
        )
        for i in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {i: grade.answer for i, grade in grades} == {i: str(i) for i in range(4)}
    assert [i for i, grade in grades if grade.correct] == [2]


@pytest.mark.thorough
@pytest.mark.parametrize("power", ["9^{9^{9^9}}", "9^{999999999}"])
def test_vast_numbers_do_not_hold_up(library, power):
    """One answer would take hours and all memory, and the run end with it."""
    task = Math(seconds=1)
    question = _question("2", task)
    start = time.perf_counter()
    grade = task.grade(question, rf"\boxed{{{power}}}")
    assert time.perf_counter() - start < 15
    assert not grade.correct
    assert task.grade(question, r"\boxed{2}").correct  # a new process, if need be
