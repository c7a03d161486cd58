"""Programs out of answers, graded against tests."""

import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from jaxmoe.evals.grading import grade_answer
from jaxmoe.evals.sandbox import Limits
from jaxmoe.evals.tasks.code import (
    CodeTask,
    digest_of,
)
from jaxmoe.evals.tasks.outputs import same_json, same_output
from jaxmoe.evals.tasks.programs import program_of
from tests.evals.tasks import wrong_programs

pytestmark = pytest.mark.thorough

TASK = CodeTask(allow=True, limits=Limits(seconds=20))
SUM = [
    {"input": "1 2\n", "output": "3\n", "testtype": "stdin"},
    {"input": "10 20", "output": "30", "testtype": "stdin"},
    {"input": "5 5", "output": "10.0", "testtype": "stdin"},
]
PAIR = [
    {"input": "[3, 1, 2]\n2", "output": "[3, 2]", "testtype": "functional"},
    {"input": "[]\n0", "output": "[]", "testtype": "functional"},
]
CHECKS = ["assert sum_of(1, 2) == 3", "assert sum_of(10, 20) == 30"]
RIGHT_PAIR = (
    "class Solution:\n"
    "    def top(self, nums: List[int], k: int) -> List[int]:\n"
    "        print('looking', nums)\n"
    "        return tuple(heapq.nlargest(k, nums))\n"
)


def asked(tests, task=TASK, **row):
    """A question with these tests."""
    row = {"question": "Do it.", "tests": tests, **row}
    return task.question(row, id="q", seed=0, template=None)


def fenced(program: str) -> str:
    """An answer with a program."""
    return f"Some thoughts.\n\n```python\n{program}\n```\nThat is it."


def graded(program: str, tests=None, task=TASK, **row):
    """The grade of a program."""
    return task.grade(asked(tests or SUM, **row), fenced(program))


# -- grades ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "program",
    [
        "a, b = map(int, input().split())\nprint(a + b)",
        pytest.param(
            "import sys\nprint(sum(map(int, sys.stdin.read().split())))\nexit()",
            marks=pytest.mark.slow,
        ),
        pytest.param(
            "def main():\n    print(sum(map(int, input().split())))\n"
            "if __name__ == '__main__':\n    main()",
            marks=pytest.mark.slow,
        ),
        "from __future__ import annotations\nprint = print\nlist = sum = None\n"
        "int, a = float, input().split()\nprint(f'{int(a[0]) + int(a[1])}  ')",
        "import builtins\nbuiltins.len = builtins.compile = builtins.exec = None\n"
        "print(eval(input().replace(' ', '+')))",
        "def deep(n): return n and 1 + deep(n - 1)\n"
        "a, b = map(int, input().split())\nprint(deep(a * 1000) // 1000 + b)",
        "import threading\nthreading.stack_size(1 << 26)\n"
        "def main(): print(sum(map(int, input().split())))\n"
        "threading.Thread(target=main).start()",
        "@lru_cache(None)\ndef f(a: int, b: Optional[int]):\n"
        "    return pow(a + b, 1, 10**9)\n"
        "print(f(*map(int, input().split())))",
    ],
)
def test_right_programs_pass(program):
    """Ways of writing that are common would be graded wrong."""
    grade = graded(program)
    details = {"status": "passed", "passed": 3, "tests": 3, "failed": None}
    assert (grade.correct, grade.details) == (True, details)
    assert grade.answer == digest_of(program)


@pytest.mark.parametrize(
    "program, status, failed",
    [
        ("print(3)", "wrong answer", 1),
        ("print('passed')", "wrong answer", 0),
        ("print(sum(map(int, input().split())));1 / 0", "wrong exit", 0),
        ("import sys; sys.exit(0)", "wrong answer", 0),
        ("import os; os._exit(0)", "wrong answer", 0),
        ("input(); print(input())", "wrong exit", 0),
        ("def (", "wrong exit", 0),
        ("a = [0] * 10**11", "memory", 0),
        pytest.param("print('x' * 10**8)", "output", 0, marks=pytest.mark.slow),
    ],
)
def test_wrong_programs_fail(program, status, failed):
    """A program could pass without the right output, or none say why it failed."""
    grade = graded(program)
    details = {"status": status, "passed": failed, "tests": 3, "failed": failed}
    assert (grade.correct, grade.details) == (False, details)
    assert grade.answer is not None


def test_text_without_a_program():
    """It would count as a vote, or for the last program that was run."""
    for text in ("The answer is 3.", "Sorry", "3", "", "```\n\n```"):
        grade = TASK.grade(asked(SUM), text)
        assert (grade.answer, grade.correct) == (None, False)
        assert grade.details["status"] == "no program"


