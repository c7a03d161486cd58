"""The numbers game: four numbers, a target, and a chain of three steps to it.

    problem  2,5,8,12=27:        answer  12+8=20,5+2=7,20+7=27

Every step takes two of the numbers at hand, adds, subtracts, multiplies or divides
them, and puts the result, a whole number from 1 to 199, in their place. After three
steps one number is left, and it must be the target. A problem has many right answers,
and whether an answer is right is decided by doing the sums.

An answer may have several tries, 12+8=20,5-2=3,20+3=23:12+8=20,5+2=7,20+7=27. Each has
three steps, and the last is the one that must be right.
"""

import re
from collections import Counter
from dataclasses import dataclass

SMALLEST, LARGEST = 1, 16
"""The numbers of a problem. The demo's model was trained on those up to
`jaxmoe.demo.chains.LARGEST_TRAINED`."""
MAX_TARGET = 99
MAX_RESULT = 199
"""Results of steps are whole numbers from 1 to this."""
COUNT = 4
"""Numbers in a problem; an answer has one step less."""
AGAIN = ":"
"""Stands between tries, as after a problem."""

# Three digits are enough for every number; \d would take the digits of all scripts.
_NUMBER = r"([1-9][0-9]{0,2})"
_PROBLEM = re.compile(",".join([_NUMBER] * COUNT) + f"={_NUMBER}:")
_STEP = re.compile(f"{_NUMBER}([-+*/]){_NUMBER}={_NUMBER}")
_TRY = re.compile(",".join([_STEP.pattern] * (COUNT - 1)))


@dataclass(frozen=True, order=True)
class Problem:
    """Four numbers in ascending order, and the target."""

    numbers: tuple[int, ...]
    target: int

    def __post_init__(self):
        fits = len(self.numbers) == COUNT and all(
            SMALLEST <= number <= LARGEST for number in self.numbers
        )
        if not fits or not 1 <= self.target <= MAX_TARGET:
            raise ValueError(
                f"a problem has {COUNT} numbers from {SMALLEST} to {LARGEST} and a "
                f"target from 1 to {MAX_TARGET}, found {self.numbers} and {self.target}"
            )
        object.__setattr__(self, "numbers", tuple(sorted(self.numbers)))

    @property
    def prompt(self) -> str:
        """The problem as the model reads it, "2,5,8,12=27:"."""
        return f"{','.join(map(str, self.numbers))}={self.target}:"

    @classmethod
    def parse(cls, prompt: str) -> "Problem":
        """The problem of a prompt; a ValueError for other text."""
        found = _PROBLEM.fullmatch(prompt)
        if not found:
            raise ValueError(f'expected a problem as "2,5,8,12=27:", found {prompt!r}')
        *numbers, target = map(int, found.groups())
        return cls(tuple(numbers), target)


def result_of(a: int, operation: str, b: int) -> int | None:
    """a + b, a - b, a * b or a / b; None where the rules of the game forbid it."""
    if operation == "/":
        value = a // b if b and a % b == 0 else 0
    else:
        value = {"+": a + b, "-": a - b, "*": a * b}[operation]
    return value if 1 <= value <= MAX_RESULT else None


def last_try(answer: str) -> str:
    """What counts of an answer: its only try, or the last of several."""
    return answer.rpartition(AGAIN)[2]


def error_in(problem: Problem, answer: str) -> str | None:
    """What is wrong with an answer, in a few words; None if it is right.

    Tries before the last must have the form of one; their sums are not looked at.
    """
    *failed, last = answer.split(AGAIN)
    for text in failed:
        if not _TRY.fullmatch(text):
            return f"{text!r} is no try"
    at_hand = Counter(problem.numbers)
    steps = last.split(",")
    if len(steps) != COUNT - 1:
        return f"{len(steps)} steps instead of {COUNT - 1}"
    value = 0
    for step in steps:
        found = _STEP.fullmatch(step)
        if not found:
            return f"{step!r} is no step"
        a, value, b = int(found[1]), int(found[4]), int(found[3])
        at_hand.subtract((a, b))
        if min(at_hand.values()) < 0:
            return f"{step}: {a if at_hand[a] < 0 else b} is not at hand"
        if result_of(a, found[2], b) != value:
            return f"{step} is not so"
        at_hand[value] += 1
    return None if value == problem.target else f"{value} is not {problem.target}"


def is_right(problem: Problem, answer: str) -> bool:
    """Whether an answer is right: the exact checker."""
    return error_in(problem, answer) is None


def expression(answer: str) -> str:
    """The sum that a right answer does, in its last try, for telling answers apart.

    Steps that could stand in another order, and a + b and b + a, give the same
    expression: "12-8=4,5*4=20,20+3=23" is "(((12-8)*5)+3)". A number that was both
    given and made is taken to be the made one, which a text does not tell.
    """
    made: dict[int, list[str]] = {}

    def take(value: str) -> str:
        waiting = made.get(int(value))
        return waiting.pop() if waiting else value

    last = ""
    *failed, tried = answer.split(AGAIN)
    if others := [text for text in failed if not _TRY.fullmatch(text)]:
        raise ValueError(f"expected steps as 12-8=4, found {others[0]!r}")
    for step in tried.split(","):
        found = _STEP.fullmatch(step)
        if not found:
            raise ValueError(f"expected steps as 12-8=4, found {step!r}")
        parts = [take(found[1]), take(found[3])]
        if found[2] in "+*" or found[1] == found[3]:  # 4/4 is the same either way
            parts.sort(key=lambda part: (-len(part), part))
        last = f"({parts[0]}{found[2]}{parts[1]})"
        made.setdefault(int(found[4]), []).append(last)
    return last
