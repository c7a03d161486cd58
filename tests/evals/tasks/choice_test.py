"""Multiple choice: which letter is read, what it means, and how choices are shown."""

import itertools
import time
from collections import Counter

import pytest

from jaxmoe.evals.tasks.choice import gpqa, mcq, order_of
from jaxmoe.evals.tasks.letters import flexible_choice, strict_choice

CITIES = ["Rome", "Paris", "Oslo", "vitamin C"]


def _row(**row):
    return {"question": "Capital of France?", "choices": CITIES, "answer": 1, **row}


def _mcq(**row):
    return mcq().question(_row(**row), id="a", seed=0, template=None)


def _gpqa(id="a", seed=0, **row):
    return gpqa().question(_row(**row), id=id, seed=seed, template=None)


# -- the strict rule -----------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "Answer: B",
        "ANSWER: B",
        "answer:B.",
        "Answer: $B$",
        "Answer: $B",
        "Answer : (B)",
        "Answer: B) Paris",
        "Answer: b",
        "Answer: b\nDone.",
        "Answer: (b) Paris",
        "**Answer:** B",
        "**Answer**: **B**",
        "**Answer: B**",
        "Final Answer: [B]",
        "Answer: Option B",
        r"Answer: \text{B}",
        r"Answer: $\mathbf{(B)}$",
        r"Answer: \boxed{B}",
        '{"answer": "B"}',
        "Answer：B",
        "Answer: B because it is.",
        r"\boxed{B}",
        r"\boxed{b}",
        r"\boxed{\text{(B)}}",
        r"\boxed{\textbf{B) Paris}}",
        r"\boxed{B. Paris}",
        r"$\boxed{\text{Option B}}$",
        r"\boxed B",
        "Answer: A\nNo. Answer: B",
        "Answer: A\n\\boxed{B}",
        "\\boxed{A}\nAnswer: B",
        r"\boxed{B} as asked in \boxed{}",
        "Answer: B\nThe last line is 'Answer: $LETTER'.",
        "Answer: B\n(A) is wrong.",
    ],
)
def test_strict_reads(text):
    """An answer in the form that was asked for would be wrong."""
    assert strict_choice(text, 4) == 1


@pytest.mark.parametrize(
    "text",
    [
        "",
        "B",
        "**B**",
        "The answer is B.",
        "(B)",
        "Answer: E",
        "Answer: Because",
        "Answer: a circle",
        "Answer: B's",
        "Answer: B-side",
        "Answer: A-level",
        "Answer: A circle",
        "Answer: B or C",
        "Answer: B, C",
        "Answer: (B) and (C)",
        "Answer:",
        r"\boxed{E}",
        r"\boxed{B, C}",
        r"\boxed{Paris}",
        r"\boxed{B",
        "answering: B",
        "Answer:\nA\nB\nC\nD",
        "Answer:\n(A)\n(B)",
        "Answer:\nA. 3\nB. 4\n\nI choose B",
        "Answer:\nB) Paris",
    ],
)
def test_strict_reads_nothing_else(text):
    """The score of the form asked for would hold guesses at what was meant."""
    assert strict_choice(text, 4) is None


def test_letters_follow_the_number_of_choices():
    """An E of four choices would be an index past the last."""
    assert strict_choice("Answer: E", 5) == 4
    assert strict_choice("Answer: Z", 26) == 25
    assert strict_choice("Answer: C", 2) is None
    assert strict_choice("Answer: A\nAnswer: C", 2) == 0


@pytest.mark.parametrize(
    "text",
    [
        "Answer: I think the answer is B",
        "Answer: I am unsure.",
        "Answer: I'm unsure.",
        "**Answer:** I would say so",
        "Answer: A good question",
    ],
)
def test_words_of_one_letter_are_no_choice(text):
    """With 9 choices or more, whoever says "I" would choose the ninth."""
    assert strict_choice(text, 9) is None
    assert strict_choice(text, 26) is None


@pytest.mark.parametrize(
    "form",
    [
        "Answer: {}",
        "Answer: {}.",
        "Answer: {}, because",
        "Answer: {}. Paris",
        "Answer: {}: Paris",
        "Answer: {}\r\nDone.",
        "Answer: {}\nDone.",
        "Answer: ({}) Paris",
        "Answer: **{}** because",
        "Answer: {}) Paris",
        "Answer: {} (Paris)",
        "Answer: {}</answer>",
        "Answer: $\\mathbf{{{}}}$",
        "Answer: Option {} because",
    ],
)
def test_letters_that_are_words_are_read_where_they_are_none(form):
    """The first and the ninth choice would be right less often than the others."""
    assert strict_choice(form.format("A"), 9) == 0
    assert strict_choice(form.format("B"), 9) == 1
    assert strict_choice(form.format("I"), 9) == 8