@pytest.mark.parametrize(
    "program",
    [
        RIGHT_PAIR,
        "def top(nums, k):\n    return sorted(nums)[::-1][:k]",
        "from typing import List\n" + RIGHT_PAIR + "if __name__ == '__main__': 1 / 0",
        RIGHT_PAIR + "import atexit, threading\natexit.register(lambda: 1 / 0)\n"
        "threading.Thread(target=threading.Event().wait).start()",
        "class Solution:\n    pass\ndef top(nums, k): return nums[:1] + nums[2:]",
    ],
)
def test_right_functions_pass(program):
    """Methods, functions and tuples are all fine, whatever is printed."""
    grade = graded(program, PAIR, fn_name="top")
    assert grade.correct, grade.details


@pytest.mark.parametrize(
    "program, status, failed",
    [
        ("def top(nums, k): return nums", "wrong answer", 0),
        ("def top(nums, k): return [3, 2]", "wrong answer", 1),
        ("def top(nums, k): return {3, 2}", "wrong exit", 0),
        ("def bottom(nums, k): return nums", "wrong exit", 0),
        ("def top(nums, k): raise SystemExit(0)", "no result", 0),
        ("import os; print('[3, 2]'); os._exit(0)", "no result", 0),
        ("import os\nfor i in range(9):\n  try: os.write(i, b'[3, 2]')\n"
         "  except OSError: pass\nos._exit(0)", "no result", 0),
        ("import sys\ndef top(nums, k): return sys.stdin.read()", "wrong answer", 0),
    ],
)  # fmt: skip
def test_wrong_functions_fail(program, status, failed):
    """A program could end before it is called, and print what looks like a result."""
    grade = graded(program, PAIR, fn_name="top")
    details = {"status": status, "passed": failed, "tests": 2, "failed": failed}
    assert (grade.correct, grade.details) == (False, details)


def test_time_is_limited_for_each_test_and_for_all():
    """One answer with a hundred slow tests would take an hour."""
    tests = [{"input": "", "output": ""}] * 50
    each = CodeTask(allow=True, limits=Limits(seconds=0.5))
    grade = graded("while True: pass", tests, each)
    assert (grade.details["status"], grade.details["failed"]) == ("timeout", 0)
    together = CodeTask(allow=True, limits=Limits(seconds=20), seconds=1)
    grade = graded("import time; time.sleep(0.3)", tests, together)
    assert grade.details["status"] == "timeout"
    assert 0 < grade.details["passed"] < 4


@pytest.mark.slow
def test_large_inputs_and_outputs_come_through():
    """Pipes of 64 KiB would block, and LiveCodeBench has inputs of megabytes."""
    numbers = list(range(300_000))
    text = "\n".join(map(str, numbers))
    stdin = [{"input": text, "output": text}]
    assert graded("import sys\nprint(sys.stdin.read())", stdin).correct
    value = json.dumps(numbers)
    functional = [{"input": value, "output": value, "testtype": "functional"}]
    assert graded("def same(x): return x", functional, fn_name="same").correct


def test_threads_grade_side_by_side():
    """Answers would be graded by each other's output."""
    question = asked(SUM)
    right = fenced("print(sum(map(int, input().split())))")
    texts = [right, fenced("print(3)"), "none"] * 4
    with ThreadPoolExecutor(4) as pool:
        grades = list(pool.map(lambda text: TASK.grade(question, text), texts))
    assert [grade.correct for grade in grades] == [True, False, False] * 4
    assert [grade.details["passed"] for grade in grades] == [3, 1, 0] * 4


STRANGE = [
    *("\0", "\ud800", "9" * 9999),
    *(pytest.param(c * 10**5, marks=pytest.mark.slow) for c in "x("),
]


@pytest.mark.parametrize("text", STRANGE)
def test_no_text_raises(text):
    """One strange answer would stop a run."""
    for answer in (text, fenced(text)):
        assert not TASK.grade(asked(SUM), answer).correct
        assert not TASK.grade(asked(PAIR, fn_name="top"), answer).correct


WRONG = {
    **{f"stdin: {n}": (p, {"tests": SUM}) for n, p in wrong_programs.STDIN.items()},
    **{
        f"function: {name}": (p, {"tests": PAIR, "fn_name": "top"})
        for name, p in wrong_programs.FUNCTIONAL.items()
    },
    **{
        f"assertions: {name}": (p, {"test_list": CHECKS, "prompt": "Add."})
        for name, p in wrong_programs.SCRIPT.items()
    },
}  # fmt: skip
IN_EVERY_RUN = (
    *("stdin: echo", "function: nonce", "assertions: equal to everything"),
    *("assertions: no exec", "assertions: expected in the frames"),
)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=() if name in IN_EVERY_RUN else pytest.mark.slow)
        for name in WRONG
    ],
)
def test_no_wrong_program_is_graded_right(name):
    """Scores would count those that know how they are graded."""
    program, row = WRONG[name][0], dict(WRONG[name][1])
    task = CodeTask(allow=True, limits=Limits(seconds=5))
    question = task.question(
        {"question": "Do it.", **row}, id="q", seed=0, template=None
    )
    grade = grade_answer(task, question, fenced(program))
    assert not grade.correct, grade.details
    assert "grading_error" not in grade.details


