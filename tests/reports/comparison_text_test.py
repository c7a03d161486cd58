"""Runs and comparisons as text, and as JSON."""

import json

from jaxmoe.evals.compare import compare
from jaxmoe.reports.comparison_json import comparison_object
from jaxmoe.reports.comparison_text import comparison_text
from tests.evals.compare_test import RIGHT, run_of


def test_text_and_json_hold_the_same():
    """The table would leave a run or a measure out that the JSON has."""
    runs = [
        run_of([["a", RIGHT], [RIGHT, "b"]], name="base"),
        run_of([[RIGHT, RIGHT], [RIGHT, "b"]], name="es"),
    ]
    found = compare(runs)
    text = comparison_text(found)
    held = json.loads(json.dumps(comparison_object(found)))
    assert [run["name"] for run in held["runs"]] == ["base", "es"]
    head, names, *lines = text.splitlines()
    assert head == f"2 problems of {found.task}" and names.split() == ["base", "es"]
    measures = {name for run in held["runs"] for name in run["measures"]}
    for name in measures:
        assert any(line.startswith(name) for line in lines), name
    assert held["differences"]
    for d in held["differences"]:
        said = f"{d['b']} less {d['a']}"
        rows = [line for line in lines if line.startswith(said)]
        assert any(d["measure"] in row and f"{d['p_value']:.3g}" in row for row in rows)
