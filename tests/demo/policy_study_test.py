"""The table of all policies: what is in it, and what its numbers are."""

from dataclasses import replace

import jaxmoe
from jaxmoe.demo.policy_study import BASE, TOGETHER, draw_of, rows, table_of
from jaxmoe.evals.run import Run
from jaxmoe.evals.summary import scores_of
from jaxmoe.evals.votes import AGGREGATIONS, CERTAINTY
from jaxmoe.router.modifiers import MODIFIERS
from jaxmoe.router.policies import POLICIES, for_model
from tests.evals.compare_test import RIGHT, run_of

SAMPLER = "TokenSampler(temperature=0.7)"


def test_every_policy_has_a_row_that_fits():
    """A policy would be left out, or the run fail after its first hour."""
    config = jaxmoe.load("demo").config
    found = rows(config.num_layers, config.num_experts, 8)
    assert next(iter(found)) == BASE
    kinds = set()
    for row in found.values():
        for own in draw_of(row, 8, 16, most=24).policies:
            policy = for_model(own, config, several=True)
            kinds |= {
                type(policy),
                type(policy.of_pass),
                type(getattr(policy, "policy", 0)),
            }
    assert kinds >= {*POLICIES.values(), *MODIFIERS.values()}
    assert {row.alpha for row in found.values()} > {1.0}


def certain(run: Run) -> Run:
    """`run`, whose later answers are the more certain ones."""
    records = tuple(
        tuple(replace(r, self_certainty=1.0 + r.sample) for r in row)
        for row in run.records
    )
    return replace(run, records=records)


def cells_of(line: str) -> list[str]:
    """The cells of a line of a table."""
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_a_row_says_what_its_answers_are_worth():
    """A measure in another column, or a difference from another row."""
    base = run_of([[RIGHT, "a"], ["a", "a"], ["b", RIGHT]], sampler=SAMPLER)
    other = run_of([[RIGHT, RIGHT], ["a", "a"], ["b", RIGHT]], sampler=SAMPLER)
    runs = {BASE: certain(base), "x": certain(other)}
    table = table_of(runs)
    assert table.startswith("3 problems of 3 sets of numbers, 2 answers each, Token")
    head, _, first, second = map(cells_of, table.splitlines()[2:6])
    scores = scores_of(runs[BASE])
    by_score = [a for a in AGGREGATIONS if a.takes(CERTAINTY, scores[CERTAINTY])]
    named = [a.measure.format(n=2, score=CERTAINTY) for a in by_score]
    assert {*named, "majority vote of 2", "pass@2"} <= {*head} and len(named) == 4
    *_, rivals, _, _, ways, both = map(cells_of, table.splitlines())
    less, together = (dict(zip(rivals, row, strict=True)) for row in (ways, both))
    # x: the vote is right on 1, 0 and a half, the later answers on 1, 0 and 1.
    best = f"best of 2, {CERTAINTY}"
    assert less["policy"] == "x" and less[best].startswith("+16.7")
    assert less["accuracy"].startswith("+0.0") and "pass@2" not in less
    # The base's vote is right on a half, 0 and a half, its later answers on 0, 0 and 1.
    assert together["policy"] == TOGETHER and together[best].startswith("+8.3")
    assert "not corrected for their number" in table
    means = [
        dict(zip(head, (cell.split(" ")[0] for cell in row), strict=True))
        for row in (first, second)
    ]
    told = ("policy", "accuracy", "pass@2", "majority vote of 2", best)
    assert [means[0][name] for name in told] == [BASE, "33.3", "66.7", "33.3", "33.3"]
    assert [means[1][name] for name in told] == ["x", "50.0", "66.7", "50.0", "66.7"]
    assert second[-2].startswith("+16.7") and second[-1].startswith("+0.0")
    assert first[-2:] == ["", ""]
