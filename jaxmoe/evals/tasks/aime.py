"""AIME: problems whose answer is an integer from 0 to 999."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxmoe.evals.tasks.base import Grade, Question
from jaxmoe.evals.tasks.extract import boxed, integer
from jaxmoe.evals.tasks.prompts import AIME, fill, shown, text_of, value_of

_LARGEST = 999


@dataclass(frozen=True)
class Aime:
    r"""The last \boxed{...} that holds an integer is the answer.

    An answer outside of a box is none: the prompt asks for the box. Details of a
    grade: boxed, whether there is a box at all, with an integer or without.
    """

    name: str = "aime"
    chat: bool = True

    @property
    def fields(self) -> Mapping[str, str]:
        """See `Task`."""
        return {
            "problem": "the problem's text",
            "answer": f'an integer from 0 to {_LARGEST}, a number or text ("073")',
            "id": "optional: a name of its own, unique in the file",
        }

    def question(
        self, row: Mapping[str, Any], *, id: str, seed: int, template: str | None
    ) -> Question:
        """See `Task`; a template holds {problem}."""
        prompt = fill(template or AIME, {"problem": text_of(row, "problem")})
        return Question(id, prompt, _answer(value_of(row, "answer")), group=id)

    def grade(self, question: Question, text: str) -> Grade:
        """See `Task`; the answer is the integer without zeros before it."""
        boxes = 0
        for content in boxed(text):
            boxes += 1
            value = integer(content)
            if value is not None:
                return Grade(str(value), value == question.answer, {"boxed": True})
        return Grade(None, False, {"boxed": boxes > 0})


def _answer(value: Any) -> int:
    number = integer(value) if isinstance(value, str) else value
    # A bool is an int to Python, and no answer.
    if type(number) is not int or not 0 <= number <= _LARGEST:
        raise ValueError(
            f'expected an integer from 0 to {_LARGEST} in the field "answer", found '
            f"{shown(value)}; correct the row, or use the task math for other answers"
        )
    return number
