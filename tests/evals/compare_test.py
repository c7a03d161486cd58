"""Summaries and comparisons of made-up runs, against sums done by hand."""

from dataclasses import replace

import numpy as np
import pytest

from jaxmoe.evals.compare import SOLVED, UNSOLVED, _split, compare
from jaxmoe.evals.grading import VERSION, grading_of
from jaxmoe.evals.metrics import pass_at
from jaxmoe.evals.records import Record
from jaxmoe.evals.run import Run, pack_routes
from jaxmoe.evals.significance import holm, permutation_test
from jaxmoe.evals.summary import (
    ACCURACY,
    LOGPROB,
    LOGPROB_SUM,
    MAJORITY,
    budgets,
    majority_of,
    route_overlap,
    scores_of,
    summarise,
    values_of,
)
from jaxmoe.evals.tasks.aime import Aime
from jaxmoe.evals.votes import CONFIDENCE

RIGHT = "R"


def record(j: int, i: int, answer: str | None, mean: float, **more) -> Record:
    """An answer of four tokens that is right if it says so."""
    given = {
        "problem": f"p{j}",
        "sample": i,
        "key": (0, j, i),
        "text": f"text {answer}",
        "finish": "stop",
        "answer": answer,
        "correct": answer == RIGHT,
        "length": 4,
        "logprob_sum": 4 * mean,
        "logprob_mean": mean,
        "details": {"strict": answer == RIGHT, "note": "n"},
    }
    return Record(**(given | more))


def run_of(answers: list[list[str | None]], name: str = "base", **manifest) -> Run:
    """A run in which answer i's mean log-probability is -1 - i."""
    problems, n = len(answers), len(answers[0])
    ids = tuple(f"p{j}" for j in range(problems))
    about = {
        "task": "exact",
        "data": {"sha256": "0"},
        "n": n,
        "problems": list(ids),
        "groups": list(ids),
        "prompts": [f"prompt {id}" for id in ids],
        "references": [RIGHT] * problems,
        "policy": "TopK()",
    }
    records = tuple(
        tuple(record(j, i, answer, -1.0 - i) for i, answer in enumerate(row))
        for j, row in enumerate(answers)
    )
    return Run(name, about | manifest, ids, records)


BASE = run_of([[RIGHT, RIGHT, "a", "b"], ["a", "a", RIGHT, None], ["x", "y", "z", "x"]])
OTHER = run_of(
    [[RIGHT, RIGHT, RIGHT, "b"], ["a", "b", "c", "a"], ["x", "y", "z", RIGHT]], "es"
)


@pytest.mark.parametrize(
    ("n", "expected"), [(1, (1,)), (4, (1, 2, 4)), (6, (1, 2, 4, 6))]
)
def test_budgets(n, expected):
    """pass@n of all answers would be missing, or more asked for than there are."""
    assert budgets(n) == expected


def test_values_are_those_done_by_hand():
    """A table would show another measure than it names."""
    values = values_of(BASE, {LOGPROB: BASE.logprob_mean})
    assert values[ACCURACY].tolist() == [0.5, 0.25, 0.0]
    # Two votes of four; "a" wins; "x" wins.
    assert values[majority_of(4)].tolist() == [1.0, 0.0, 0.0]
    # The first answer has the highest log-probability.
    assert values[f"best of 4, {LOGPROB}"].tolist() == [1.0, 0.0, 0.0]
    # exp(-1) + exp(-2) against exp(-3), exp(-4); "a" is first and second.
    assert values[f"vote by sum, {LOGPROB}"].tolist() == [1.0, 0.0, 0.0]
    # -1.5 on average against -3 and -4; -1.5 against -3; x is first.
    assert values[f"vote by mean, {LOGPROB}"].tolist() == [1.0, 0.0, 0.0]
    np.testing.assert_array_equal(values["pass@2"], pass_at(np.array([2, 1, 0]), 4, 2))
    assert values["pass@4"].tolist() == [1.0, 1.0, 0.0]


def test_log_probabilities_are_summed_as_probabilities():
    """Sums of negative scores would make every further vote count against an answer,
    and those of long answers be 0 throughout."""
    one = run_of([["a", RIGHT, RIGHT, RIGHT]])
    found = values_of(one, {LOGPROB: np.full((1, 4), -1.0)})
    assert found[f"vote by sum, {LOGPROB}"].tolist() == [1.0]
    long = np.array([[-1200.0, -900.0, -910.0, -905.0]])
    found = values_of(one, {LOGPROB_SUM: long})
    assert found[f"vote by sum, {LOGPROB_SUM}"].tolist() == [1.0]


