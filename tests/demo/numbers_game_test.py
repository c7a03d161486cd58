"""The exact checker: it alone decides what counts as a right answer."""

import random
from collections import Counter
from fractions import Fraction

import pytest

from jaxmoe.demo.numbers_game import (
    LARGEST,
    MAX_RESULT,
    MAX_TARGET,
    SMALLEST,
    Problem,
    error_in,
    expression,
    is_right,
    result_of,
)

PROBLEM = Problem((2, 5, 8, 12), 27)
ANSWER = "12+8=20,5+2=7,20+7=27"


# -- problems ------------------------------------------------------------------------


def _random_problem(rng: random.Random) -> Problem:
    numbers = tuple(rng.randint(SMALLEST, LARGEST) for _ in range(4))
    return Problem(numbers, rng.randint(1, MAX_TARGET))


def test_a_prompt_gives_its_problem_back():
    """An answer would be held against another problem than the model was given."""
    assert PROBLEM.prompt == "2,5,8,12=27:"
    rng = random.Random(0)
    for _ in range(200):
        problem = _random_problem(rng)
        assert Problem.parse(problem.prompt) == problem


def test_numbers_stand_in_order():
    """One problem would have many prompts, of which the model has seen one."""
    assert Problem((12, 2, 8, 5), 27) == PROBLEM
    assert Problem((12, 2, 8, 5), 27).prompt == PROBLEM.prompt


@pytest.mark.parametrize(
    ("numbers", "target"),
    [
        ((2, 5, 8), 27),
        ((2, 5, 8, 12, 13), 27),
        ((), 27),
        ((0, 5, 8, 12), 27),
        ((2, 5, 8, 17), 27),
        ((-2, 5, 8, 12), 27),
        ((2, 5, 8, 12), 0),
        ((2, 5, 8, 12), 100),
    ],
)
def test_a_problem_outside_the_game_is_refused(numbers, target):
    """The model would be asked about tokens or sums that it never saw."""
    with pytest.raises(ValueError, match=f"4 numbers from 1 to 16.*and {target}"):
        Problem(numbers, target)


@pytest.mark.parametrize(
    "prompt",
    [
        "",
        "2,5,8=27:",
        "2,5,8,12,13=27:",
        "2,5,8,12=27",
        "2,5,8,12:27=",
        "2, 5, 8, 12=27:",
        "2,5,8,12=27:\n",
        "2,5,8,12=27:" + ANSWER,
        "0,5,8,12=27:",
        "2,5,8,17=27:",
        "2,5,8,12=0:",
        "2,5,8,12=100:",
        "-2,5,8,12=27:",
        "2,5,8,12=2.7:",
        "02,5,8,12=27:",
        "\u0662,5,8,12=27:",
        "2,5,8,12=" + "9" * 5000 + ":",
    ],
    ids=lambda text: ascii(text)[:32],
)
def test_other_text_is_no_problem(prompt):
    """A misread prompt would be scored as some problem that nobody asked."""
    with pytest.raises(ValueError):
        Problem.parse(prompt)


# -- the rules -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "operation", "b", "result"),
    [
        (100, "+", 99, MAX_RESULT),
        (100, "+", 100, None),
        (13, "-", 12, 1),
        (12, "-", 12, None),
        (12, "-", 13, None),
        (199, "*", 1, MAX_RESULT),
        (20, "*", 10, None),
        (12, "/", 4, 3),
        (12, "/", 12, 1),
        (12, "/", 5, None),
        (4, "/", 12, None),
    ],
)
def test_results_at_the_borders(a, operation, b, result):
    """Answers would be right that the problems' lists of answers do not hold."""
    assert result_of(a, operation, b) == result


