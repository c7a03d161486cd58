"""All problems with all their answers against a plain recursion, and who sees which."""

import itertools
import random
from collections import Counter

import numpy as np
import pytest

import jaxmoe.demo
from jaxmoe.demo.chains import (
    EASY_ANSWERS,
    FEWEST_ANSWERS,
    all_chains,
    band_of,
    chains_of,
    count_answers,
    draw_problems,
    number_sets,
    split_of,
    trained_on,
)
from jaxmoe.demo.numbers_game import (
    MAX_RESULT,
    MAX_TARGET,
    Problem,
    is_right,
)

SPLITS = ["train", "validation", "test"]
splits = pytest.mark.parametrize("split", SPLITS)
EDGES = [(1, 1, 1, 1), (13, 13, 13, 13), (1, 1, 2, 2), (4, 4, 5, 8), (1, 4, 9, 9)]
SAMPLE = EDGES + random.Random(0).sample(number_sets(), 20)

Step = tuple[int, str, int, int]


def _recursion(at_hand: list[int], before: tuple[Step, ...] = ()):
    """(target, steps) of every way to use up the numbers, in every order."""
    if len(at_hand) == 1:
        if at_hand[0] <= MAX_TARGET:
            yield at_hand[0], before
        return
    for i, j in itertools.combinations(range(len(at_hand)), 2):
        rest = [number for place, number in enumerate(at_hand) if place not in (i, j)]
        b, a = sorted((at_hand[i], at_hand[j]))
        results = {"+": a + b, "-": a - b, "*": a * b}
        if a % b == 0:
            results["/"] = a // b
        for operation, result in results.items():
            if 1 <= result <= MAX_RESULT:
                step = (a, operation, b, result)
                yield from _recursion([*rest, result], (*before, step))


def _text(steps: tuple[Step, ...]) -> str:
    return ",".join(f"{a}{operation}{b}={result}" for a, operation, b, result in steps)


@pytest.fixture(scope="module")
def chains():
    """All answers of the sampled sets."""
    return all_chains(SAMPLE)


@pytest.fixture(scope="module")
def answers(chains):
    """The (problem, answer) of each of these."""
    numbers, targets = chains.numbers.tolist(), chains.target.tolist()
    problems = [Problem(tuple(n), t) for n, t in zip(numbers, targets, strict=True)]
    return list(zip(problems, chains.texts(), strict=True))


@pytest.fixture(scope="module")
def of_split():
    """All answers of each split."""
    sets = {split: [] for split in SPLITS}
    for numbers in number_sets():
        sets[split_of(numbers)].append(numbers)
    return {split: all_chains(sets[split]) for split in SPLITS}


@pytest.fixture(scope="module")
def answers_of_test():
    """Right answers of each test problem."""
    sets = [numbers for numbers in number_sets() if split_of(numbers) == "test"]
    return count_answers(all_chains(sets))


# -- all answers ---------------------------------------------------------------------


def _in_any_order(answer: str) -> tuple[str, ...]:
    return tuple(sorted(answer.split(",")))


def test_chains_equal_the_recursion(answers):
    """An answer left out could not be learnt, and its problem would seem harder.

    The same steps in another order are the same answer here.
    """
    found = {numbers: set() for numbers in SAMPLE}
    for problem, answer in answers:
        found[problem.numbers].add((problem.target, answer))
    for numbers in SAMPLE:
        wanted = {(t, _text(steps)) for t, steps in _recursion(list(numbers))}
        assert found[numbers] <= wanted, numbers
        sums = {(t, _in_any_order(answer)) for t, answer in wanted}
        assert {(t, _in_any_order(a)) for t, a in found[numbers]} == sums, numbers


def test_every_chain_is_right(answers):
    """The model would be taught answers that are then called wrong."""
    for problem, answer in answers:
        assert is_right(problem, answer), (problem, answer)


def test_no_chain_is_there_twice(answers):
    """An answer would be taught more often than others."""
    assert len(set(answers)) == len(answers)


def test_chains_are_sorted_by_problem(chains):
    """Who draws a problem by where its answers start would get parts of two."""
    rows = np.concatenate([chains.numbers, chains.target[:, None]], axis=1)
    changes = 1 + (rows[1:] != rows[:-1]).any(axis=1).sum()
    assert changes == len(np.unique(rows, axis=0))


def answers_of_test_are_counted(chains, answers):
    """Bands and the least number of answers stand on these counts."""
    counted = Counter(problem for problem, _ in answers)
    assert count_answers(chains) == counted


# -- splits --------------------------------------------------------------------------


