r"""Multiple choice: GPQA, and any other questions with lettered choices.

Two rules read a letter out of an answer, as is common practice.

strict: the form that the prompt asks for. The last place that has "Answer: X" (any
case, "**Answer:** (X)" and '"answer": "X"' too) or \boxed{X} with the letter X of one
choice. A place that names several, "Answer: B or C", counts as none, and so does an A
or I that a word follows, "Answer: I think so", for these are words themselves.

flexible: the strict rule's letter. Where it finds none, the first of these that finds
one: the last "the answer is X" or "option X is correct"; the text of just one choice
as the whole of the last box, of the last line, or of what follows "answer is" in it; a
letter alone at the end of the last line; the last letter in parentheses.

An answer counts as right, and as a vote, by the strict rule alone; what the flexible
one makes of it is reported beside that.
"""

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from string import ascii_uppercase
from typing import Any

from jaxmoe.evals.tasks.base import Grade, Question
from jaxmoe.evals.tasks.extract import (
    boxed,
    boxed_spans,
    last_line,
    normalised,
    plain,
)
from jaxmoe.evals.tasks.prompts import CHOICE, fill, shown, text_of, value_of

_RIGHT_COLUMN = "Correct Answer"
_WRONG_COLUMNS = ("Incorrect Answer 1", "Incorrect Answer 2", "Incorrect Answer 3")