@pytest.mark.parametrize(
    "test",
    [
        "import math\nassert math.isclose(sum_of(0.1, 0.2), 0.3)",
        "assert [sum_of(*p) for p in ((1, 2), ('a', 'b'))] == [3, 'ab']",
        "assert sum_of([1], [2]) == [1, 2] and sum_of((1,), ()) == (1,)",
        "assert sum_of(Point(1), Point(2)).x == 3",
        "p = Point(1)\np.x = 7\nassert p.x == 7",
        "assert list(pairs({1: {2}})) == [(1, {2})]",
        "try:\n    sum_of(1, 'a')\n    assert False\nexcept TypeError: pass",
        "assert math.floor(sum_of(1.5, 1)) == 2",
        "assert sum_of(10**5000, 1) > 10**5000",
        "for f in (bad, undecoded):\n  try: f()\n  except ValueError: continue\n"
        "  assert False",
        "from fractions import Fraction as F\nfrom decimal import Decimal as D\n"
        "from datetime import date, datetime\nfrom collections import deque\n"
        "assert sum_of(F(1, 3), F(1, 6)) == F(1, 2) and sum_of(D(1), D(2)) == D(3)\n"
        "assert same(date(2026, 1, 2)) == date(2026, 1, 2)\n"
        "assert same(datetime(2026, 1, 2, 3)) == datetime(2026, 1, 2, 3)\n"
        "assert same(deque([1, 2])) == deque([1, 2])",
    ],
)
def test_assertions_call_the_program_elsewhere(test):
    """A right program would fail where values or errors are lost between processes."""
    program = (
        "class Point:\n  def __init__(s, x): s.x = x\n"
        "  def __add__(s, o): return Point(s.x + o.x)\n"
        "def sum_of(a, b): return a + b\ndef pairs(d): return iter(d.items())\n"
        "def same(x): return x\nclass Bad(ValueError): pass\ndef bad(): raise Bad(1)\n"
        "def undecoded(): b'\\xff'.decode()"
    )
    grade = graded(program, test_list=[test], prompt="Add.")
    assert grade.correct, grade.details


# -- questions ---------------------------------------------------------------------


def test_nothing_runs_without_leave():
    """A default would run what a model wrote."""
    task = CodeTask()
    with pytest.raises(ValueError, match="pass --allow-code; it runs programs that"):
        asked(SUM, task)
    with pytest.raises(ValueError, match="pass --allow-code"):
        task.grade(asked(SUM), fenced("print(3)"))


def test_question_from_a_row_of_livecodebench():
    """Its own files would have to be rewritten first."""
    row = {
        "question_content": "Give the k largest.",
        "tests": json.dumps(PAIR),
        "metadata": json.dumps({"func_name": "top"}),
        "starter_code": "class Solution:\n    def top(self, nums, k):\n",
    }
    question = TASK.question(row, id="7", seed=0, template=None)
    assert (question.id, question.group) == ("7", "7")
    assert "Give the k largest." in question.prompt
    assert "    def top(self, nums, k):\n```" in question.prompt
    assert TASK.grade(question, fenced(RIGHT_PAIR)).correct


def test_prompts_say_how_to_answer():
    """A model would print where it should return, or the other way round."""
    assert "standard input" in asked(SUM).prompt
    assert "{" not in asked(SUM).prompt
    function = asked(PAIR, fn_name="top").prompt
    assert "standard input" not in function
    assert "def top(...)" in function
    row = {"question": "Add {a}.", "tests": SUM}
    own = TASK.question(row, id="q", seed=0, template="Q: {question}")
    assert own.prompt == "Q: Add {a}."