def test_there_are_1820_sets():
    """A problem of the game would be in no split."""
    sets = number_sets()
    assert len(sets) == len(set(sets)) == 1820
    assert all(numbers == tuple(sorted(numbers)) for numbers in sets)


@pytest.mark.slow
def test_splits_part_all_sets(of_split):
    """A test problem would have been trained on, or be in no split at all."""
    sets = {split: set(map(tuple, c.numbers.tolist())) for split, c in of_split.items()}
    for one, other in itertools.combinations(SPLITS, 2):
        assert not sets[one] & sets[other], f"{one} and {other} share sets"
    assert set().union(*sets.values()) == set(number_sets())
    assert all(0.07 < len(sets[split]) / 1820 < 0.13 for split in SPLITS[1:])


def test_the_order_of_numbers_is_no_way_into_another_split():
    """A test problem written in another order would be one to train on."""
    for numbers in SAMPLE:
        orders = itertools.permutations(numbers)
        assert {split_of(order) for order in orders} == {split_of(numbers)}


def test_larger_numbers_are_not_trained_on():
    """Their split, which nobody has asked for, may be called that of training."""
    trained = {numbers for numbers in number_sets() if split_of(numbers) == "train"}
    larger = [(1, 1, 1, number) for number in (14, 15, 16)]
    assert "train" in map(split_of, larger)
    assert {n for n in [*number_sets(), *larger] if trained_on(n)} == trained


# -- problems to try -----------------------------------------------------------------


@pytest.mark.slow
@splits
def test_drawn_problems_are_of_their_split(of_split, split):
    """A test would ask what was trained on."""
    trained_on = set(map(tuple, of_split["train"].numbers.tolist()))
    drawn = [problem for problem, _ in draw_problems(split, 60, 0)]
    assert {split_of(problem.numbers) for problem in drawn} == {split}
    assert all((p.numbers in trained_on) == (split == "train") for p in drawn)


@pytest.mark.thorough
@pytest.mark.parametrize("count", [0, 1, 60, 61, 500])
def test_half_of_the_drawn_problems_are_easy(answers_of_test, count):
    """A change in the share of easy problems would look like a better model."""
    drawn = draw_problems("test", count, 0)
    assert len(drawn) == len({problem for problem, _ in drawn}) == count
    bands = Counter(band for _, band in drawn)
    assert (bands["easy"], bands["hard"]) == (count - count // 2, count // 2)
    for problem, band in drawn:
        least, most = {
            "easy": (EASY_ANSWERS, np.inf),
            "hard": (FEWEST_ANSWERS, EASY_ANSWERS - 1),
        }[band]
        assert least <= answers_of_test[problem] <= most, (problem, band)


def test_more_problems_than_there_are_are_refused(answers_of_test):
    """A slip would end in an error of Python's, which names neither number."""
    bands = Counter(band_of(n) for n in answers_of_test.values() if n >= FEWEST_ANSWERS)
    most = min(2 * bands["easy"], 2 * bands["hard"] + 1)
    assert len(draw_problems("test", most, 0)) == most
    with pytest.raises(ValueError, match=f"at most {most} .*, found {most + 1}; draw"):
        draw_problems("test", most + 1, 0)


def test_the_same_seed_draws_the_same_problems():
    """Two evaluations could not be compared."""
    drawn = draw_problems("test", 60, 3)
    assert draw_problems("test", 60, 3) == drawn
    assert draw_problems("test", 60, 4) != drawn


def test_bands_are_mixed():
    """The first problems of a list would all be easy, and a short run flatter."""
    bands = [band for _, band in draw_problems("test", 60, 0)]
    assert 0 < Counter(bands[:30])["easy"] < 30


def test_the_package_gives_problems_whatever_was_imported():
    """A module of that name would take the function's place."""
    assert len(jaxmoe.demo.problems("test")) == 512


def test_chains_of_answers_are_those_written():
    """A model would be trained on other answers than the right ones it has drawn."""
    chains = all_chains(sorted(set(SAMPLE)))
    rows = zip(chains.numbers.tolist(), chains.target.tolist(), strict=True)
    problems = [Problem(tuple(numbers), target) for numbers, target in rows]
    answers = list(zip(problems, chains.texts(), strict=True))
    random.Random(1).shuffle(answers)
    again = chains_of([*answers, *answers[:5]])
    for name in ("numbers", "target", "steps"):
        np.testing.assert_array_equal(getattr(again, name), getattr(chains, name))
        assert getattr(again, name).dtype == np.uint8
    # The larger number need not stand first in an answer that a model writes.
    problem = Problem.parse("2,5,8,12=27:")
    (text,) = chains_of([(problem, "8+12=20,2+5=7,7+20=27")]).texts()
    assert text == "8+12=20,2+5=7,7+20=27"