@pytest.mark.parametrize(
    ("prompt", "answer"),
    [
        ("2,5,8,12=27:", "12+8=20,5+2=7,20+7=27"),
        ("2,5,8,12=27:", "2+5=7,8+12=20,7+20=27"),
        ("2,5,8,12=27:", "12*2=24,8-5=3,24+3=27"),
        ("2,5,8,12=27:", "2*12=24,8-5=3,3+24=27"),
        ("2,5,8,12=27:", "12+5=17,17+2=19,19+8=27"),
        ("2,5,8,12=27:", "5+12=17,2+17=19,8+19=27"),
        ("2,3,4,12=3:", "12/4=3,3/3=1,1+2=3"),
        ("1,1,1,1=4:", "1+1=2,1+1=2,2+2=4"),
        ("4,4,8,12=20:", "12-4=8,8+8=16,16+4=20"),
        ("1,13,13,13=14:", "13*13=169,169/13=13,13+1=14"),
    ],
)
def test_right_answers_are_right(prompt, answer):
    """A model that solves the problem would be told that it does not."""
    assert error_in(Problem.parse(prompt), answer) is None
    assert is_right(Problem.parse(prompt), answer)


WRONG = {
    "not at hand": ("2,5,8,12=27:", "12+9=21,8-2=6,21+6=27", "9 is not at hand"),
    "a number twice": ("2,5,8,12=27:", "12+12=24,8-5=3,24+3=27", "12 is not at hand"),
    "a later number twice": (
        "2,5,8,12=27:",
        "12*2=24,5-2=3,24+3=27",
        "5-2=3: 2 is not at hand",
    ),
    "a result twice": ("2,5,8,12=27:", "5-2=3,3*3=9,9*3=27", "3 is not at hand"),
    "a result too early": (
        "2,5,8,12=27:",
        "20+7=27,12+8=20,5+2=7",
        "20 is not at hand",
    ),
    "a wrong sum": ("2,5,8,12=27:", "12+8=20,5-2=7,20+7=27", "5-2=7 is not so"),
    "a wrong last sum": ("2,5,8,12=27:", "12+8=20,5*2=10,20+10=27", "is not so"),
    "another target": ("2,5,8,12=27:", "12+8=20,5*2=10,20+10=30", "30 is not 27"),
    "a quotient rounded": ("2,5,12,12=26:", "5/2=2,12+12=24,24+2=26", "is not so"),
    "a quotient below 1": ("2,5,12,12=23:", "2/5=1,12+12=24,24-1=23", "is not so"),
    "a fraction": ("2,4,5,8=20:", "5/2=2.5,2.5*4=10,10+8=18", "is no step"),
    "zero": ("3,3,12,12=24:", "3-3=0,12+12=24,24+0=24", "is no step"),
    "a quotient of zero": ("3,3,12,12=24:", "12+12=24,3-3=0,0/24=24", "is no step"),
    "negative": ("2,5,8,12=21:", "5-8=-3,12*2=24,24+-3=21", "is no step"),
    "its sign left out": ("2,5,8,12=27:", "5-8=3,12*2=24,24+3=27", "is not so"),
    "above 199": ("2,4,12,13=78:", "12*13=156,156*2=312,312/4=78", "is not so"),
    "one step": ("2,5,8,12=20:", "12+8=20", "1 steps instead of 3"),
    "two steps": ("1,2,5,12=19:", "12+5=17,17+2=19", "2 steps instead of 3"),
    "four steps": ("2,5,8,12=27:", ANSWER + ",27*1=27", "4 steps instead of 3"),
    "a comma too many": ("2,5,8,12=27:", ANSWER + ",", "4 steps"),
    "no text": ("2,5,8,12=27:", "", "1 steps"),
    "words": ("2,5,8,12=27:", "I, too, wonder", "'I' is no step"),
    "an empty step": ("2,5,8,12=27:", "12+8=20,,20+7=27", "'' is no step"),
    "three terms": ("2,5,8,12=27:", "12+8+5=25,25+2=27,27=27", "is no step"),
    "the problem again": ("2,5,8,12=27:", "2,5,8,12=27:" + ANSWER, "is no try"),
    "nothing, then a try": ("2,5,8,12=27:", ":" + ANSWER, "'' is no try"),
    "a try cut off": ("2,5,8,12=27:", "12+8=20,5+2=7:" + ANSWER, "is no try"),
    "a try too many": ("2,5,8,12=27:", f"{ANSWER}:12+8=20,5-2=3,20+3=23", "23 is not"),
    "a last try cut off": ("2,5,8,12=27:", ANSWER + ":12+8=20", "1 steps"),
    "no last try": ("2,5,8,12=27:", ANSWER + ":", "1 steps"),
    "a leading zero": ("2,5,8,12=27:", "012+8=20,5+2=7,20+7=27", "is no step"),
    "a sign": ("2,5,8,12=27:", "+12+8=20,5+2=7,20+7=27", "is no step"),
    "spaces": ("2,5,8,12=27:", "12+8=20, 5+2=7, 20+7=27", "is no step"),
    "a space at the end": ("2,5,8,12=27:", ANSWER + " ", "is no step"),
    "a new line": ("2,5,8,12=27:", ANSWER + "\n", "is no step"),
    "another minus": ("2,5,8,12=27:", "12*2=24,8\u22125=3,24+3=27", "is no step"),
    "another power": ("2,5,8,12=27:", "12+8=20,5**2=25,25+2=27", "is no step"),
    "other digits": ("2,5,8,12=27:", "12+8=20,5+2=7,20+7=2\u0667", "is no step"),
    "huge result": ("2,5,8,12=27:", "12+8=20,5+2=7,20+7=" + "9" * 5000, ""),
    "huge number": ("2,5,8,12=27:", "9" * 5000 + "+8=20,5+2=7,20+7=27", ""),
}


