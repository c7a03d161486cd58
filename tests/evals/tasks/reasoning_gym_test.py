"""Data sets of reasoning-gym as tasks: its questions, its checkers, and no `eval`."""

import sys
from contextlib import suppress

import pytest

from jaxmoe.evals.tasks import reasoning_gym, task
from jaxmoe.evals.tasks.reasoning_gym import ReasoningGym, data_sets


def test_a_missing_library_is_named(monkeypatch):
    """The user would be told of a module, and not of what to install."""
    monkeypatch.setitem(sys.modules, "reasoning_gym", None)
    reasoning_gym._data_set.cache_clear()
    with pytest.raises(ImportError, match=r'pip install "jaxmoe\[reasoning-gym\]"'):
        task("reasoning-gym:leg_counting").question(
            {"index": 0}, id="a", seed=0, template=None
        )


@pytest.mark.parametrize("index", [None, -1, 7, True, "0", 1.0])
def test_what_is_no_question_is_refused(index):
    """Another question than the one meant would be asked."""
    few = ReasoningGym("leg_counting", size=7)
    with pytest.raises(ValueError, match="a whole number below 7"):
        few.question({"index": index}, id="a", seed=0, template=None)


def test_what_is_read():
    """An answer would be graded by an example within its reasoning."""
    read = reasoning_gym._answer
    assert read("<answer>1</answer> no, <answer> 2\n3 </answer>.") == "2\n3"
    assert read(r"so \boxed{4}") == "4"
    assert read(r"\boxed{4} <answer>5</answer>") == "5"
    assert read("first\n 6 \n") == "6"
    assert read("<answer>7") == "<answer>7"
    assert read("") == ""


@pytest.fixture
def library():
    """The optional library."""
    return pytest.importorskip("reasoning_gym")


@pytest.mark.extras
@pytest.mark.parametrize("name", ["leg_counting", "rush_hour", "color_cube_rotation"])
def test_questions_are_the_librarys(library, name):
    """Figures could not be compared with those that others publish."""
    made = ReasoningGym(name, seed=3, size=5)
    entries = library.create_dataset(name, seed=3, size=5)
    questions = made.questions()
    assert [q.id for q in questions] == [f"{name}-{i}" for i in range(5)]
    assert len({question.group for question in questions}) == 5
    for question, entry in zip(questions, entries, strict=True):
        assert question.prompt.startswith(entry["question"])
        assert question.answer == entry["answer"]
    other = ReasoningGym(name, seed=4, size=5).questions()
    assert [q.prompt for q in other] != [q.prompt for q in questions]


@pytest.mark.extras
def test_the_librarys_checker_grades(library):
    """Answers that are right in another form would be wrong, or wrong ones right."""
    made = ReasoningGym("leg_counting", size=3)
    question = made.questions()[1]
    right = made.grade(question, f"4 + 2\n<answer>{question.answer}</answer>")
    assert (right.answer, right.correct) == (question.answer, True)
    assert right.details == {"score": 1.0}
    assert made.grade(question, f"<think>1</think>{question.answer}").correct
    wrong = made.grade(question, f"<answer>{question.answer}0</answer>")
    assert not wrong.correct and wrong.details["score"] < 1
    assert made.grade(question, "").answer is None


@pytest.mark.extras
def test_answers_are_not_run(library, tmp_path):
    """An answer would do whatever the user can."""
    can, cannot = data_sets(), {"countdown", "n_queens", "puzzle24", "codeio"}
    assert len(can) > 80 and not cannot & set(can)
    for name in cannot:
        with pytest.raises(ValueError, match=f"reasoning-gym:{name}: .* run no text"):
            ReasoningGym(name, size=1).questions()
    with pytest.raises(ValueError, match="found 'NAME'; there are .*leg_counting"):
        ReasoningGym().questions()


@pytest.mark.extras
@pytest.mark.slow
def test_no_checker_runs_an_answer(library, tmp_path):
    """A checker that evaluates would not be known from its file's text."""
    touched, refused = tmp_path / "touched", []
    harm = f"__import__('pathlib').Path({str(touched)!r}).touch()"
    for name in data_sets():
        made = ReasoningGym(name, size=2)
        question = made.questions()[0]
        right = f"<answer>{question.answer}</answer>"
        if question.answer is not None and not made.grade(question, right).correct:
            refused.append(name)
        for text in (harm, f"[{harm}]", f"[[{harm}]]", f"x + {harm}"):
            with suppress(Exception):  # `grade_answer` takes it for wrong
                made.grade(question, f"<answer>{text}</answer>")
    assert not touched.exists()
    assert refused == []  # the library's own answers