def test_negative_scores_of_others_are_only_averaged():
    """Three votes at -1 would lose against one at -2.5."""
    one = run_of([["a", RIGHT, RIGHT, RIGHT]])
    found = values_of(one, {"reward": np.array([[-2.5, -1.0, -1.0, -1.0]])})
    assert found["vote by mean, reward"].tolist() == [1.0]
    assert "vote by sum, reward" not in found


def test_confidences_vote_where_there_are_some():
    """DeepConf would be missing beside the votes, or filter by another score."""
    rows = [[RIGHT, "a", "a", "a"]]
    one = run_of(rows)
    pairs = zip(one.records[0], (9.0, 1.0, 1.0, 1.0), strict=True)
    one = replace(one, records=(tuple(replace(r, confidence=c) for r, c in pairs),))
    found = values_of(one, scores_of(one))
    assert found[f"vote of the surest 10 %, {CONFIDENCE}"].tolist() == [1.0]
    assert found[f"vote of the surest 90 %, {CONFIDENCE}"].tolist() == [1.0]
    assert found[f"vote by sum, {CONFIDENCE}"].tolist() == [1.0]
    assert found[majority_of(4)].tolist() == [0.0]
    assert not any("surest" in name for name in values_of(BASE, scores_of(BASE)))


def test_a_summary_holds_all_numbers():
    """The printed shares would be those of other answers."""
    found = summarise(BASE, resamples=200)
    assert found.measures[ACCURACY].mean == pytest.approx(0.25)
    assert found.right == (2, 1, 0)
    assert found.numbers["share without an answer"] == pytest.approx(1 / 12)
    assert found.numbers["share strict"] == pytest.approx(3 / 12)
    assert "share note" not in found.numbers
    assert found.numbers["distinct answers"] == pytest.approx((3 + 2 + 3) / 3)
    assert found.numbers["distinct right answers"] == pytest.approx(2 / 3)
    assert found.numbers["mean tokens"] == 4
    assert found.curves["pass@k"].ks == (1, 2, 4)
    means = [interval.mean for interval in found.curves["pass@k"].intervals]
    assert means == [found.measures[m].mean for m in (ACCURACY, "pass@2", "pass@4")]
    majority = found.curves["majority@k"].intervals[-1].mean
    assert majority == pytest.approx(found.measures[majority_of(4)].mean)
    assert "prompts" not in found.about and found.about["policy"] == "TopK()"


def test_overlap_of_routes_is_the_mean_over_problems_and_pairs():
    """Answers that went the same way would look diverse, or the reverse."""
    one, other = [[[0, 1]], [[2, 3]]], [[[0, 2]], [[2, 3]]]
    first = [[[7, 8]]]  # of the prompt's last token: not looked at
    kept = {"same": (one, one), "apart": (one, other)}
    for name, expected in (("same", 1.0), ("apart", (1 / 3 + 1) / 2)):
        packed = [pack_routes(np.array(first + r, np.int16)) for r in kept[name]]
        rows = tuple(
            tuple(record(j, i, "a", -1.0, routes=packed[i], length=3) for i in range(2))
            for j in range(3)
        )
        run = replace(run_of([["a", "a"]] * 3), records=rows)
        assert route_overlap(run) == {0: pytest.approx(expected)}
        found = summarise(run, resamples=200).numbers
        assert found["route overlap (Jaccard), layer 0"] == pytest.approx(expected)
    assert not route_overlap(BASE)


def test_one_answer_each():
    """A greedy run would fail, or be given a vote of one."""
    found = summarise(run_of([[RIGHT], ["a"]]), resamples=200)
    assert set(found.measures) == {ACCURACY} and not found.curves


def test_scores_that_are_not_there_are_left_out():
    """Best of n would be reported of answers without a score."""
    records = tuple(
        tuple(replace(r, logprob_mean=None, logprob_sum=None) for r in row)
        for row in BASE.records
    )
    found = summarise(replace(BASE, records=records), resamples=200)
    assert not any("log-prob" in name for name in found.measures)
    more = {"verifier": np.arange(12.0).reshape(3, 4)}
    found = summarise(BASE, scores=more, resamples=200)
    assert found.measures["best of 4, verifier"].mean == 0.0
    assert "best of k, verifier" in found.curves