@pytest.mark.parametrize(("prompt", "answer", "reason"), WRONG.values(), ids=WRONG)
def test_wrong_answers_are_wrong_and_said_why(prompt, answer, reason):
    """A wrong answer would count as solved, or the check would stop the evaluation."""
    problem = Problem.parse(prompt)
    found = error_in(problem, answer)
    assert found is not None and reason in found
    assert not is_right(problem, answer)


# -- against another evaluator -------------------------------------------------------

Step = tuple[Fraction, str, Fraction, Fraction]


def _result(a: Fraction, operation: str, b: Fraction) -> Fraction | None:
    if operation == "/":
        return a / b if b else None
    return {"+": a + b, "-": a - b, "*": a * b}[operation]


def _allowed(result: Fraction) -> bool:
    return result.denominator == 1 and 1 <= result <= MAX_RESULT


def _solves(problem: Problem, steps: list[Step]) -> bool:
    """Whether `steps` solve the problem, in exact fractions and on a list."""
    at_hand = [Fraction(number) for number in problem.numbers]
    for a, operation, b, result in steps:
        for number in (a, b):
            if number not in at_hand:
                return False
            at_hand.remove(number)
        if not _allowed(result) or _result(a, operation, b) != result:
            return False
        at_hand.append(result)
    return at_hand == [problem.target]


def _random_steps(problem: Problem, rng: random.Random) -> list[Step]:
    """Three steps with numbers at hand and true sums, most within the rules."""
    at_hand = [Fraction(number) for number in problem.numbers]
    steps = []
    while len(at_hand) > 1:
        a, b = rng.sample(at_hand, 2)
        operation = rng.choice("+-*/")
        result = _result(a, operation, b)
        if result is None or (not _allowed(result) and rng.random() < 0.97):
            continue
        at_hand.remove(a)
        at_hand.remove(b)
        at_hand.append(result)
        steps.append((a, operation, b, result))
    return steps


def _mutate(steps: list[Step], rng: random.Random) -> list[Step]:
    """`steps` with something changed that may or may not matter."""
    steps = list(steps)
    place = rng.randrange(len(steps))
    a, operation, b, result = steps[place]
    match rng.randrange(8):
        case 0:
            steps[place] = (b, operation, a, result)
        case 1:
            steps[place] = (a, rng.choice("+-*/"), b, result)
        case 2:
            steps[place] = (a, operation, b, result + rng.choice((-1, 1)))
        case 3:
            steps[place] = (a + rng.choice((-1, 1)), operation, b, result)
        case 4:
            steps[place] = (a, operation, Fraction(rng.randint(0, 13)), result)
        case 5:
            rng.shuffle(steps)
        case 6:
            del steps[place]
        case 7:
            steps.insert(place, steps[rng.randrange(len(steps))])
    return steps


