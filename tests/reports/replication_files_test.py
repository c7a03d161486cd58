"""The files of a replication: every row, every claim, published cells or none."""

import json
import xml.etree.ElementTree as ElementTree

from jaxmoe.reports.replication_files import render, write_replication
from tests.evals.replication.results_test import result, runs_of


def _rows(page: str) -> dict[str, list[str]]:
    root = ElementTree.fromstring(page.split("\n", 1)[1])
    cells = (
        [" ".join("".join(c.itertext()).split()) for c in r] for r in root.iter("tr")
    )
    return {row[0]: row[1:] for row in cells}


def test_files_say_the_same(tmp_path):
    """A cell would be lost on the way, or a published figure made up."""
    runs = runs_of(normal=1, **{"normal-es": 4})
    whose = {"normal": {"checkpoint": "d1", "cut": True}, "normal-es": None}
    found = result("pass-at-n", runs=runs, verifiers=whose)
    write_replication(tmp_path, found)
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {f"replication.{end}" for end in ("html", "md", "json")}
    held = json.loads((tmp_path / "replication.json").read_text("utf-8"))
    assert [run["name"] for run in held["runs"]] == ["normal", "normal-es"]
    verdicts = [claim["verdict"] for claim in held["claims"]]
    told = [judged.found and judged.found.verdict for judged in found.judged]
    assert verdicts == told and "yes" in told
    assert {figure["percent"] for figure in held["published"]} == {85.4, 91.9}
    text = (tmp_path / "replication.md").read_text("utf-8")
    assert held["verifiers"] == whose
    assert "Scores of normal: checkpoint d1, cut True." in text
    assert "Scores of normal-es: a verifier that is not named." in text
    rows = _rows((tmp_path / "replication.html").read_text("utf-8"))
    for judged in found.judged:
        verdict = judged.found.verdict if judged.found else "not measured"
        assert rows[judged.claim.text][-1] == verdict
        assert judged.claim.text in text
    assert rows["normal"][0].startswith("25.0 [") and "91.9" in rows["normal-es"]
    assert (
        "published"
        not in _rows(render(result("pass-at-n", runs=runs, model=None)))["row"]
    )
