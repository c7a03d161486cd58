"""Questions made by the library reasoning-gym, and graded by its own checkers.

A data set of the library is a generator: question i is a function of the data set's
name, a seed, i and, in some, how many questions there are. Some of its checkers, and
one generator, run text as Python: an answer could then do whatever the user can. Those
data sets are refused.
"""

import functools
import importlib
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxmoe.evals.tasks import GYM
from jaxmoe.evals.tasks.base import Grade, Question
from jaxmoe.evals.tasks.extract import final_boxes, last_line
from jaxmoe.evals.tasks.prompts import TAGGED, fill, shown
from jaxmoe.evals.tasks.reasoning import answer_in

SIZE = 500
"""Questions of a data set where nobody says how many; the library's own number."""

_EVALUATES = re.compile(r"\b(?:eval|exec|parse_expr|sympify)\(")
"""Calls that run text; SymPy's parse_expr is Python's eval."""
_READ = frozenset(
    {
        *("arithmetic.basic_arithmetic", "arithmetic.bitwise_arithmetic"),
        *("algorithmic.number_sorting", "logic.propositional_logic"),
    }
)
"""Modules with such calls that get no text of an answer: theirs are of questions that
they made themselves, or of a parser of their own. Read in version 0.1.25."""


@dataclass(frozen=True)
class ReasoningGym:
    """A data set of reasoning-gym; an answer is right where its checker gives 1.

    The library is asked about what the last <answer>...</answer> or box holds, or about
    the last line where there is neither. Less than 1, which checkers give to answers
    that are right in part, is wrong; the details say how much.

    data_set: its name in the library, as "leg_counting".
    seed: of the questions. size: how many there are.
    """

    data_set: str = "NAME"
    seed: int = 0
    size: int = SIZE
    chat: bool = True

    @property
    def name(self) -> str:
        """As `--task` has it."""
        return GYM + self.data_set

    @property
    def fields(self) -> Mapping[str, str]:
        """See `Task`."""
        return {
            "index": "which question of the data set, from 0",
            "id": "optional: a name of its own, unique in the file",
        }

    def question(
        self, row: Mapping[str, Any], *, id: str, seed: int, template: str | None
    ) -> Question:
        """See `Task`; a template holds {question}. `seed` is not used.

        Raises:
          ValueError: the library has no such data set, or it is refused.
          ImportError: the library is not installed.
        """
        index = row.get("index")
        if type(index) is not int or not 0 <= index < self.size:
            raise ValueError(
                f'expected a whole number below {self.size} in the field "index", '
                f"found {shown(index)}; write which question of the data set is meant"
            )
        entry = _entry(self.data_set, self.seed, self.size, index)
        prompt = fill(template or TAGGED, {"question": entry["question"]})
        details = {"index": index}
        return Question(id, prompt, entry["answer"], group=id, details=details)

    def questions(self) -> list[Question]:
        """All questions, with ids such as "leg_counting-0"."""
        ids = (f"{self.data_set}-{i}" for i in range(self.size))
        return [
            self.question({"index": i}, id=id, seed=0, template=None)
            for i, id in enumerate(ids)
        ]

    def grade(self, question: Question, text: str) -> Grade:
        """See `Task`. Details: score, what the checker gave."""
        answer = _answer(answer_in(text))
        if not answer:
            return Grade(None, False, {"score": 0.0})
        made = self.data_set, self.seed, self.size
        entry = _entry(*made, question.details["index"])
        score = float(_data_set(*made).score_answer(answer, entry))
        return Grade(answer, score >= 1, {"score": score})


def _answer(text: str) -> str:
    """What the checker is asked about; "" for nothing."""
    before, closed, _ = text.rpartition("</answer>")
    _, opened, tagged = before.rpartition("<answer>")
    if closed and opened:
        return tagged.strip()
    return ", ".join(final_boxes(text)) or last_line(text)


def data_sets() -> list[str]:
    """Names of the library's data sets that can be asked, sorted.

    Raises:
      ImportError: the library is not installed.
    """
    return sorted(name for name, made in _registry().items() if not _runs_text(made[0]))


def _registry() -> Mapping[str, tuple[type, type]]:
    """The library's data sets: name -> its class and its settings."""
    try:
        # By name: a type checker would take "reasoning_gym" for this file.
        importlib.import_module("reasoning_gym")
    except ImportError as error:
        raise ImportError(
            "tasks of reasoning-gym need that library, which is not installed "
            f'({error}); install it with: pip install "jaxmoe[reasoning-gym]"'
        ) from error
    found = importlib.import_module("reasoning_gym.factory").DATASETS
    # That one is made of others, and of which must be said.
    return {name: made for name, made in found.items() if name != "composite"}


def _runs_text(made: type) -> bool:
    """Whether the file of a data set evaluates text that may be an answer's."""
    module = made.__module__.removeprefix("reasoning_gym.")
    if module in _READ:
        return False
    with open(sys.modules[made.__module__].__file__ or "", encoding="utf-8") as file:  # noqa: PTH123
        return bool(_EVALUATES.search(file.read()))


@functools.lru_cache
def _data_set(name: str, seed: int, size: int) -> Any:
    """The library's object.

    Raises:
      ValueError: there is none, or it would run text.
    """
    registry = _registry()
    if name not in registry:
        raise ValueError(
            f"expected a data set of reasoning-gym, found {name!r}; there are "
            f"{', '.join(data_sets())}"
        )
    if _runs_text(registry[name][0]):
        raise ValueError(
            f"{GYM}{name}: expected a data set whose questions and checker run no "
            "text as Python, found one that does, with the rights of this process; "
            "take another one"
        )
    made, settings = registry[name]
    return made(settings(seed=seed, size=size))


@functools.lru_cache(maxsize=1 << 16)
def _entry(name: str, seed: int, size: int, index: int) -> Mapping[str, Any]:
    return _data_set(name, seed, size)[index]