def _text(steps: list[Step]) -> str:
    return ",".join(f"{a}{operation}{b}={result}" for a, operation, b, result in steps)


def test_the_checker_agrees_with_another():
    """Some way of being wrong, or right, would escape the examples above."""
    rng = random.Random(1)
    seen = Counter()
    for _ in range(6000):
        problem = _random_problem(rng)
        steps = _random_steps(problem, rng)
        last = steps[-1][3]
        if last.denominator == 1 and 1 <= last <= MAX_TARGET and rng.random() < 0.95:
            problem = Problem(problem.numbers, int(last))
        mutated = rng.random() < 0.6
        if mutated:
            steps = _mutate(steps, rng)
        right = _solves(problem, steps)
        assert is_right(problem, _text(steps)) == right, (problem, _text(steps))
        seen[mutated, right] += 1
    assert len(seen) == 4 and min(seen.values()) > 200, seen


# -- telling answers apart -----------------------------------------------------------

SAME = [
    [
        "12+8=20,5+2=7,20+7=27",
        "8+12=20,2+5=7,7+20=27",
        "5+2=7,12+8=20,20+7=27",
        "2+5=7,8+12=20,7+20=27",
    ],
    ["12-8=4,5*4=20,20+3=23", "12-8=4,4*5=20,3+20=23"],
    ["12-8=4,9-5=4,4+4=8", "9-5=4,12-8=4,4+4=8"],
    ["12-8=4,9-5=4,4/4=1", "9-5=4,12-8=4,4/4=1"],
]


@pytest.mark.parametrize("answers", SAME, ids=lambda answers: answers[0])
def test_the_same_sum_has_one_expression(answers):
    """Samples that differ in their writing alone would count as different answers."""
    assert len({expression(answer) for answer in answers}) == 1


def test_the_same_sum_has_one_expression_at_random():
    """As above, for sums that nobody thought of."""
    rng = random.Random(2)
    swapped = 0
    for _ in range(400):
        steps = _random_steps(_random_problem(rng), rng)
        if not all(_allowed(result) for *_, result in steps):
            continue
        other = [
            (b, operation, a, result)
            if operation in "+*" and rng.random() < 0.5
            else (a, operation, b, result)
            for a, operation, b, result in steps
        ]
        first, second, _ = steps
        # Where a result is also a number of the other step, the order says which of
        # two equal numbers is meant.
        apart = first[3] not in second[0:3:2] and second[3] not in first[0:3:2]
        if apart:
            other[0], other[1] = other[1], other[0]
            swapped += 1
        assert expression(_text(steps)) == expression(_text(other)), _text(steps)
    assert swapped > 100


@pytest.mark.parametrize(
    ("answer", "other"),
    [
        ("12+8=20,5+2=7,20+7=27", "8+2=10,12+5=17,17+10=27"),
        ("12+8=20,5+2=7,20+7=27", "12+8=20,20+5=25,25+2=27"),
        ("12+8=20,5+2=7,20+7=27", "12*2=24,8-5=3,24+3=27"),
        ("4*2=8,8-5=3,3*1=3", "4*2=8,8-5=3,3/1=3"),
        ("2+2=4,4-3=1,5-1=4", "2*2=4,4-3=1,5-1=4"),
        ("12-8=4,8-5=3,4*3=12", "12-8=4,8-5=3,4+3=7"),
    ],
)
def test_different_sums_have_different_expressions(answer, other):
    """Two ways to the target would count as one."""
    assert expression(answer) != expression(other)


def test_expression_shows_the_sum():
    """The example of its docstring."""
    assert expression("12-8=4,5*4=20,20+3=23") == "(((12-8)*5)+3)"


@pytest.mark.parametrize("answer", ["", "12-8", "12-8=4,", "twelve", "2,5,8,12=27:"])
def test_junk_has_no_expression(answer):
    """Junk would count as one more way to the target."""
    with pytest.raises(ValueError, match="expected steps as 12-8=4"):
        expression(answer)
