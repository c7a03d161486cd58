"""Tests of programs in the forms that published data sets have them in."""

import base64
import json
import os
import pickle
import zlib

import pytest

from jaxmoe.evals.tasks.code import CodeTask
from jaxmoe.evals.tasks.code_rows import Case, read_row

pytestmark = pytest.mark.thorough

TASK = CodeTask(allow=True)
ONE = {"input": "1\n", "output": "2\n", "testtype": "stdin"}
TWO = {"input": "2\n", "output": "3\n", "testtype": "stdin"}
HUMAN_EVAL = {
    "task_id": "HumanEval/0",
    "prompt": 'def sum_of(a: int, b: int) -> int:\n    """The sum."""\n',
    "entry_point": "sum_of",
    "canonical_solution": "    return a + b\n",
    "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n",
}
MBPP = {
    "task_id": 2,
    "text": "Write a function to add.",
    "code": "...",
    "test_list": ["assert sum_of(1, 2) == 3", "assert sum_of(1, -1) == 0"],
    "test_setup_code": "",
}


def packed(value) -> str:
    """As LiveCodeBench packs its private tests."""
    return base64.b64encode(zlib.compress(pickle.dumps(value))).decode()


def graded(row, program):
    """The grade of a program that the row asks for."""
    question = TASK.question(row, id="a", seed=0, template=None)
    return TASK.grade(question, f"```python\n{program}\n```")


@pytest.mark.parametrize(
    "private", [packed(json.dumps([TWO])), json.dumps([TWO]), packed([TWO]), [TWO]]
)
def test_live_code_bench(private):
    """Most of its tests are private ones."""
    row = {
        "question_content": "Add one.",
        "public_test_cases": json.dumps([ONE]),
        "private_test_cases": private,
        "starter_code": "",
        "metadata": "{}",
        "question_id": "abc301_a",
    }
    problem = read_row(row)
    assert problem.tests == (Case("1\n", "2\n"), Case("2\n", "3\n"))
    assert graded(row, "print(int(input()) + 1)").correct
    assert graded(row, "print(2)").details["failed"] == 1


class Evil:
    """Would run a command if it was unpickled."""

    def __reduce__(self):
        return os.mkdir, ("/tmp/unpickled",)


@pytest.mark.parametrize(
    "private",
    [
        packed(Evil()),
        packed(print),
        packed(Case("a", "b")),
        packed({1, 2}) and base64.b64encode(zlib.compress(b"cos\nsystem\n.")).decode(),
        base64.b64encode(zlib.compress(b"\x80\x05broken")).decode(),
        base64.b64encode(b"no zlib").decode(),
        base64.b64encode(zlib.compress(pickle.dumps([ONE]))[:-9]).decode(),
        "not base64!",
        packed("no json"),
        packed(7),
    ],
)
def test_private_tests_can_build_plain_data_alone(private):
    """A data file could run code of its own."""
    row = {"question": "q", "public_test_cases": "[]", "private_test_cases": private}
    with pytest.raises(ValueError, match="private_test_cases"):
        read_row(row)
    assert not os.path.exists("/tmp/unpickled")  # noqa: PTH110


@pytest.mark.parametrize("row", [HUMAN_EVAL, MBPP])
@pytest.mark.parametrize(
    ("program", "status"),
    [
        ("def sum_of(a, b):\n    return a + b", "passed"),
        ("def sum_of(a, b):\n    return a - b", "wrong exit"),
        ("import os\nos._exit(0)", "no result"),
        ("import sys\nsys.exit(0)", "no result"),
        ("def plus(a, b):\n    return a + b", "wrong exit"),
    ],
)
def test_assertions(row, program, status):
    """A program would pass that never ran to the end of its tests."""
    grade = graded(row, program)
    assert grade.details["status"] == status
    assert grade.correct == (status == "passed")


def test_prompts_show_what_is_asked():
    """A model would not know the function's name."""
    for row, shown in (
        (HUMAN_EVAL, '"""The sum."""'),
        (MBPP, "assert sum_of(1, 2) == 3"),
    ):
        prompt = TASK.question(row, id="a", seed=0, template=None).prompt
        assert shown in prompt


def test_lists_in_cells_of_tables():
    """A CSV file of MBPP would be refused, or its first letter be an assertion."""
    cells = {name: str(value) for name, value in MBPP.items()}
    assert read_row(cells).tests == read_row(MBPP).tests


@pytest.mark.parametrize(
    ("row", "found"),
    [
        (HUMAN_EVAL | {"entry_point": "f); import os; ("}, "entry_point"),
        (HUMAN_EVAL | {"entry_point": "class"}, "entry_point"),
        ({"question": "q", "tests": [ONE], "fn_name": "None"}, "fn_name"),
        ({"test_list": [], "text": "t"}, "test_list"),
        ({"test_list": [1], "text": "t"}, "test_list"),
        ({"test_list": ["assert 1"]}, "prompt"),
        ({"entry_point": "f", "test": "", "prompt": "p"}, "test"),
        ({"question": "q"}, "tests"),
        ({"question": "q", "public_test_cases": "{}"}, "public_test_cases"),
    ],
)
def test_rows_that_are_refused(row, found):
    """They would fail, or pass, whatever the program does."""
    with pytest.raises(ValueError, match=found):
        read_row(row)
