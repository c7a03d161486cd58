"""Which questions options ask for, where a library makes them."""

import pytest

from jaxmoe.cli import evaluate
from jaxmoe.cli.questions import questions_of
from jaxmoe.evals.tasks import reasoning_gym


class Settings:
    """As a data set of reasoning-gym has them."""

    def __init__(self, seed: int, size: int):
        self.seed, self.size = seed, size


class Counting:
    """A data set that counts on from its seed."""

    def __init__(self, settings: Settings):
        self.settings = settings

    def __getitem__(self, index: int):
        if index >= self.settings.size:
            raise IndexError(index)
        sum = self.settings.seed + index
        return {"question": f"{self.settings.seed} + {index}?", "answer": str(sum)}

    def score_answer(self, answer, entry):
        """Half for what begins alike."""
        return 1.0 if answer == entry["answer"] else 0.5


@pytest.fixture(autouse=True)
def library(monkeypatch):
    """A library of one data set."""
    monkeypatch.setattr(
        reasoning_gym, "_registry", lambda: {"counting": (Counting, Settings)}
    )
    for cache in (reasoning_gym._data_set, reasoning_gym._entry):
        cache.cache_clear()
        monkeypatch.setattr(reasoning_gym, cache.__name__, cache)


def asked(*options: str):
    """The task, the questions, and where they are from."""
    argv = ["ckpt", "--task", "reasoning-gym:counting", *options]
    return questions_of(evaluate.parser().parse_args(argv))


def test_seed_and_size_are_options():
    """Other questions would be asked than the run is named after."""
    task, questions, about = asked("--data-seed", "7", "--problems", "3")
    assert task.name == "reasoning-gym:counting"
    assert [q.prompt.splitlines()[0] for q in questions] == [
        "7 + 0?",
        "7 + 1?",
        "7 + 2?",
    ]
    assert [q.id for q in questions] == ["counting-0", "counting-1", "counting-2"]
    assert about["file"] == "reasoning-gym:counting, seed 7, size 3"
    assert about["sha256"] != asked("--data-seed", "8", "--problems", "3")[2]["sha256"]
    assert len(asked()[1]) == 500


def test_the_checker_of_the_data_set_grades():
    """Answers that are right in part would count as right."""
    task, questions, _ = asked("--problems", "2")
    assert task.grade(questions[1], "<answer>1</answer>").correct
    part = task.grade(questions[1], "<answer>12</answer>")
    assert (part.correct, part.details) == (False, {"score": 0.5})


def test_rows_of_a_file_name_questions(tmp_path):
    """A choice of questions could not be asked."""
    path = tmp_path / "rows.jsonl"
    path.write_text('{"index": 4}\n{"index": 2, "id": "two"}')
    _, questions, _ = asked("--data", str(path), "--problems", "2")
    assert [(q.id, q.answer) for q in questions] == [("line-1", "4"), ("two", "2")]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--problems", "0"), "--problems must be at least 1, found 0"),
        (("--template", "t"), "--template goes with --data"),
        (("--task", "reasoning-gym:"), "found ''; there are counting"),
        (("--task", "reasoning-gym:NAME"), "found 'NAME'; there are counting"),
    ],
)
def test_what_is_refused(options, message):
    """A slip would ask something else, or end in a traceback."""
    with pytest.raises(ValueError) as refused:
        asked(*options)
    assert message in str(refused.value)


def test_other_names_are_no_tasks(capsys):
    """A typing error would be taken for a data set."""
    with pytest.raises(SystemExit):
        evaluate.parser().parse_args(["--task", "reasoning"])
    assert "reasoning-gym:NAME" in capsys.readouterr().err


@pytest.mark.parametrize(
    "options",
    ["--data-seed 1", "--task math --split validation", "--data x --split validation"],
)
def test_what_is_not_read_is_refused(options):
    """Other questions would be asked than an option says."""
    args = evaluate.parser().parse_args(["ckpt", *options.split()])
    with pytest.raises(ValueError, match="found others .*leave it out"):
        questions_of(args)
