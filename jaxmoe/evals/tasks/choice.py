r"""Multiple choice: GPQA, and any other questions with lettered choices.

Two rules read a letter out of an answer, strict and flexible; `letters.py` says how. An
answer counts as right, and as a vote, by the strict rule alone; what the flexible one
makes of it is reported beside that.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from string import ascii_uppercase
from typing import Any

from jaxmoe.evals.tasks.base import Grade, Question
from jaxmoe.evals.tasks.letters import flexible_choice, strict_choice
from jaxmoe.evals.tasks.prompts import (
    CHOICE,
    fill,
    from_cell,
    shown,
    text_of,
    value_of,
)

_RIGHT_COLUMN = "Correct Answer"
_WRONG_COLUMNS = ("Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")


@dataclass(frozen=True)
class Choice:
    """Questions with 2 to 26 choices: `gpqa` shuffles them, `mcq` keeps their order.

    The rules are those of `letters.py`. Question.answer is the right choice's
    index in the row; details hold `choices`, the texts in the order shown, and `order`,
    the index in the row of each. A grade's answer is an index in the row too, as text,
    so that votes count choices and not letters: that of the strict rule's choice, None
    where it finds none. Its details are {"strict": bool, "flexible": bool}, whether
    each rule finds the right choice.

    name: as `--task` has it. shuffled: whether choices are put in an order that follows
    from the seed and the question's id, see `order_of`.
    """

    name: str
    shuffled: bool
    chat: bool = True

    @property
    def fields(self) -> Mapping[str, str]:
        """See `Task`."""
        own = self.shuffled
        columns = f'; or the columns "{_RIGHT_COLUMN}" and "Incorrect Answer 1" to 3'
        return {
            "question": 'the question\'s text ("Question" too)',
            "choices": 'a list of 2 to 26 texts ("options" too), two lists, "text" and '
            '"label", or columns "A", "B" and so on' + (columns if own else ""),
            "answer": "the right choice's index from 0 as a number, its letter (A is "
            'the first of the row) or its text ("answerKey" too); "answer_index" may '
            "hold the index as text" + ("; not beside these columns" if own else ""),
            "id": "optional: a name of its own, unique in the file",
        }

    def question(
        self, row: Mapping[str, Any], *, id: str, seed: int, template: str | None
    ) -> Question:
        """See `Task`; a template holds {question}, {choices} and, at will, {letters}.

        {choices} stands for lines such as "A) text", {letters} for "ABCD".
        """
        row = _with_stem(row)
        text = text_of(row, "question", "Question")
        if self.shuffled and "choices" not in row and _RIGHT_COLUMN in row:
            columns = (_RIGHT_COLUMN, *_WRONG_COLUMNS)
            choices, answer = [text_of(row, name).strip() for name in columns], 0
        else:
            choices, answer = _choices_and_answer(row)
        _refuse_equal(choices)
        count = len(choices)
        order = order_of(count, seed, id) if self.shuffled else tuple(range(count))
        shown_choices = [choices[i] for i in order]
        values = {
            "question": text.strip(),
            "choices": _lettered(shown_choices),
            "letters": ascii_uppercase[:count],
        }
        prompt = fill(template or CHOICE, values, optional=frozenset({"letters"}))
        details = {"choices": shown_choices, "order": list(order)}
        return Question(id, prompt, answer, id, details)

    def grade(self, question: Question, text: str) -> Grade:
        """See `Task`; answer and correct are by the strict rule."""
        choices, order = question.details["choices"], question.details["order"]
        strict = strict_choice(text, len(choices))
        flexible = flexible_choice(text, choices)
        verdicts = {
            "strict": strict is not None and order[strict] == question.answer,
            "flexible": flexible is not None and order[flexible] == question.answer,
        }
        answer = None if strict is None else str(order[strict])
        return Grade(answer, verdicts["strict"], verdicts)


def gpqa() -> Choice:
    """The task gpqa (Rein et al. 2023, arXiv 2311.12022)."""
    return Choice("gpqa", shuffled=True)


def mcq() -> Choice:
    """The task mcq."""
    return Choice("mcq", shuffled=False)


def order_of(count: int, seed: int, id: str) -> tuple[int, ...]:
    r"""The order in which a question's choices are shown: entry 0 is the index of A.

    Index i has the rank of the SHA-256 digest of "seed\nid\ni" among those of all
    choices. So an order follows from seed and id alone, whatever else is in the file
    and whatever the versions of Python and NumPy.
    """

    def digest(i: int) -> bytes:
        return sha256(f"{seed}\n{id}\n{i}".encode()).digest()

    return tuple(sorted(range(count), key=digest))


def _lettered(choices: Sequence[str]) -> str:
    lines = zip(ascii_uppercase, choices, strict=False)
    return "\n".join(f"{letter}) {choice}" for letter, choice in lines)


def _choices_and_answer(row: Mapping[str, Any]) -> tuple[list[str], int]:
    """Choices and the right one's index, as the field's data sets have them.

    choices and answer (MMLU), options and answer_index (MMLU-Pro), choices of two
    lists, text and label, or of objects with both, and answerKey (ARC), or columns A,
    B, C and D and Answer (MMMLU), of which the last may be empty.
    """
    if not {"choices", "options"} & row.keys() and {"A", "B"} <= row.keys():
        return _columns_and_answer(row)
    value = _by_column(from_cell(value_of(row, "choices", "options")))
    if isinstance(value, Mapping):
        choices, labels = _choices(value.get("text")), value.get("label")
        key = value_of(row, "answerKey", "answer")
        names = list(map(str, labels)) if isinstance(labels, list) else []
        if len(names) == len(choices) and names.count(str(_whole(key))) == 1:
            return choices, names.index(str(_whole(key)))
        raise ValueError(
            f'expected one of the labels {shown(labels)} in "answerKey", found '
            f"{shown(key)}; correct it"
        )
    choices = _choices(value)
    if row.get("answer_index") is None:
        return choices, _index(value_of(row, "answer", "answerKey"), choices)
    index = _whole(row["answer_index"])
    right = _index(index if type(index) is int else None, choices)
    given = row.get("answer")
    if given is not None and _index(given, choices) != right:
        raise ValueError(
            f'expected the same choice in "answer" and "answer_index", found '
            f"{shown(given)} and {index}; correct one of them"
        )
    return choices, right


def _columns_and_answer(row: Mapping[str, Any]) -> tuple[list[str], int]:
    """The same of the columns A, B and so on, up to the first that is empty."""
    cells = {letter: _cell(row, letter) for letter in ascii_uppercase}
    filled = [letter for letter, text in cells.items() if text]
    gap = next((letter for letter, text in cells.items() if not text), None)
    if gap is not None and filled and gap < filled[-1]:
        raise ValueError(
            f'expected no choice behind the empty column "{gap}", found one in '
            f'"{filled[-1]}"; it would be shown under another letter: correct the row'
        )
    choices = _choices([cells[letter] for letter in filled])
    answer = value_of(row, "answer", "Answer")
    right = _index(answer, choices)
    text = str(_whole(answer)) if isinstance(answer, int | float) else None
    if text in choices and choices.index(text) != right:
        raise ValueError(
            f'expected the right column\'s letter in "answer", found {shown(answer)}, '
            "which is the text of another column than the one at that index; write the "
            "letter"
        )
    return choices, right


def _cell(row: Mapping[str, Any], letter: str) -> str:
    """A column's text, or its number as text; "" where it is empty."""
    value = row.get(letter)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, int | float) and type(value) is not bool:
        return str(_whole(value))
    raise ValueError(
        f'expected text or a number in the column "{letter}", found {shown(value)}; '
        "write the choice's text"
    )


