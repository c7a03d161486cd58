"""`jaxmoe list`: all that the registries hold."""

import json
from typing import get_args

import pytest

from jaxmoe.benchmarks.presets import PRESETS
from jaxmoe.cli.list import KINDS, main
from jaxmoe.evals.replication.recipe import recipe_names
from jaxmoe.evals.summary import AGREEMENT
from jaxmoe.evals.tasks import TASKS
from jaxmoe.evals.votes import AGGREGATIONS
from jaxmoe.families.registry import FAMILIES
from jaxmoe.router.modifiers import MODIFIERS
from jaxmoe.router.policies import POLICIES
from jaxmoe.sharding.rules import Preset

NAMES = {
    "policies": [*POLICIES, *MODIFIERS],
    "tasks": ["countdown", *TASKS],
    "families": [*FAMILIES],
    "aggregations": [
        *(one.measure.format(n="n", score="SCORE") for one in AGGREGATIONS),
        f"best of n, {AGREEMENT}",
    ],
    "recipes": recipe_names(),
    "presets": [*PRESETS, *get_args(Preset)],
}


def test_what_is_said_of_votes_is_their_own(capsys):
    """A vote by mean would be said to add up scores."""
    assert main(["aggregations", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    said = {row["measure"]: row["what it measures"] for row in rows}
    assert "add up" in said["vote by sum, SCORE"]
    assert "average" in said["vote by mean, SCORE"]


@pytest.mark.parametrize("kind", KINDS)
def test_everything_is_listed(kind, capsys):
    """A policy or a task would be there that nobody finds, or listed and not there."""
    column = "preset" if kind == "presets" else None
    assert main([kind, "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row[column or next(iter(row))] for row in rows] == NAMES[kind]
    assert all(row.values() for row in rows)
    assert main([kind]) == 0
    head, _, *lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(rows)
    for line, row in zip(lines, rows, strict=True):
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        assert cells == [*row.values()]
    assert head.count("|") == lines[0].count("|")
