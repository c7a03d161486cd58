"""Grading again, and grading what others drew."""

import json
from dataclasses import dataclass

import pytest

from jaxmoe.evals.compare import compare
from jaxmoe.evals.grading import GRADING, grade_answer, grading_of, read_grading
from jaxmoe.evals.questions import read_questions
from jaxmoe.evals.regrade import Regraded, grade_again, grade_file
from jaxmoe.evals.run import read_run
from jaxmoe.evals.sandbox import available_isolation
from jaxmoe.evals.score_files import read_scores_of, score_run
from jaxmoe.evals.tasks import task
from jaxmoe.evals.tasks.aime import Aime
from jaxmoe.evals.tasks.base import Grade
from jaxmoe.evals.tasks.code import CodeTask
from jaxmoe.reports.comparison_text import comparison_text

DATA = {"file": "q.jsonl", "sha256": "0" * 64}


@pytest.fixture
def questions(tmp_path):
    """Two questions, whose answers are 7 and 8."""
    path = tmp_path / "q.jsonl"
    rows = [
        {"id": "a", "problem": "p", "answer": 7},
        {"id": 2, "problem": "q", "answer": 8},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_questions(path, task("aime"))


def drawn(folder, *rows):
    """A file of answers of another engine."""
    path = folder / "answers.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def chat(text):
    """A chat completion."""
    return {"choices": [{"message": says(text)}]}


def says(text):
    """A message of the model."""
    return {"role": "assistant", "content": text}


A, B = r"\boxed{7}", r"\boxed{9}"
PARTS = [{"type": "text", "text": A[:3]}, {"type": "text", "text": A[3:]}]
FORMS = [
    [{"id": "a", "text": A}, {"id": "2", "text": B}],
    [{"problem": "a", "output": A}, {"problem": 2, "output": B}],
    [{"question_id": "a", "completion": A}, {"question_id": 2, "completion": B}],
    [{"id": "a", "texts": [A]}, {"id": 2, "texts": [B]}],
    [{"doc_id": 0, "resps": [[A]]}, {"doc_id": 1, "resps": [[B]]}],
    [{"id": "a", **chat(A)}, {"id": 2, **chat(B)}],
    [
        {"custom_id": "a", "response": {"status_code": 200, "body": chat(A)}},
        {"custom_id": "2", "response": {"status_code": 200, "body": chat(B)}},
    ],
    [
        {"id": "batch_1", "custom_id": "a", "response": {"body": chat(A)}},
        {"id": "batch_2", "custom_id": "2", "response": {"body": chat(B)}},
    ],
    [
        {"custom_id": "a", "id": "c-1", **chat(A)},
        {"custom_id": 2, "id": "c-2", **chat(B)},
    ],
    [{"id": "a", **chat(PARTS)}, {"id": 2, **chat([{"type": "text", "text": B}])}],
    [
        {"id": "a", "messages": [{"role": "user", "content": B}, says(A)]},
        {"id": 2, "messages": [{"role": "user", "content": A}, says(B)]},
    ],
    [{"id": "a", "prediction": A}, {"id": 2, "model_output": B}],
]


def test_a_message_without_content_is_an_answer(questions, tmp_path):
    """One that was cut off while it thought would be missing, or no file be graded."""
    rows = [{"id": "a", **chat(None)}, {"id": 2, **chat(B)}]
    grade_file(drawn(tmp_path, *rows), Aime(), questions, tmp_path / "o", data=DATA)
    assert read_run(tmp_path / "o").answers == [[None], ["9"]]


@pytest.mark.parametrize("rows", FORMS)
def test_answers_of_other_engines(rows, questions, tmp_path):
    """A comparison would need all answers drawn again, here."""
    out = tmp_path / "out"
    grade_file(drawn(tmp_path, *rows), Aime(), questions, out, data=DATA)
    run = read_run(out)
    assert run.ids == ("a", "2")
    assert run.correct.tolist() == [[True], [False]]
    assert run.answers == [["7"], ["9"]]
    assert read_grading(out) == grading_of(Aime())


def test_scores_of_another_engines_answers(questions, tmp_path):
    """Two engines' runs are alike but for their answers, and would swap scores."""
    rows = [{"id": "a", "texts": [A, B]}, {"id": 2, "texts": [A, B]}]
    swapped = [{**row, "texts": [B, A]} for row in rows]
    for name, file in (("x", rows), ("y", swapped), ("z", rows[::-1])):
        path = drawn(tmp_path, *file)
        grade_file(path, Aime(), questions, tmp_path / name, data=DATA)
    x, y, same = (read_run(tmp_path / name) for name in "xyz")
    path = tmp_path / "scores.jsonl"
    scored = score_run(x, _lengths, path, identity={"model": "m"})
    for call in (
        lambda: read_scores_of(y, path),
        lambda: score_run(y, _lengths, path, identity={"model": "m"}),
    ):
        with pytest.raises(ValueError, match="that drew others"):
            call()
    assert (read_scores_of(same, path) == scored).all()


def _lengths(problem, answers):
    return [float(len(answer)) for answer in answers]


@pytest.mark.parametrize(
    ("rows", "found"),
    [
        ([{"id": "a", "text": A}, {"id": "z", "text": A}], "row|line 2.*'z'"),
        ([{"text": A}], "line 1.*custom_id"),
        ([{"id": "a"}], "line 1.*completion"),
        ([{"id": "a", "texts": [A, A]}, {"id": 2, "text": B}], "fewest to '2'"),
        ([], "same number"),
    ],
)
def test_answers_that_are_refused(rows, found, questions, tmp_path):
    """They would be graded against another problem, or left out unsaid."""
    with pytest.raises(ValueError, match=found):
        grade_file(drawn(tmp_path, *rows), Aime(), questions, tmp_path / "o", data=DATA)


@dataclass(frozen=True)
class Generous(Aime):
    """A grader that changed its mind."""

    def grade(self, question, text):
        return Grade("9", text == B)


@pytest.fixture
def graded(questions, tmp_path):
    """A run directory of two answers to each question."""
    rows = [{"id": "a", "texts": [A, B]}, {"id": 2, "texts": [A, B]}]
    grade_file(drawn(tmp_path, *rows), Aime(), questions, tmp_path / "run", data=DATA)
    return tmp_path / "run"


def test_grading_again(graded, questions):
    """A fault of a grader would cost all of a run's drawing."""
    before = read_run(graded)
    assert grade_again(graded, Generous(), questions) == Regraded(4, 2, 1, 1)
    after = read_run(graded)
    assert after.correct.tolist() == [[False, True], [False, True]]
    assert [r.text for row in after.records for r in row] == [
        r.text for row in before.records for r in row
    ]
    assert read_grading(graded)["task"] == repr(Generous())
    assert grade_again(graded, Aime(), questions) == Regraded(4, 1, 2, 1)
    assert read_run(graded).records == before.records
    assert sorted(p.name for p in graded.iterdir()) == [
        GRADING, "manifest.json", "records-0-of-1.jsonl",
    ]  # fmt: skip


def test_grading_again_refuses_other_questions(graded, questions):
    """Answers would be held against another problem's."""
    with pytest.raises(ValueError, match="'2'"):
        grade_again(graded, Aime(), questions[:1])
    with pytest.raises(ValueError, match="exact"):
        grade_again(graded, task("exact"), questions)


def test_thinking_that_the_prompt_opened(graded, questions):
    """An answer cut off in its thoughts would count where the mark is the prompt's."""
    path = graded / "manifest.json"
    manifest = json.loads(path.read_bytes()) | {"opens_reasoning": True}
    path.write_text(json.dumps(manifest))
    assert grade_again(graded, Aime(), questions).lost == 1
    assert read_run(graded).answers == [[None, None], [None, None]]


@dataclass(frozen=True)
class Broken(Aime):
    """Raises whatever it is told to."""

    error: type[Exception] = RuntimeError

    def grade(self, question, text):
        raise self.error("\x00 no")


@pytest.mark.parametrize("error", [RuntimeError, RecursionError, MemoryError, OSError])
def test_one_answer_never_ends_a_run(error, questions):
    """Days of drawing would be lost to one strange answer."""
    grade = grade_answer(Broken(error=error), questions[0], "x")
    assert (grade.answer, grade.correct) == (None, False)
    assert error.__name__ in grade.details["grading_error"]


def test_what_kept_programs_apart_is_recorded(tmp_path):
    """A run whose programs could read the outputs would look like one of others."""
    code = CodeTask(True)
    row = {"question": "Print 1.", "tests": [{"input": "", "output": "1"}]}
    asked = [code.question(row, id="a", seed=0, template=None)]
    rows = [{"id": "a", "text": "```python\nprint(1)\n```"}]
    grade_file(drawn(tmp_path, *rows), code, asked, tmp_path / "run", data=DATA)
    run = read_run(tmp_path / "run")
    assert run.correct.all()
    assert run.manifest["isolation"] == available_isolation()
    grade_again(tmp_path / "run", CodeTask(True, isolation="audit hook"), asked)
    run = read_run(tmp_path / "run")
    assert run.manifest["isolation"] == "audit hook"
    assert "programs ran in: audit hook" in comparison_text(compare([run]))
