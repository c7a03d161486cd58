"""The study's problems: few answers, of sets of numbers that were not trained on.

Of the sets with numbers up to 13, 356 were held out of training (`chains.split_of`):
too few for small effects. So there are two kinds of sets. "familiar": those 356; the
problems that `jaxmoe.demo.problems` publishes are left out. "new": one of the four
numbers is 14, 15 or 16, which the model knows as results and targets, and has never
been given.

A pilot chooses how many answers the problems have. Its problems are drawn with another
seed, and the study asks none of them.
"""

import itertools
import json
import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from jaxmoe import demo
from jaxmoe.demo.chains import (
    LARGEST_TRAINED,
    all_chains,
    count_answers,
    number_sets,
    split_of,
)
from jaxmoe.demo.numbers_game import COUNT, LARGEST, SMALLEST, Problem
from jaxmoe.files import write_text

Kind = Literal["familiar", "new"]
KINDS: tuple[Kind, ...] = get_args(Kind)
Part = Literal["pilot", "study"]

PILOT_SEED, STUDY_SEED = 1, 2

ANSWERS = (1, 2, 3, 5)
"""What the pilot tries: problems with so many answers (`chains.all_chains`)."""
PILOT_PROBLEMS = 48
"""Problems of the pilot for each kind of sets and number of answers."""

CHOSEN: Mapping[tuple[Kind, int], int] = {("familiar", 2): 1911, ("familiar", 1): 137}
"""The study's problems, by kind of sets and number of answers: what the pilot has
decided. The 1911 are all that there are."""

FILE = Path(__file__).resolve().parent / "study" / "problems.json"


class HeldOut(NamedTuple):
    """A problem of the study: what kind of set it is of, how many answers it has."""

    problem: Problem
    kind: Kind
    answers: int


def held_out_sets(kind: Kind) -> list[tuple[int, ...]]:
    """The sets of a kind, each in ascending order."""
    if kind == "familiar":
        return [numbers for numbers in number_sets() if split_of(numbers) != "train"]
    trained = range(SMALLEST, LARGEST_TRAINED + 1)
    others = list(itertools.combinations_with_replacement(trained, COUNT - 1))
    larger = range(LARGEST_TRAINED + 1, LARGEST + 1)
    return [(*three, number) for three in others for number in larger]


def draw_parts() -> dict[Part, list[HeldOut]]:
    """The problems of the pilot and of the study, in an order of no meaning."""
    published = {*demo.problems("test"), *demo.problems("validation")}
    counts = {kind: count_answers(all_chains(held_out_sets(kind))) for kind in KINDS}
    pilot, study = random.Random(PILOT_SEED), random.Random(STUDY_SEED)
    asked = [
        held_out
        for kind in KINDS
        for answers in ANSWERS
        for held_out in _draw(
            pilot, counts[kind], kind, answers, PILOT_PROBLEMS, published
        )
    ]
    seen = published | {held_out.problem for held_out in asked}
    rest = [
        held_out
        for (kind, answers), number in CHOSEN.items()
        for held_out in _draw(study, counts[kind], kind, answers, number, seen)
    ]
    pilot.shuffle(asked)
    study.shuffle(rest)
    return {"pilot": asked, "study": rest}


def _draw(
    rng: random.Random,
    counts: Mapping[Problem, int],
    kind: Kind,
    answers: int,
    number: int,
    avoided: Collection[Problem],
) -> list[HeldOut]:
    """Problems with so many answers, spread evenly over the sets that have any."""
    of_set: dict[tuple[int, ...], list[Problem]] = {}
    for problem, count in sorted(counts.items()):
        if count == answers and problem not in avoided:
            of_set.setdefault(problem.numbers, []).append(problem)
    for some in of_set.values():
        rng.shuffle(some)
    rounds = itertools.zip_longest(*rng.sample(list(of_set.values()), len(of_set)))
    drawn = [p for one_each in rounds for p in one_each if p is not None][:number]
    if len(drawn) < number:
        raise ValueError(
            f"expected {number} {kind} problems with {answers} answers, found "
            f"{len(drawn)}; ask for fewer, or for another number of answers"
        )
    return [HeldOut(problem, kind, answers) for problem in drawn]


def write_parts(path: Path, parts: Mapping[Part, Sequence[HeldOut]]) -> None:
    """Writes the problems as JSON, one a line."""
    lines = (
        json.dumps(part) + ": [\n" + ",\n".join(map(_line, drawn)) + "\n]"
        for part, drawn in parts.items()
    )
    write_text(path, "{\n" + ",\n".join(lines) + "\n}\n")


def _line(held_out: HeldOut) -> str:
    problem, kind, answers = held_out
    return json.dumps([problem.prompt, kind, answers])


def read_part(part: Part, path: Path = FILE) -> list[HeldOut]:
    """The problems of the pilot, or of the study, as they were drawn."""
    stored = json.loads(path.read_text(encoding="utf-8"))[part]
    return [HeldOut(Problem.parse(prompt), *about) for prompt, *about in stored]


def problems_of(some: Iterable[HeldOut]) -> list[Problem]:
    """The problems alone."""
    return [held_out.problem for held_out in some]


if __name__ == "__main__":
    write_parts(FILE, draw_parts())
