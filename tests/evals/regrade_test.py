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
        {"id": "a", "problem": "What is p?", "answer": 7},
        {"id": 2, "problem": "What is q?", "answer": 8},
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
THOUGHT = {
    "type": "reasoning",
    "content": [{"type": "reasoning_text", "text": "Or \\boxed{8}?"}],
    "summary": [{"type": "summary_text", "text": "\\boxed{8}"}],
}
ITEM = {"type": "message", **says([{"type": "output_text", "text": B}])}
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
    # The right solution goes along, as the problem's own columns do.
    [
        {"id": "a", "solution": B, "messages": [says(A)]},
        {"id": 2, "solution": A, "answers": [A], "response": B},
    ],
    [
        {"id": "a", "problem": " What is p?\n", "solution": B, "output": A},
        {"id": 2, "problem": "What is q?", "answers": [B]},
    ],
    [{"id": "a", "messages": [says(A)], "content": B}, {"id": 2, "content": B}],
    [
        {"id": "a", "choices": [B, A], "output": A},
        {"id": 2, "choices": {"text": [A, B], "label": ["A", "B"]}, "text": B},
    ],
    [
        {"id": "a", "choices": [{"text": B, "label": "A"}], "output": A},
        {"id": 2, "choices": [{"text": B, "index": 0}]},
    ],
    # Reasoning apart from the answer, of several endpoints.
    [{"id": "a", "output": [THOUGHT, says(A)]}, {"id": 2, "output": [THOUGHT, ITEM]}],
    [
        {"id": "a", **chat([{"type": "thinking", "thinking": B}, *PARTS])},
        {"id": 2, **chat([{"type": "reasoning", "text": A}, {"text": B}])},
    ],
    [
        {"id": "a", "output": [*PARTS, {"type": "tool_use", "name": "t"}]},
        {"id": 2, "outputs": [{"text": B}]},
    ],
]


def test_a_message_without_content_is_an_answer(questions, tmp_path):
    """One that was cut off while it thought would be missing, or no file be graded."""
    for i, none in enumerate((None, "", [], [THOUGHT])):
        rows = [{"id": "a", **chat(none)}, {"id": 2, **chat(B)}]
        out = tmp_path / str(i)
        grade_file(drawn(tmp_path, *rows), Aime(), questions, out, data=DATA)
        assert read_run(out).answers == [[None], ["9"]]


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
        ([{"id": "a", "solution": A}], "line 1.*completion"),
        ([{"id": "a", "choices": [A]}], "line 1.*completion"),
        ([{"id": "a", "solution": A, "output": None}], "line 1.*completion"),
        ([{"id": "a", "solution": A, "model_answer": A}], "line 1.*completion"),
        ([{"custom_id": "q99", "id": "a", "text": A}], "line 1.*custom_id.*'q99'"),
        ([{"id": "q99", "question_id": "a", "text": A}], "line 1.*\"id\".*'q99'"),
        ([{"problem": "q99", "id": "a", "text": A}], "line 1.*problem.*'q99'"),
        ([{"problem": "p", "id": "a", "text": A}], "line 1.*problem.*'p'"),
        ([{"problem": "What is q?", "id": "a", "text": A}], "line 1.*'What is q.'"),
        ([{"problem": " ", "id": "a", "text": A}], "line 1.*problem.*' '"),
        ([{"id": 7, "doc_id": 0, "text": A}], 'line 1.*"id".*7'),
        ([{"id": "a", "texts": [A, A]}, {"id": 2, "text": B}], "fewest to '2'"),
        ([], "same number"),
    ],
)
def test_answers_that_are_refused(rows, found, questions, tmp_path):
    """They would be graded against another problem, or left out unsaid."""
    with pytest.raises(ValueError, match=found):
        grade_file(drawn(tmp_path, *rows), Aime(), questions, tmp_path / "o", data=DATA)


def test_scores_of_another_engines_answers_name_them(questions, tmp_path):
    """Scores of one engine's answers would rank those of another."""
    runs = {}
    for name, first in (("one", A), ("other", B), ("again", A)):
        rows = [{"id": 2, "text": B}, {"id": "a", "text": first}]
        file = drawn(tmp_path, *(rows if name == "one" else reversed(rows)))
        grade_file(file, Aime(), questions, tmp_path / name, data=DATA)
        runs[name] = read_run(tmp_path / name)
    path, identity = tmp_path / "scores.jsonl", {"model": "m"}
    score_run(runs["one"], lambda p, texts: [1.0], path, identity=identity)
    assert read_scores_of(runs["again"], path).tolist() == [[1.0], [1.0]]
    with pytest.raises(ValueError, match="other in .* a run named 'one'"):
        read_scores_of(runs["other"], path)


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
