"""The version of the graders, tied to what they read in answers of every kind."""

import json
from hashlib import sha256

from jaxmoe.evals.grading import VERSION, grade_answer
from jaxmoe.evals.judge_replies import score_in
from jaxmoe.evals.tasks.aime import Aime
from jaxmoe.evals.tasks.choice import mcq
from jaxmoe.evals.tasks.exact import Exact
from jaxmoe.evals.tasks.peel import plain, undressed
from jaxmoe.evals.tasks.programs import program_of

TEXTS = [
    "",
    "42",
    r"\boxed{42}",
    r"\boxed{42\\[2pt]}",
    r"\boxed{\begin{aligned}x&=42\\[4pt]\end{aligned}}",
    r"\boxed{\begin{array}{r}4\\2\end{array}}",
    r"\boxed{4&2}",
    r"\boxed{x=5, y=73}",
    r"\boxed{m+n=1{,}042}",
    r"\boxed{\textbf{(B)}\ 42\text{ cm}^2}",
    r"\boxed{\begin{pmatrix}5\end{pmatrix}}",
    r"\boxed{1} and \boxed{2}",
    r"\boxed{\frac{1}{2}}",
    "<think>Answer: A</think>Answer: B",
    "<think>\\boxed{42}",
    "Answer: B",
    "Answer:\nB",
    "Answer:\nA. 3\nB. 4\n\nI choose B",
    "Answer:\nA) wrong\nB) right",
    "Answer: <A> or <B>",
    "Answer: A circle",
    "答案：（B）",
    "The answer is (C).",
    "I have no doubt that C is correct.",
    "I do not think that C is correct.",
    "Option A does not hold so option B is correct",
    "Therefore B",
    "two",
    "**Two.**",
    "Score: 8",
    "Score: 8 — 3 mistakes",
    "Score: 8\n- 3 errors were found",
    "Score: 7-8",
    "| Score |\n|---|\n| 8 |",
    "Score: 8/100",
    "```python\nx=1\n```",
    "- > ```python\n  > x=1\n  > ```",
    "```\nx=1\n```\n```python\nx=2\n",
    "print(1)",
]
ROWS = [
    (Aime(), {"problem": "p", "answer": 42}),
    (mcq(), {"question": "q", "choices": ["one", "two", "3", "42"], "answer": 1}),
    (Exact(), {"prompt": "p", "answer": ["two", "42"]}),
]
GRADES = {
    3: "048640560d288cfe",
    4: "f4015bbbc02b2fc1",
}
"""Version of the graders -> SHA-256 of what they read."""


def _read():
    for task, row in ROWS:
        question = task.question(row, id="a", seed=0, template=None)
        for text in TEXTS:
            grade = grade_answer(task, question, text)
            yield task.name, text, grade.answer, grade.correct, grade.details
    for reader in (plain, undressed, program_of, score_in):
        for text in TEXTS:
            yield reader.__name__, text, reader(text)


def test_the_version_tells_graders_apart():
    """Runs that were graded otherwise would be compared without a word."""
    found = sha256(json.dumps(list(_read())).encode()).hexdigest()[:16]
    assert GRADES.get(VERSION) == found, (
        "graders read something otherwise: make VERSION higher, and add its grades"
    )
