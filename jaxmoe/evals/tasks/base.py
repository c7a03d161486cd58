"""What a task is: questions made of a user's rows, and answers graded."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable


@dataclass(frozen=True)
class Question:
    """One problem, ready to be put to a model.

    id: unique in its file. prompt: what the model is told. answer: what grading
    compares with; its type is the task's affair. group: problems of one group are
    alike, and intervals resample whole groups; its own id where it has none.
    details: whatever else the task needs for grading.
    """

    id: str
    prompt: str
    answer: Any
    group: str
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Grade:
    """What became of one answer's text.

    answer: what was read out of the text, normalised, so that equal answers are equal
    strings (majority voting counts them); None where nothing was found. correct:
    whether it counts as right. details: further verdicts by name, as JSON has them
    ({"strict": False}).
    """

    answer: str | None
    correct: bool
    details: Mapping[str, Any] = field(default_factory=dict)


@runtime_checkable
class Task(Protocol):
    """A kind of problem: how a row becomes a question, how an answer is graded.

    name: as `--task` has it. chat: whether the prompt is a user's message (True) or
    text to go on from. fields: the columns of a row, each with a line of explanation;
    those that begin with "optional" may be missing.
    """

    @property
    def name(self) -> str:
        """As `--task` has it."""
        ...

    @property
    def chat(self) -> bool:
        """Whether the prompt is a user's message, not text to go on from."""
        ...

    @property
    def fields(self) -> Mapping[str, str]:
        """The columns of a row, each with a line of explanation."""
        ...

    def question(
        self, row: Mapping[str, Any], *, id: str, seed: int, template: str | None
    ) -> Question:
        """The question of one row of the user's file.

        Args:
          id: the row's own `id` as text, or one made of its number.
          seed: of whatever the task shuffles, together with `id`.
          template: a prompt with {fields} in braces, instead of the task's own.

        Raises:
          ValueError: a field that is missing or has no value the task can use. The
            caller adds the line number.
        """
        ...

    def grade(self, question: Question, text: str) -> Grade:
        """Grades one answer. No text, however strange, makes it raise."""
        ...