@pytest.mark.parametrize(
    "row, found",
    [
        ({"tests": SUM}, '"question"'),
        ({"question": "x"}, '"tests"'),
        ({"question": "x", "tests": []}, "one or more tests"),
        ({"question": "x", "tests": "[{"}, "expected JSON"),
        ({"question": "x", "tests": [{"input": "1"}]}, "test 0"),
        ({"question": "x", "tests": [SUM[0], {"input": 1, "output": "1"}]}, "test 1"),
        ({"question": "x", "tests": SUM + PAIR, "fn_name": "f"}, "testtype"),
        ({"question": "x", "tests": [{**SUM[0], "testtype": "other"}]}, "testtype"),
        ({"question": "x", "tests": [{**SUM[0], "testtype": ["stdin"]}]}, "stdin.*out"),
        ({"question": "x", "tests": [{**SUM[0], "testtype": {}}]}, "testtype"),
        ({"question": "x", "tests": SUM, "starter_code": 5}, "starter_code.*5.*leave"),
        ({"question": "x", "tests": SUM, "starter_code": []}, "starter_code"),
        ({"question": "x", "tests": PAIR}, "fn_name"),
        ({"question": "x", "tests": PAIR, "fn_name": "no name"}, "fn_name"),
        (
            {"question": "x", "tests": [{**PAIR[0], "input": "[1"}], "fn_name": "f"},
            "test 0",
        ),
    ],
)
def test_rows_that_cannot_be_used(row, found):
    """Every program would fail, or pass, and nobody know why."""
    with pytest.raises(ValueError, match=found):
        TASK.question(row, id="q", seed=0, template=None)


# -- parts -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text, program",
    [
        ("```python\nA\n```\n```py\nB\n```", "B\n"),
        ("```\nA\n```", "A\n"),
        ("```python\nA\n```\n```text\n1 2\n```", "A\n"),
        ("```python\nA\n```\nOutput:\n```\n1\n```", "A\n"),
        ("```\n1\n```\n```python\nA\n```\n```\n2\n```", "A\n"),
        ("```text\n1\n```\n```\nA\n```\n```\nB\n```", "B\n"),
        ("```python\n\n```\n```\nA\n```", "A\n"),
        ("```Python3 title\r\nA\r\n```\r\n", "A\n"),
        ("```python\ndraft\n\nNo:\n```python\nA\n```", "A\n"),
        ("```python\nA\n```\n```python\nunfinished", "A\n"),
        ("1. So:\n   ```python\n   if A:\n       B\n   ```", "if A:\n    B\n"),
        ("````python\nx = '```a``` b'\n````", "x = '```a``` b'\n"),
        ("```cpp\nA\n```", None),
        ("`print(1)`", None),
    ],
)
def test_program_of(text, program):
    """A draft, an example or another language would be run."""
    assert program_of(text) == program


def test_equal_programs_vote_together():
    """Blank lines would split the votes, or indentation be ignored."""
    a = digest_of("if a:\n    b\n\n\nc\n")
    assert a == digest_of("\nif a:  \n    b\nc")
    assert a != digest_of("if a:\n    b\n    c\n")
    assert len(a) == 64


@pytest.mark.parametrize(
    "printed, expected, same",
    [
        ("1 2\n3\n", "1 2\n3", True),
        ("\n  1 2  \n\t3\r\n\n", "1 2\n3", True),
        ("1.50 2", "1.5 2.0", True),
        ("1e3", "1000", True),
        ("50000000000000001", "50000000000000000", False),
        ("0.30000000000000004", "0.3", True),
        ("1  2", "1 2", True),
        ("a  b", "a b", False),
        ("YES", "Yes", False),
        ("1\n\n2", "1\n2", False),
        ("1 2", "1\n2", False),
        ("x 1.0", "x 1", True),
        ("sNaN", "1", False),
        ("nan", "1", False),
        ("1e999999999", "1e999999998", False),
        ("1e99999999999999999999", "1", False),
        ("", "", True),
        ("", "0", False),
    ],
)
def test_same_output(printed, expected, same):
    """Scores would not be LiveCodeBench's."""
    assert same_output(printed, expected) is same


@pytest.mark.parametrize(
    "found, expected, same",
    [
        ("[1, [2, null]]", "[1,[2,null]]", True),
        ("[1, 2]", "[2, 1]", False),
        ("[1]", "[1, 1]", False),
        ('{"a": 1.0, "b": 2}', '{"b": 2, "a": 1}', True),
        ('{"a": 1}', '{"b": 1}', False),
        ("0.30000000000000004", "0.3", True),
        ("0.3001", "0.3", False),
        ("50000000000000001", "50000000000000000", False),
        ("[0.1]", '["0.1"]', False),
        ("true", "1", True),
        ('"a"', '"A"', False),
        ("[]", "null", False),
        ("1" * 400, "1.5", False),
        ("9" * 5000, "1", False),
        ("NaN", "1.0", False),
        ("", "0", False),
        ("[" * 10**5, "[]", False),
        ("[" * 900 + "]" * 900, "[" * 900 + "]" * 900, True),
    ],
)
def test_same_json(found, expected, same):
    """A float's last digit would fail an answer, or a large integer's pass it."""
    assert same_json(found, expected) is same
