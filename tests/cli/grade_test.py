"""`jaxmoe grade`: a run graded again, and answers that were drawn elsewhere."""

import json

import pytest

from jaxmoe.cli.grade import main
from jaxmoe.evals.run import read_run

QUESTIONS = [
    {"id": "a", "prompt": "2 + 2 = ", "answer": "4"},
    {"id": "b", "prompt": "2 + 3 = ", "answer": "5"},
]


@pytest.fixture
def files(tmp_path):
    """Questions, and two answers to each as another engine might have kept them."""
    data, answers = tmp_path / "questions.jsonl", tmp_path / "answers.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    rows = [{"id": i, "text": t} for i, t in (("a", "4"), ("b", "4"), ("a", "3"))]
    rows.append({"id": "b", "text": "5"})
    answers.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return data, answers


def test_answers_drawn_elsewhere_then_graded_again(files, tmp_path, capsys):
    """Answers of another engine could not be compared, nor a grader be mended."""
    data, answers = files
    run, task = tmp_path / "run", ["--task", "exact", "--data", str(data)]
    assert main([str(answers), "--out", str(run), *task]) == 0
    assert "accuracy" in capsys.readouterr().out
    assert read_run(run).correct.tolist() == [[True, False], [False, True]]
    data.write_text(data.read_text().replace('"5"', '"4"'))
    assert main([str(run), *task]) == 0
    out = capsys.readouterr().out
    assert "4 answers graded again: 1 are right now, 1 are not any more" in out
    assert read_run(run).correct.tolist() == [[True, False], [True, False]]


@pytest.mark.filterwarnings("default")
def test_bad_rows_are_listed_or_left_out(files, tmp_path, capsys):
    """One bad row of a published file would be no file at all."""
    data, answers = files
    data.write_text(data.read_text() + '{"id": "c", "prompt": "no answer"}\n')
    call = [str(answers), "--out", str(tmp_path / "run"), "--task", "exact"]
    call += ["--data", str(data)]
    with pytest.raises(SystemExit, match="2"):
        main(call)
    assert "line 3" in capsys.readouterr().err
    assert main([*call, "--skip-bad-rows"]) == 0
    assert "1 " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("what", "more", "found"),
    [
        ("file", [], "needs --out DIR"),
        ("missing", ["--out", "x"], "found no"),
        ("folder", ["--out", "x"], "in place"),
    ],
)
def test_what_does_not_fit_is_one_line(files, tmp_path, capsys, what, more, found):
    """Nothing is to be written then."""
    data, answers = files
    place = {"file": answers, "missing": tmp_path / "no", "folder": tmp_path}[what]
    with pytest.raises(SystemExit, match="2"):
        main([str(place), *more, "--task", "exact", "--data", str(data)])
    error = capsys.readouterr().err
    assert found in error
    assert error.count("\n") == 1
