"""Answers of different form that vote as one."""

import pytest

from jaxmoe.evals.equal_answers import codes_of
from jaxmoe.evals.records import Record
from jaxmoe.evals.run import Run
from jaxmoe.evals.tasks import task


def run_of(name: str, *texts: str) -> Run:
    """A run of one problem, its answers graded."""
    graded_by = task(name)
    row = {"problem": "p", "prompt": "p", "answer": "5"}
    question = graded_by.question(row, id="a", seed=0, template=None)
    records = []
    for i, text in enumerate(texts):
        grade = graded_by.grade(question, text)
        records.append(
            Record(
                "a", i, (0, 0, i), text, "stop", grade.answer, grade.correct, 1, 0, 0
            )
        )
    manifest = {"task": name, "n": len(texts), "problems": ["a"], "groups": ["a"]}
    return Run("run", manifest, ("a",), (tuple(records),))


@pytest.mark.extras
@pytest.mark.parametrize(
    ("contents", "codes"),
    [
        (["x = 5", "5", "5.0"], [0, 0, 0]),
        ([r"10\%", "10"], [0, 0]),
        (["x^2 + 2x + 1", "(x+1)^2"], [0, 0]),
        (["x(x+1)", "x^2 + x", "x^2"], [0, 0, 1]),
        ([r"\frac{1}{2}", "0.5", r"\dfrac{2}{4}"], [0, 0, 0]),
        (["5", "6", "5"], [0, 1, 0]),
        ([r"\bf 7", "7"], [0, 0]),
        (["1, 2", r"\{1, 2\}", "2"], None),
    ],
)
def test_equal_mathematics_votes_as_one(contents, codes):
    """A majority would be split over the ways to write it."""
    pytest.importorskip("math_verify")
    texts = [rf"<think>\boxed{{3}}</think>\boxed{{{content}}}" for content in contents]
    found = codes_of(run_of("math", *texts))[0].tolist()
    if codes is None:
        assert found[2] not in found[:2]
    else:
        assert found == codes


def test_no_answer_does_not_vote():
    """Answers that were cut off would be one answer together."""
    found = codes_of(run_of("aime", r"\boxed{5}", "<think>", r"\boxed{05}"))
    assert found.tolist() == [[0, -1, 0]]
