"""AIME: which box counts, and what rows are refused."""

import pytest

from jaxmoe.evals.tasks.aime import Aime


def _question(answer=73, **row):
    row = {"problem": "How many?", "answer": answer, **row}
    return Aime().question(row, id="a", seed=0, template=None)


@pytest.mark.parametrize(
    ("text", "answer", "is_boxed"),
    [
        (r"so $\boxed{73}$.", "73", True),
        (r"\boxed{073}", "73", True),
        (r"first \boxed{5}, no: \boxed{73}", "73", True),
        (r"\boxed{73} as it was to be in \boxed{}", None, True),
        (r"\boxed{73}, from \boxed{\frac{7}{2}}", None, True),
        (r"\boxed{73} and then \boxed{7", "73", True),
        (r"\boxed{m+n=73}", "73", True),
        (r"\boxed{74}", "74", True),
        (r"\boxed{−73}", "-73", True),
        (r"\boxed{x}", None, True),
        (r"\boxed{73 pi}", None, True),
        (r"\boxed{73}, from \boxed{x=5, y=73}", None, True),
        (r"\boxed{5}, so \boxed{x=5, y=73}", None, True),
        (r"\boxed{73 \text{ apples}}", "73", True),
        ("The answer is 73.", None, False),
        (r"\boxed{73", None, False),
        ("", None, False),
    ],
)
def test_the_last_box_alone_counts(text, answer, is_boxed):
    """A box of an intermediate result would be graded."""
    grade = Aime().grade(_question(), text)
    assert grade.answer == answer
    assert grade.correct == (answer == "73")
    assert grade.details == {"boxed": is_boxed}


def test_zero_is_an_answer():
    """0 is false to Python, and None less than it."""
    assert Aime().grade(_question(0), r"\boxed{000}").correct
    assert not Aime().grade(_question(0), "nothing").correct


@pytest.mark.parametrize("answer", [73, "73", "073", " 73 ", r"73^\circ"])
def test_answers_of_rows(answer):
    """Data sets write 73 in all of these ways."""
    assert _question(answer).answer == 73


@pytest.mark.parametrize("answer", [-1, 1000, "1000", "", "x", 7.5, True, None, [73]])
def test_answers_outside_the_range_are_refused(answer):
    """No answer of a model could ever be right, and the mean would not say why."""
    with pytest.raises(ValueError, match="integer from 0 to 999"):
        _question(answer)


def test_prompt_and_template():
    """The model would not be asked for the box that its answer is looked for in."""
    assert _question().prompt.startswith("How many?\n\n")
    assert r"within \boxed{}." in _question().prompt
    row = {"problem": "How many?", "answer": 1}
    made = Aime().question(row, id="a", seed=0, template=r"{problem} In \boxed{}!")
    assert made.prompt == r"How many? In \boxed{}!"
    assert (made.id, made.group) == ("a", "a")


@pytest.mark.parametrize("problem", [None, "", "  ", 3])
def test_a_problem_without_text_is_refused(problem):
    """The model would be asked for nothing."""
    with pytest.raises(ValueError, match='text in the field "problem"'):
        _question(problem=problem)
