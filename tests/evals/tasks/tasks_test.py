"""The names of tasks, and what every task keeps to."""

import pytest

from jaxmoe.evals.tasks import TASKS, Grade, task

ROWS = {
    "aime": {"problem": "p", "answer": 1},
    "gpqa": {"question": "q", "choices": ["x", "y"], "answer": 0},
    "mcq": {"question": "q", "choices": ["x", "y"], "answer": 0},
    "exact": {"prompt": "p", "answer": "x"},
}
STRANGE = ["", "\0", "\ud800", "\\boxed{", "}" * 50, "\\boxed{\ud800}", "ß" * 3000]


@pytest.mark.parametrize("name", TASKS)
def test_a_task_has_its_own_name(name):
    """--task gpqa would measure another task."""
    assert task(name).name == name
    assert task(name).chat
    assert task(name).fields


@pytest.mark.parametrize("name", ROWS)
@pytest.mark.parametrize("text", STRANGE, ids=repr)
def test_no_text_makes_grading_raise(name, text):
    """A run of hours would end at one strange answer."""
    question = task(name).question(ROWS[name], id="a", seed=0, template=None)
    grade = task(name).grade(question, text)
    assert isinstance(grade, Grade)
    assert not grade.correct


def test_an_unknown_task_is_refused():
    """A typing error would end in a KeyError."""
    with pytest.raises(ValueError, match=r"aime, .*found 'aimee'; countdown is"):
        task("aimee")
