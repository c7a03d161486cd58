"""AIME: problems whose answer is an integer from 0 to 999."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxmoe.evals.tasks.base import Grade, Question
from jaxmoe.evals.tasks.extract import final_boxes
from jaxmoe.evals.tasks.integers import integer, only_names
from jaxmoe.evals.tasks.prompts import AIME, fill, shown, text_of, value_of
from jaxmoe.evals.tasks.reasoning import answer_in

_LARGEST = 999


@dataclass(frozen=True)
class Aime:
    r"""The integer in the last \boxed{...} is the answer.

    An answer outside of a box is none: the prompt asks for the box. The last box alone
    counts, but for one that only names the quantity, such as \boxed{m+n}. Boxes joined
    by a comma or "and" are several answers, which are none where they differ. Details
    of a grade: boxed, whether there is a box at all, with an integer or without.
    """

    name: str = "aime"
    chat: bool = True

    @property
    def fields(self) -> Mapping[str, str]:
        """See `Task`."""
        return {
            "problem": 'the problem\'s text ("Problem" or "question" too)',
            "answer": f'an integer from 0 to {_LARGEST}, a number or text ("073"; '
            '"Answer" too)',
            "id": "optional: a name of its own, unique in the file",
        }

    def question(
        self, row: Mapping[str, Any], *, id: str, seed: int, template: str | None
    ) -> Question:
        """See `Task`; a template holds {problem}."""
        problem = text_of(row, "problem", "Problem", "question", "Question")
        answer = _answer(value_of(row, "answer", "Answer"))
        return Question(id, fill(template or AIME, {"problem": problem}), answer, id)

    def grade(self, question: Question, text: str) -> Grade:
        """See `Task`; the answer is the integer without zeros before it."""
        boxes = final_boxes(answer_in(text), only_names)
        values = {integer(content) for content in boxes}
        value = values.pop() if len(values) == 1 else None
        answer = None if value is None else str(value)
        right = value is not None and value == question.answer
        return Grade(answer, right, {"boxed": bool(boxes)})


def _answer(value: Any) -> int:
    number = integer(value) if isinstance(value, str) else value
    if isinstance(number, float) and number.is_integer():  # as pandas writes columns
        number = int(number)
    # A bool is an int to Python, and no answer.
    if type(number) is not int or not 0 <= number <= _LARGEST:
        raise ValueError(
            f'expected an integer from 0 to {_LARGEST} in the field "answer", found '
            f"{shown(value)}; correct the row, or use the task math for other answers"
        )
    return number