# -- the flexible rule ---------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "The answer is (B).",
        "the correct answer is B",
        "The answer is: **B**",
        "So the best option is B, as shown.",
        r"The answer is $\boxed{\text{B}}$, I think",
        "Thus option B is correct. (A) is not.",
        "Option (B) is the best one",
        "Answer:\n\nB",
        "**B**",
        "B",
        "B.",
        "I choose B",
        "Surely (B) it is",
        "Paris",
        "It must be:\n  paris.",
        "**Paris**",
        "B) Paris",
        "(B) Paris",
        r"\boxed{Paris}",
        r"\boxed{\text{B: Paris}}",
        "The answer is Paris.",
        "Answer: Paris",
    ],
)
def test_flexible_reads(text):
    """An answer that a person would understand would get no vote."""
    assert flexible_choice(text, CITIES) == 1


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("vitamin C", 3),
        ("The answer is vitamin C.", 3),
        ("The answer is Vienna", None),
        ("The answer is not known", None),
        ("the answer is a city", None),
        ("option B is incorrect", None),
        ("Paris or Rome", None),
        ("Plan Z", None),
        ("", None),
        (" \n ", None),
    ],
)
def test_flexible_does_not_read_letters_into_words(text, place):
    """The C of a vitamin would be a choice, or "a" the first one."""
    assert flexible_choice(text, CITIES) == place


def test_flexible_reads_words_of_one_letter_where_they_are_choices():
    """ "Option A is correct" would be none, or "the answer is I think" the ninth."""
    choices = [f"number {i}" for i in range(9)]
    assert flexible_choice("The answer is A because it is.", choices) == 0
    assert flexible_choice("Option A is correct, I think", choices) == 0
    assert flexible_choice("Option I is correct, I think", choices) == 8
    assert flexible_choice("The answer is I think number 2, or so", choices) is None
    assert flexible_choice("Answer: A circle", ["x", "a circle"]) == 1


def test_text_of_two_choices_is_none():
    """One of two choices that read the same would be taken at random."""
    assert flexible_choice("same", ["same", "same", "other"]) is None
    assert flexible_choice("other", ["same", "same", "other"]) == 2


@pytest.mark.thorough
@pytest.mark.parametrize(
    "piece",
    [
        "Answer: ",
        "answer" + " " * 20,
        "Answer: " + "*" * 30,
        "(A) ",
        "\\boxed{A",
        "\\boxed{A} ",
        "option (B) is ",
        "the answer is \\text{",
        "a",
        " ",
        "\n",
        "**",
    ],
    ids=repr,
)
def test_time_is_linear(piece):
    """One bad answer would hold up a run for hours."""
    text = piece * (100_000 // len(piece))
    question = _mcq()
    start = time.process_time()
    mcq().grade(question, text)
    mcq().grade(question, text + "x")
    assert time.process_time() - start < 4  # quadratic: 10 s or more


# -- grades --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "answer", "strict", "flexible"),
    [
        ("Answer: B", "1", True, True),
        ("Answer: C", "2", False, False),
        ("The answer is (B).", None, False, True),
        ("The answer is (C).", None, False, False),
        ("Answer: C\nNo, the answer is B.", "2", False, False),
        ("", None, False, False),
    ],
)
def test_grade(text, answer, strict, flexible):
    """The rules would be mixed up, or a majority be right with no answer that is."""
    grade = mcq().grade(_mcq(), text)
    assert grade.answer == answer
    assert grade.details == {"strict": strict, "flexible": flexible}
    assert grade.correct == strict


def test_votes_count_choices_and_not_letters():
    """Votes of two questions' orders, or two seeds, would not be of one thing."""
    for seed in range(10):
        question = _gpqa(seed=seed)
        shown = question.details["choices"]
        for letter, text in zip("ABCD", shown, strict=True):
            grade = gpqa().grade(question, f"Answer: {letter}")
            assert grade.answer == str(CITIES.index(text))
            assert grade.correct == (text == "Paris")


# -- questions -----------------------------------------------------------------------


def test_prompt_shows_letters():
    """The model would not see which letter stands for what."""
    prompt = _mcq().prompt
    assert prompt.endswith("A) Rome\nB) Paris\nC) Oslo\nD) vitamin C")
    assert "LETTER is one of ABCD." in prompt
    assert "\n\nCapital of France?\n\n" in prompt


def test_gpqa_prompt_follows_its_order():
    """The right letter would be graded against another order than the one shown."""
    question = _gpqa()
    order = question.details["order"]
    assert tuple(order) == order_of(4, 0, "a") != (0, 1, 2, 3)
    lines = question.prompt.splitlines()[-4:]
    assert lines == [f"{'ABCD'[n]}) {CITIES[i]}" for n, i in enumerate(order)]


def test_gpqa_reads_the_data_sets_own_columns():
    """The published file would have to be rewritten by hand."""
    row = {
        "Question": "Capital of France?",
        "Correct Answer": "Paris\n",
        "Incorrect Answer 1": "Rome",
        "Incorrect Answer 2": "Oslo",
        "Incorrect Answer 3": "Bonn",
    }
    question = gpqa().question(row, id="a", seed=0, template=None)
    letter = "ABCD"[question.details["choices"].index("Paris")]
    assert gpqa().grade(question, f"Answer: {letter}").correct
    with pytest.raises(ValueError, match="Incorrect Answer 3"):
        del row["Incorrect Answer 3"]
        gpqa().question(row, id="a", seed=0, template=None)
    with pytest.raises(ValueError, match='"choices"'):
        mcq().question({**row, "question": "?"}, id="a", seed=0, template=None)