def _with_stem(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """ARC's first release has the text and the choices within "question"."""
    inner = row.get("question")
    if not (isinstance(inner, Mapping) and "stem" in inner):
        return row
    return {**row, "choices": inner.get("choices"), "question": inner["stem"]}


def _by_column(value: Any) -> Any:
    """A list of objects with text and label as two lists; what is none stays."""
    objects = isinstance(value, list) and all(
        isinstance(one, Mapping) and {"text", "label"} <= one.keys() for one in value
    )
    if not (objects and value):
        return value
    return {name: [one[name] for one in value] for name in ("text", "label")}


def _whole(value: Any) -> Any:
    """An index as tables have it: "2", or 2.0 where the column has gaps."""
    if isinstance(value, str) and re.fullmatch(r"\s*[0-9]{1,2}(?:\.0)?\s*", value):
        value = float(value)
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _refuse_equal(choices: Sequence[str]) -> None:
    twice = [choice for choice in choices if choices.count(choice) > 1]
    if twice:
        raise ValueError(
            f"expected choices that differ, found {shown(twice[0])} twice; the one "
            "that is right could not be told from the other: correct the row"
        )


def _choices(value: Any) -> list[str]:
    is_texts = isinstance(value, list) and all(
        isinstance(choice, str) and choice.strip() for choice in value
    )
    if not is_texts or not 2 <= len(value) <= len(ascii_uppercase):
        raise ValueError(
            f'expected 2 to {len(ascii_uppercase)} texts in the field "choices", found '
            f"{shown(value)}; write a list of what may be chosen"
        )
    return [choice.strip() for choice in value]


def _index(answer: Any, choices: Sequence[str]) -> int:
    """The index that an index, a letter or a text means.

    Digits in a text are no index: published files with such answers count from 1.
    """
    meant = set()
    if isinstance(answer, float):
        answer = _whole(answer)
    if type(answer) is int and 0 <= answer < len(choices):  # True is no index
        meant.add(answer)
    if isinstance(answer, str):
        text = answer.strip()
        meant |= {i for i, choice in enumerate(choices) if choice == text}
        letters = ascii_uppercase[: len(choices)]
        if len(text) == 1 and text in letters:
            meant.add(letters.index(text))
    if len(meant) != 1:
        last = ascii_uppercase[len(choices) - 1]
        many = "which means several of them" if meant else "which is none of them"
        raise ValueError(
            f'expected one of the {len(choices)} choices in the field "answer", found '
            f"{shown(answer)}, {many}; write an index from 0 to {len(choices) - 1} as "
            f'a number or in "answer_index", a letter from A to {last}, or the text of '
            "a choice"
        )
    return meant.pop()