def test_differences_are_the_other_run_less_the_baseline():
    """A gain would be reported as a loss."""
    found = compare([BASE, OTHER])
    by_name = {d.measure: d for d in found.differences}
    accuracy = by_name[ACCURACY]
    assert (accuracy.a, accuracy.b) == ("base", "es")
    assert accuracy.interval.mean == pytest.approx((0.25 - 0.25 + 0.25) / 3)
    assert 0 < accuracy.p_value <= 1 and accuracy.exact
    assert by_name["pass@4"].interval.mean == pytest.approx(0.0)
    # By answers 0 and 2 the first two are solved; answers 1 and 3 are held apart.
    solved = [0.5 - 0.5, 0.0 - 0.0]
    assert by_name[f"{SOLVED} base"].interval.mean == pytest.approx(np.mean(solved))
    assert by_name[f"{UNSOLVED} base"].interval.mean == pytest.approx(0.5 - 0.0)
    rates = [run.measures[f"{SOLVED} base"].mean for run in found.runs]
    assert rates == pytest.approx([0.25, 0.25])
    expected = holm([d.p_value for d in found.differences])
    assert [d.adjusted for d in found.differences] == pytest.approx(expected)


def test_a_policy_is_no_worse_on_what_its_like_solved():
    """Luck that chose the problems would be taken for a loss on them."""
    generator, low = np.random.default_rng(0), 0
    for _ in range(40):
        rate = generator.uniform(size=(64, 1))
        drawn = [generator.uniform(size=(64, 8)) < rate for _ in range(2)]
        runs = [
            run_of([[RIGHT if r else "a" for r in row] for row in marks], name)
            for name, marks in zip(("base", "es"), drawn, strict=True)
        ]
        solved = runs[0].correct[:, ::2].mean(axis=1) >= 0.5
        parts = [_split(run, solved, "base") for run in runs]
        one, other = (part[f"{SOLVED} base"][0] for part in parts)
        low += permutation_test(other, one).p_value < 0.05
    assert low <= 7  # binomial(40, 0.05): 2 expected, more than 7 in 1 of 1000


def test_scores_are_cut_to_the_problems_that_all_runs_have():
    """A verifier's score would be counted for another problem's answer."""
    few = run_of([["x", "y", "z", RIGHT], ["a", "b", "c", "a"]], "few")
    few = replace(
        few,
        ids=("p2", "p1"),
        manifest=dict(few.manifest) | {"problems": ["p2", "p1"]},
        records=tuple(
            tuple(replace(r, problem=id) for r in row)
            for id, row in zip(("p2", "p1"), few.records, strict=True)
        ),
    )
    scores = {"few": {"mine": np.array([[0, 0, 0, 1.0], [0, 0, 0, 0]])}}
    found = compare([BASE, few], scores=scores)
    assert found.problems == ("p1", "p2")
    assert found.runs[1].right == (0, 1)
    assert found.runs[1].measures["best of 4, mine"].mean == pytest.approx(0.5)


def test_runs_of_other_numbers_of_answers():
    """pass@4 or a vote of four would be held against that of two answers."""
    few = run_of([row[:2] for row in (["a", RIGHT], ["a", "b"], [RIGHT, "z"])], "few")
    found = compare([BASE, few])
    names = [d.measure for d in found.differences]
    assert names[:2] == [ACCURACY, "pass@2"]
    assert "pass@4" not in names and not any(MAJORITY in name for name in names)


def test_what_compare_refuses():
    """Runs would be mixed up in the table, or compared over other questions."""
    with pytest.raises(ValueError, match="at least one run"):
        compare([])
    with pytest.raises(ValueError, match="'base' twice|base twice"):
        compare([BASE, BASE])
    with pytest.raises(ValueError, match="one task"):
        compare([BASE, run_of([["a"] * 4] * 3, "es", task="aime")])


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": 2}, f"version: {VERSION} base, 2 other"),
        ({"versions": {"jaxmoe": "1", "sympy": "0"}}, "versions.sympy"),
        ({"isolation": "none", "versions": {"jaxmoe": "0"}}, None),
    ],
)
def test_compare_warns_of_other_graders(change, said, recwarn):
    """A difference between graders would pass for one between models."""
    grading = grading_of(Aime())
    runs = [
        replace(BASE, name="base", grading=grading),
        replace(BASE, name="other", grading=grading | change),
    ]
    compare(runs)
    found = [str(warning.message) for warning in recwarn]
    assert len(found) == (said is not None)
    assert all(said in text and "\n" not in text for text in found)