def _lettered(answer="C", **columns):
    row = {"Question": "Which?", "answer": answer, **columns}
    return mcq().question(row, id="a", seed=0, template=None)


@pytest.mark.parametrize("empty", [{}, {"D": None}, {"D": float("nan")}, {"D": " "}])
def test_columns_of_letters_end_with_the_first_empty_one(empty):
    """Questions with fewer choices than others would have one named "nan"."""
    question = _lettered(A=2.0, B=2.5, C="y", **empty)
    assert question.details["choices"] == ["2", "2.5", "y"]
    assert question.answer == 2


@pytest.mark.parametrize("empty", [None, float("nan"), "", " "])
def test_columns_of_letters_have_no_gap(empty):
    """The right choice would be another column than its letter says."""
    with pytest.raises(ValueError, match='empty column "C", found one in "D"'):
        _lettered(A="w", B="x", C=empty, D="y")
    with pytest.raises(ValueError, match='empty column "B", found one in "C"'):
        _lettered(A="w", B=empty, C="y")


@pytest.mark.parametrize("value", [["y"], {"text": "y"}, True])
def test_columns_of_letters_hold_texts_or_numbers(value):
    """A list would be shown as Python writes it."""
    with pytest.raises(ValueError, match='text or a number in the column "C"'):
        _lettered(A="w", B="x", C=value)


def test_a_number_that_means_two_columns_is_refused():
    """1 is the second column, or the one that says 1."""
    for answer in (1, 1.0):
        with pytest.raises(ValueError, match=f"found {answer}, .* write the letter"):
            _lettered(answer, A=1, B=2.0, C=3)
    assert _lettered(1, A=0, B=1, C=2).answer == 1
    assert _lettered("A", A=1, B=2, C=3).answer == 0


@pytest.mark.parametrize("answer", [1, "B", "Paris", " Paris ", 1.0])
def test_answers_of_rows(answer):
    """Data sets write the right choice in all of these ways."""
    assert _mcq(answer=answer).answer == 1


@pytest.mark.parametrize(
    "answer",
    [4, -1, "E", "b", "4", "²", "-1", "Vienna", None, True, 1.5, "1", " 1.0", "0"],
)
def test_answers_that_are_no_choice_are_refused(answer):
    """Every answer would be wrong, or -1 mean the last choice."""
    with pytest.raises(ValueError, match="which is none of them"):
        _mcq(answer=answer)


@pytest.mark.parametrize("answer", ["2", " 2 "])
def test_digits_are_a_choice_where_they_are_its_text(answer):
    """The third choice would be right instead."""
    assert _mcq(choices=["2", "1", "4"], answer=answer).answer == 0
    with pytest.raises(ValueError, match="answer_index"):
        row = {"question": "?", "choices": CITIES, "answerKey": answer}
        mcq().question(row, id="a", seed=0, template=None)


@pytest.mark.parametrize("index", [1, 1.0, "1", " 1.0"])
def test_an_index_may_be_text_in_a_column_of_its_own(index):
    """Tables hold texts alone."""
    row = {"question": "Capital?", "choices": CITIES, "answer_index": index}
    assert mcq().question(row, id="a", seed=0, template=None).answer == 1


@pytest.mark.parametrize("choices", [["B", "A"], ["x", "x"]])
def test_answers_that_mean_two_choices_are_refused(choices):
    """Letter or text would be taken by chance."""
    with pytest.raises(ValueError, match="several of them"):
        _mcq(choices=choices, answer=choices[0])


@pytest.mark.parametrize(
    "choices", [None, "AB", ["a"], ["a", ""], ["a", 1], ["a"] * 27, {"A": "a"}]
)
def test_choices_that_are_none_are_refused(choices):
    """A question without choices, or with more than letters, would be asked."""
    with pytest.raises(ValueError, match="2 to 26 texts"):
        _mcq(choices=choices, answer=0)


# -- orders --------------------------------------------------------------------------


def test_orders_are_those_of_before():
    """Another version would show other orders, and old runs not compare with new."""
    orders = [order_of(4, 0, "a"), order_of(4, 1, "a"), order_of(4, 0, "b")]
    assert orders == [(3, 1, 0, 2), (2, 0, 3, 1), (3, 0, 2, 1)]


def test_orders_are_even():
    """The right choice would stand at some letters more often than at others."""
    counts = Counter(order_of(4, 0, str(i)) for i in range(1200))
    assert set(counts) == set(itertools.permutations(range(4)))
    # Chi-square of 23 degrees of freedom: above 56 once in 10,000.
    assert sum((c - 50) ** 2 / 50 for c in counts.values()) < 56
