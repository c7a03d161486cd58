"""What made-up answers say of a recipe's claims, beside published figures."""

import numpy as np

from jaxmoe.evals.replication.recipe import read_recipe
from jaxmoe.evals.replication.results import VERIFIER, replicated
from tests.evals.compare_test import RIGHT, run_of

P = 24
MODEL, BENCHMARK = "qwen3-30b-a3b-instruct-2507", "gpqa-diamond"


def runs_of(**right):
    """Rows of P problems, four answers each, so many of which are right."""
    return {
        name: run_of([[RIGHT] * count + ["a"] * (4 - count)] * P, name)
        for name, count in right.items()
    }


def result(recipe, **options):
    """A recipe's results with four answers a problem."""
    given = {"model": MODEL, "benchmark": BENCHMARK, "n": 4}
    return replicated(read_recipe(recipe), **given | options)


def verdicts(found):
    """Measure -> what is said of the claim about it."""
    return {j.claim.measure: j.found and j.found.verdict for j in found.judged}


def test_claims_are_judged_by_their_rows():
    """A verdict would be of other rows, or of the opposite."""
    runs = runs_of(normal=0, **{"normal-es": 4})
    scores = {
        name: {VERIFIER: np.arange(4 * P, dtype=float).reshape(P, 4)} for name in runs
    }
    found = result("verification", runs=runs, scores=scores)
    told = verdicts(found)
    assert told["best of 4, verifier"] == told["pass@4"] == "yes"
    best = next(j for j in found.judged if j.claim.measure.startswith("best of"))
    assert best.found is not None and best.found.difference.mean == 1
    assert best.found.adjusted > best.found.p_value
    assert best.stated is not None and best.stated.startswith("+3.5 (59.1 to 62.6)")
    swapped = runs_of(normal=4, **{"normal-es": 0})
    found = result("verification", runs=swapped, scores=scores)
    assert {*verdicts(found).values()} == {"no"}


def test_what_is_not_there_is_not_judged():
    """A claim without answers would hold, or end a report."""
    found = result("verification", runs=runs_of(normal=2, **{"normal-es": 2}))
    told = verdicts(found)
    assert told["best of 4, verifier"] is None and told["pass@4"] == "cannot be told"
    found = result("pass-at-n", runs=runs_of(normal=2))
    assert {*verdicts(found).values()} == {None}
    assert [run.name for run in found.comparison.runs] == ["normal"]


def test_published_figures_are_of_the_same_cell():
    """Another model's or benchmark's figures would stand beside one's own."""
    runs = runs_of(normal=2, **{"normal-es": 2})
    found = result("pass-at-n", runs=runs)
    figures = {place: figure.percent for place, figure in found.figures.items()}
    cells = ("normal", "pass@32"), ("normal-es", "pass@32")
    assert figures == dict(zip(cells, (85.4, 91.9), strict=True))
    assert not result("pass-at-n", runs=runs, model=None).figures
    assert not result("pass-at-n", runs=runs, benchmark="aime-120").figures
    assert any(judged.stated for judged in found.judged)
    unknown = result("pass-at-n", runs=runs, model=None)
    assert not any(judged.stated for judged in unknown.judged)