@dataclass(frozen=True)
class Choice:
    """Questions with 2 to 26 choices: `gpqa` shuffles them, `mcq` keeps their order.

    The rules are those at the top of this file. Question.answer is the right choice's
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
            "question": "the question's text" + (' ("Question" too)' if own else ""),
            "choices": "a list of 2 to 26 texts" + (columns if own else ""),
            "answer": "the right choice's index from 0, its letter (A is the first of "
            "the row) or its text" + ("; not beside these columns" if own else ""),
            "id": "optional: a name of its own, unique in the file",
        }

    def question(
        self, row: Mapping[str, Any], *, id: str, seed: int, template: str | None
    ) -> Question:
        """See `Task`; a template holds {question}, {choices} and, at will, {letters}.

        {choices} stands for lines such as "A) text", {letters} for "ABCD".
        """
        names = ("question", "Question") if self.shuffled else ("question",)
        text = text_of(row, *names)
        if self.shuffled and "choices" not in row and _RIGHT_COLUMN in row:
            columns = (_RIGHT_COLUMN, *_WRONG_COLUMNS)
            choices, answer = [text_of(row, name).strip() for name in columns], 0
        else:
            choices = _choices(value_of(row, "choices"))
            answer = _index(value_of(row, "answer"), choices)
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
        flexible = flexible_choice(text, choices) if strict is None else strict
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


def strict_choice(text: str, count: int) -> int | None:
    """The place, from 0, of the choice that the strict rule reads; None for none.

    Args:
      count: choices shown; later letters are none.
    """
    rules = _rules(count)
    place, choice = -1, None
    for found in rules.answer.finditer(text):
        place, choice = found.start(), _place(found["letter"])
    for start, end in boxed_spans(text):
        if start < place:
            break
        found = rules.box.fullmatch(plain(text[start:end]))
        if found:
            return _place(found["letter"])
    return choice


def flexible_choice(text: str, choices: Sequence[str]) -> int | None:
    """The place, from 0, of the choice that the flexible rule's own places give.

    Args:
      choices: texts in the order shown.
    """
    rules = _rules(len(choices))
    found = _last(rules.phrases, text)
    if found:
        return _place(found["letter"])
    line = last_line(text)
    for part in (next(boxed(text), ""), line, rules.before_text.sub("", line)):
        same = _same_text(part, choices)
        if same is not None:
            return same
    found = rules.ending.search(line) or _last((rules.parentheses,), text)
    return _place(found["letter"]) if found else None


@dataclass(frozen=True)
class _Rules:
    """Patterns for so many choices; the group `letter` is the one chosen.

    Every repetition in them is bounded, so a search takes linear time.
    """

    answer: re.Pattern[str]
    box: re.Pattern[str]
    phrases: tuple[re.Pattern[str], ...]
    ending: re.Pattern[str]
    parentheses: re.Pattern[str]
    before_text: re.Pattern[str]


@functools.lru_cache
def _rules(count: int) -> _Rules:
    upper = f"A-{ascii_uppercase[count - 1]}"
    lower = upper.lower()
    # A small letter only where a bracket or the line's end follows: "a" is a word too.
    alone = r"(?=[)\]}\"'*]|[ \t\r.]{0,4}(?:\n|$))"
    # Behind a letter no word may go on, and no second choice be named.
    several = rf"\)?[ \t]{{0,2}}(?:,|/|&|\b(?:or|and)\b)[ \t]{{0,2}}\(?[{upper}]\b"
    letter = rf"(?P<letter>[{upper}]|[{lower}]{alone})(?![\w'’‐‑-]|{several})"
    bare = f"(?P<letter>[{upper}])"

    colon = r"\b(?i:answer)[*_\"' \t]{0,4}[:：]"
    verb = r"(?:is|was|would be|must be|should be)\b"
    noun = rf"\b(?i:(?:answer|option|choice)\s{{1,3}}{verb}):?"
    opening = r"[*_$\"'`(\[{ \t]{0,8}(?:\\[a-z]{2,8}\{[( \t]{0,2}){0,2}"
    kind = r"(?:(?i:option|choice|letter)[ \t]{1,3}\(?)?"
    # After a colon a sentence may begin: "A circle", "I think". After "the answer is",
    # "A because ..." can only mean the choice.
    sentence, thought = (rf"(?!{word}[ \t]{{1,20}}\w)" for word in ("[AI]", "I"))
    right = r"(?i:is|must be)\s{1,3}(?i:the\s{1,3})?(?i:correct|right|best)\b"
    return _Rules(
        answer=re.compile(f"{colon}{opening}{sentence}{kind}{letter}"),
        box=re.compile(
            rf"(?i:option|choice|answer)?:?\s?[(\[]?(?P<letter>[{upper}{lower}])"
            r"(?:[)\].:].*)?",
            re.DOTALL,
        ),
        phrases=(
            re.compile(rf"{colon}\s{{0,3}}{opening}{sentence}{kind}{letter}"),
            re.compile(rf"{noun}\s{{0,3}}{opening}{thought}{kind}{letter}"),
            re.compile(rf"\b(?i:option|choice)\s{{1,3}}\(?{letter}\)?\s{{1,3}}{right}"),
        ),
        ending=re.compile(rf"(?:^|\s)[*_$(\[]{{0,4}}{bare}[*_$)\].]{{0,6}}$"),
        parentheses=re.compile(rf"\({bare}\)"),
        before_text=re.compile(f"^.*?(?:{colon}|{noun})"),
    )


def _last(patterns: Sequence[re.Pattern[str]], text: str) -> re.Match[str] | None:
    """The match of any of the patterns that begins last."""
    last = None
    for pattern in patterns:
        for match in pattern.finditer(text):
            if last is None or match.start() > last.start():
                last = match
    return last


def _place(letter: str) -> int:
    return ascii_uppercase.index(letter.upper())


def _same_text(text: str, choices: Sequence[str]) -> int | None:
    """The one choice whose text this is, with its letter before it or without."""
    wanted = normalised(plain(text))
    if not wanted or (len(wanted) == 1 and wanted.isalpha()):  # for other rules
        return None
    same = [
        place
        for place, (letter, choice) in enumerate(
            zip(ascii_uppercase, choices, strict=False)
        )
        for form in ("{1}", "{0}) {1}", "({0}) {1}", "{0}. {1}", "{0}: {1}")
        if normalised(plain(form.format(letter, choice))) == wanted
    ]
    return same[0] if len(same) == 1 else None


def _lettered(choices: Sequence[str]) -> str:
    lines = zip(ascii_uppercase, choices, strict=False)
    return "\n".join(f"{letter}) {choice}" for letter, choice in lines)


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
    """The index that an index, a letter or a text means."""
    meant = set()
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
            f"{shown(answer)}, {many}; write an index from 0 to {len(choices) - 1}, a "
            f"letter from A to {last}, or the text of a choice"
        )
    return meant.pop()
