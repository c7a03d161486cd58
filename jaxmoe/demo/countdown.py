"""The numbers game as a task, measured as a user's own problems are."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxmoe.demo import problems
from jaxmoe.demo.numbers_game import Problem, error_in, expression, last_try
from jaxmoe.evals.tasks.base import Grade, Question
from jaxmoe.evals.tasks.prompts import fill, shown, text_of

_PROMPT = "{prompt}"
"""The game's own notation, which is all that the demo's model knows."""


@dataclass(frozen=True)
class Countdown:
    """Four numbers and a target; an answer is right if its sums are.

    Problems of the same numbers are alike, so the numbers are a question's group.
    Question.answer is the target.
    """

    name: str = "countdown"
    chat: bool = False

    @property
    def fields(self) -> Mapping[str, str]:
        """See `Task`."""
        return {
            "prompt": 'numbers and target, as "2,5,8,12=27:"',
            "group": "optional: what problems that are alike have in common; the "
            "numbers where it is missing",
            "id": "optional: a name of its own, unique in the file",
        }

    def question(
        self, row: Mapping[str, Any], *, id: str, seed: int, template: str | None
    ) -> Question:
        """See `Task`; a template holds {prompt}.

        The numbers are put in ascending order, as the model has seen them.
        """
        problem = Problem.parse(text_of(row, "prompt").strip())
        numbers = ",".join(map(str, problem.numbers))
        group = row.get("group", numbers)
        if not isinstance(group, str):
            raise ValueError(
                f'expected text in the field "group", found {shown(group)}; write '
                "text, or leave it out"
            )
        prompt = fill(template or _PROMPT, {"prompt": problem.prompt})
        details = {"problem": problem.prompt}
        return Question(id, prompt, problem.target, group, details)

    def grade(self, question: Question, text: str) -> Grade:
        """See `Task`; right where `error_in` finds nothing wrong.

        The answer is the `expression` of steps that follow the rules, whether or not
        they reach the target, so that right answers and wrong ones are merged alike;
        other text of steps stands for itself, and what are no steps is no answer.
        Of several tries the last one counts.
        Details: error, what is wrong in a few words, or None.
        """
        problem = Problem.parse(question.details["problem"])
        error = error_in(problem, text)
        return Grade(_answer(problem, text, error), error is None, {"error": error})


def questions(split: str = "test") -> list[Question]:
    """The bundled problems of "test" or "validation", with ids such as "test-0"."""
    task = Countdown()
    return [
        task.question(
            {"prompt": problem.prompt}, id=f"{split}-{i}", seed=0, template=None
        )
        for i, problem in enumerate(problems(split))
    ]


def _answer(problem: Problem, text: str, error: str | None) -> str | None:
    try:
        sums = expression(text)
    except ValueError:  # no steps
        return None
    # Sums that are not so, as 12+8=21, would share the expression of right ones.
    reached = text.rpartition("=")[2]
    by_the_rules = error in (None, f"{reached} is not {problem.target}")
    return sums if by_the_rules else last_try(text)
