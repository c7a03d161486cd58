"""Answers that are one of a few strings."""

import pytest

from jaxmoe.evals.tasks.exact import Exact


def _question(answer, **row):
    row = {"prompt": "Where?", "answer": answer, **row}
    return Exact().question(row, id="a", seed=0, template=None)


@pytest.mark.parametrize(
    ("text", "answer", "correct"),
    [
        ("Well.\nNew York", "new york", True),
        ("  new   YORK. \n\n", "new york", True),
        ("**New York**.", "new york", True),
        ("The Big Apple!", "the big apple", True),
        (r"\boxed{\text{New York}} is it.", "new york", True),
        (r"\boxed{New York} it is, in \boxed{}", "new york", True),
        ("\\boxed{Paris}\nNew York", "paris", False),
        ("It is New York", "it is new york", False),
        ("New York\nI think", "i think", False),
        ("", None, False),
        ("\n \n", None, False),
    ],
)
def test_grade(text, answer, correct):
    """The last line, or a box where there is one, would not be what is compared."""
    grade = Exact().grade(_question(["New York", "the big apple."]), text)
    assert (grade.answer, grade.correct) == (answer, correct)
    assert grade.details == {"boxed": "boxed" in text}


def test_latex_answers_match_in_a_box():
    r"""A box loses its $ and \text{} before it is compared; so must the answer."""
    assert Exact().grade(_question(r"$x\text{ m}$"), r"\boxed{x\text{ m}}").correct


def test_numbers_are_compared_as_text():
    """An integer in JSON would equal no text."""
    assert Exact().grade(_question(42), "42.").correct


@pytest.mark.parametrize(
    "answer", [None, True, 1.5, {}, [], "", " ", ["a", ""], ["a", None], "x" * 1001]
)
def test_answers_that_none_could_equal_are_refused(answer):
    """An empty answer would make silence right; others could never be right."""
    with pytest.raises(ValueError, match="expected (text|answers)"):
        _question(answer)


def test_the_prompt_is_the_rows_own():
    """Words would be added that the user has not written."""
    assert _question("x").prompt == "Where?"
    row = {"question": "Who?", "answer": "x"}
    assert Exact().question(row, id="a", seed=0, template=None).prompt == "Who?"
