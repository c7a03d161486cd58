"""The study's problems: nobody has trained on them, and the pilot's are others."""

from collections import Counter

import pytest

from jaxmoe import demo
from jaxmoe.demo import held_out
from jaxmoe.demo.chains import LARGEST_TRAINED, all_chains, count_answers, split_of
from jaxmoe.demo.held_out import (
    ANSWERS,
    CHOSEN,
    FILE,
    KINDS,
    PILOT_PROBLEMS,
    read_part,
)
from jaxmoe.demo.numbers_game import LARGEST

PARTS = ("pilot", "study")


@pytest.mark.slow
def test_the_problems_are_those_of_the_generator(tmp_path):
    """Problems could have been chosen by hand, or after a look at answers."""
    path = tmp_path / "problems.json"
    held_out.write_parts(path, held_out.draw_parts())
    assert path.read_bytes() == FILE.read_bytes()


@pytest.mark.parametrize("part", PARTS)
def test_no_set_of_numbers_was_trained_on(part):
    """The study would ask what the model has learnt by heart."""
    for problem, kind, _ in read_part(part):
        if kind == "familiar":
            assert max(problem.numbers) <= LARGEST_TRAINED
            assert split_of(problem.numbers) != "train"
        else:
            *others, largest = problem.numbers
            assert max(others) <= LARGEST_TRAINED < largest <= LARGEST


def test_no_problem_is_asked_twice():
    """The study would look again at problems that its design was made from."""
    published = {*demo.problems("test"), *demo.problems("validation")}
    asked = [*published, *(p for part in PARTS for p, _, _ in read_part(part))]
    assert len(asked) == len(set(asked))


def test_the_parts_are_of_the_designed_size():
    """An effect of a point would not be seen, or a band count for more than it is."""
    pilot, study = (read_part(part) for part in PARTS)
    cells = Counter((kind, answers) for _, kind, answers in pilot)
    assert cells == {(k, n): PILOT_PROBLEMS for k in KINDS for n in ANSWERS}
    assert Counter((kind, answers) for _, kind, answers in study) == CHOSEN
    assert len(study) == 2048


def test_problems_have_as_many_answers_as_is_said():
    """The bands of the pilot would be of mixed difficulty."""
    some = read_part("study")[:8]
    counts = count_answers(all_chains([problem.numbers for problem, _, _ in some]))
    assert [counts[problem] for problem, _, _ in some] == [n for _, _, n in some]


def test_problems_are_spread_over_sets():
    """Few sets would decide, for problems of one set are alike."""
    pilot = read_part("pilot")
    sets = {(problem.numbers, kind, answers) for problem, kind, answers in pilot}
    assert len(sets) == len(pilot)
