"""The numbers game as a task: grades by the exact checker, votes by what is summed."""

import pytest

from jaxmoe.demo import problems
from jaxmoe.demo.countdown import Countdown, questions
from jaxmoe.demo.numbers_game import Problem, expression
from jaxmoe.evals.questions import read_questions
from jaxmoe.evals.tasks import task

ANSWER = "12+8=20,5+2=7,20+7=27"


def _question(prompt="2,5,8,12=27:", template=None, **row):
    row = {"prompt": prompt, **row}
    return Countdown().question(row, id="a", seed=0, template=template)


@pytest.mark.parametrize(
    ("text", "answer", "error"),
    [
        (ANSWER, expression(ANSWER), None),
        ("5+2=7,8+12=20,7+20=27", expression(ANSWER), None),
        ("12+8=20,5-2=3,20+3=23", "((12+8)+(5-2))", "23 is not 27"),
        ("5-2=3,12+8=20,3+20=23", "((12+8)+(5-2))", "23 is not 27"),
        # The sums of the right answer, worked out wrong.
        ("12+8=21,5+2=7,21+7=27", "12+8=21,5+2=7,21+7=27", "12+8=21 is not so"),
        ("12+8=20", "12+8=20", "1 steps instead of 3"),
        # Of several tries the last.
        (f"12+8=20,5-2=3,20+3=23:{ANSWER}", expression(ANSWER), None),
        (f"{ANSWER}:12+8=20,5-2=3,20+3=23", "((12+8)+(5-2))", "23 is not 27"),
        (
            f"{ANSWER}:12+8=21,5+2=7,21+7=27",
            "12+8=21,5+2=7,21+7=27",
            "12+8=21 is not so",
        ),
        (f"{ANSWER}:12+8=20", "12+8=20", "1 steps instead of 3"),
        (f"{ANSWER}:", None, "1 steps instead of 3"),
        (f"2,5,8,12=27:{ANSWER}", None, "'2,5,8,12=27' is no try"),
        (f"12+8=20:{ANSWER}", None, "'12+8=20' is no try"),
        ("12+8=20,5+2=7,20+7=27 ", None, "'20+7=27 ' is no step"),
        ("", None, "1 steps instead of 3"),
        ("\ud800", None, "1 steps instead of 3"),
    ],
)
def test_grade(text, answer, error):
    """Right answers alone would be merged, and votes lean towards them; or wrong sums
    vote for right ones."""
    grade = Countdown().grade(_question(), text)
    assert grade.answer == answer
    assert grade.details == {"error": error}
    assert grade.correct == (error is None)


def test_questions_are_the_bundled_problems():
    """The task would measure other problems than the published figures are of."""
    found = questions("test")
    assert [q.prompt for q in found] == [p.prompt for p in problems("test")]
    assert (found[0].id, found[-1].id) == ("test-0", f"test-{len(found) - 1}")
    assert len({q.group for q in found}) == len({p.numbers for p in problems("test")})
    assert questions("validation")[0].id == "validation-0"


def test_rows_of_a_user(tmp_path):
    """A row in another order would be put to the model as it never saw one."""
    path = tmp_path / "rows.jsonl"
    path.write_text(
        '{"prompt": "12,2,8,5=27:"}\n{"prompt": "1,1,1,1=4:", "group": "g"}'
    )
    first, second = read_questions(path, Countdown())
    assert (first.prompt, first.group, first.id) == (
        "2,5,8,12=27:",
        "2,5,8,12",
        "line-1",
    )
    assert second.group == "g"
    assert Countdown().grade(first, ANSWER).correct
    assert not Countdown().grade(second, ANSWER).correct


def test_a_template_does_not_change_grading():
    """The problem would be looked for in a prompt that words were added to."""
    question = _question(template="Play {prompt}")
    assert question.prompt == "Play 2,5,8,12=27:"
    assert Countdown().grade(question, ANSWER).correct


@pytest.mark.parametrize("prompt", ["", "2,5,8=27:", "2,5,8,17=27:", None])
def test_what_is_no_problem_is_refused(prompt):
    """The model would be asked about numbers that it never saw."""
    with pytest.raises(ValueError, match="expected|a problem has"):
        _question(prompt)


def test_a_group_is_text():
    """A list cannot be a key, and 7 would not equal "7"."""
    with pytest.raises(ValueError, match='the field "group", found 7'):
        _question(group=7)


def test_the_registry_says_where_it_lives():
    """A user of --task countdown would be told that there is none."""
    with pytest.raises(ValueError, match=r"jaxmoe\.demo\.countdown\.Countdown"):
        task("countdown")
    assert Problem.parse(_question().details["problem"]).target == 27
