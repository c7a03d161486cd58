"""The table of all policies: what is in it, and what its numbers are."""

from dataclasses import replace

import jaxmoe
from jaxmoe.demo.policy_study import BASE, measures, rows, table_of
from jaxmoe.evals.run import Run
from jaxmoe.router.modifiers import MODIFIERS
from jaxmoe.router.policies import POLICIES, for_model
from tests.evals.compare_test import RIGHT, run_of

SAMPLER = "TokenSampler(temperature=0.7)"


def test_every_policy_has_a_row_that_fits():
    """A policy would be left out, or the run fail after its first hour."""
    config = jaxmoe.load("demo").config
    found = rows(config.num_layers, config.num_experts)
    assert next(iter(found)) == BASE
    kinds = set()
    for row in found.values():
        policy = for_model(row.policy, config, several=True)
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


def test_a_row_says_what_its_answers_are_worth():
    """A measure in another column, or a difference from another row."""
    base = run_of([[RIGHT, "a"], ["a", "a"], ["b", RIGHT]], sampler=SAMPLER)
    other = run_of([[RIGHT, RIGHT], ["a", "a"], ["b", RIGHT]], sampler=SAMPLER)
    table = table_of({BASE: certain(base), "x": certain(other)})
    assert table.startswith("3 problems of 3 sets of numbers, 2 answers each, Token")
    lines = [line.strip("|").split("|") for line in table.splitlines()[2:]]
    head, _, first, second = ([cell.strip() for cell in line] for line in lines)
    assert head[1:7] == list(measures(2))
    means = [[cell.split(" ")[0] for cell in row] for row in (first, second)]
    assert means[0] == [BASE, "33.3", "66.7", *["33.3"] * 4, "", ""]
    of_other = ["50.0", "66.7", "50.0", "66.7", "66.7", "33.3"]
    assert means[1] == ["x", *of_other, "+16.7", "+0.0"]
