"""Questions whose answer is one of a few strings."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxmoe.evals.tasks.base import Grade, Question
from jaxmoe.evals.tasks.extract import (
    LONGEST,
    final_boxes,
    last_line,
    normalised,
)
from jaxmoe.evals.tasks.peel import plain
from jaxmoe.evals.tasks.prompts import (
    EXACT,
    after_hashes,
    fill,
    shown,
    text_of,
    value_of,
)
from jaxmoe.evals.tasks.reasoning import answer_in


@dataclass(frozen=True)
class Exact:
    r"""The last \boxed{...} that is not empty, else the last line that is not blank.

    It is right where it equals one of the accepted strings after `normalised`: blanks
    as one, no case, no punctuation at the end, no marks of emphasis around it.
    """

    name: str = "exact"
    chat: bool = True

    @property
    def fields(self) -> Mapping[str, str]:
        """See `Task`."""
        return {
            "prompt": 'what the model is told; may be called "question"',
            "answer": "text, an integer, or a list of accepted ones",
            "id": "optional: a name of its own, unique in the file",
        }

    def question(
        self, row: Mapping[str, Any], *, id: str, seed: int, template: str | None
    ) -> Question:
        """See `Task`; a template holds {prompt}."""
        prompt = fill(template or EXACT, {"prompt": text_of(row, "prompt", "question")})
        return Question(
            id, prompt, _accepted(after_hashes(value_of(row, "answer"))), group=id
        )

    def grade(self, question: Question, text: str) -> Grade:
        """See `Task`; the answer is the normalised string."""
        text = answer_in(text)
        boxes = final_boxes(text, lambda content: not plain(content))
        box = ", ".join(map(plain, boxes)) or None
        answer = normalised(last_line(text) if box is None else box)
        accepted = {normalised(right) for right in question.answer}
        if box is not None:  # which is without its "$" and "\\text"
            accepted |= {normalised(plain(right)) for right in question.answer}
        return Grade(answer or None, answer in accepted, {"boxed": box is not None})


def _accepted(value: Any) -> tuple[str, ...]:
    accepted = tuple(value) if isinstance(value, list) else (value,)
    # A bool is an int to Python; true would become "True".
    if not accepted or not all(isinstance(x, str) or type(x) is int for x in accepted):
        raise ValueError(
            'expected text or a list of texts in the field "answer", found '
            f"{shown(value)}; write what a right answer says"
        )
    texts = tuple(map(str, accepted))
    if not all(text.strip() and len(text) <= LONGEST for text in texts):
        raise ValueError(
            f"expected answers of 1 to {LONGEST} characters, found {shown(value)}; no "
            "answer of a model could equal others"
        )
    return texts
