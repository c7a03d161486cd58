"""A sweep's page: every configuration under its name, maps where there are any."""

import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest

from jaxmoe.evals.sweeps import compare_points, grid
from jaxmoe.reports.sweep_files import write_sweep
from tests.evals.compare_test import RIGHT, run_of

POINTS = grid(k_keep=(1, 2), r=(8,), tau=(0.5, 1.0))
HOSTILE = "<script>alert(1)</script>"


def _swept():
    """The baseline is right half the time; point j on j of 4 answers."""
    runs = [
        run_of([[RIGHT] * (i % 5) + ["a"] * (4 - i % 5)] * 4, point.name)
        for i, point in enumerate([*POINTS])
    ]
    runs = [replace(r, manifest={**r.manifest, "note": HOSTILE}) for r in runs]
    return compare_points(POINTS, runs)


def _rows(page: str) -> list[list[str]]:
    root = ElementTree.fromstring(page.split("\n", 1)[1])
    assert not list(root.iter("script"))
    return [
        [" ".join("".join(c.itertext()).split()) for c in r] for r in root.iter("tr")
    ]


def test_every_configuration_has_its_row(matplotlib, tmp_path):
    """Numbers would stand beside another configuration's name."""
    found = _swept()
    write_sweep(tmp_path, POINTS, found)
    assert {path.name for path in tmp_path.iterdir()} == {
        *("sweep.json", "sweep.html", "accuracy.png", "pass_at_4.png")
    }
    page = (tmp_path / "sweep.html").read_text("utf-8")
    assert page.count("<svg") == 2
    rows = {row[0]: row[1:] for row in _rows(page)}
    for point, run in zip(POINTS, found.runs, strict=True):
        shown = str(run.measures["accuracy"]).replace(" %", "")
        assert rows[point.name][0].lstrip("\N{FIGURE SPACE}") == shown
    assert rows["topk"][1] == "\N{EN DASH}"  # nothing to compare it with
    assert rows[POINTS[-1].name][1].startswith("+100.0 [")
    assert rows["note"] == [HOSTILE]


def test_without_matplotlib_the_numbers_are_there(tmp_path, monkeypatch):
    """Hours of answers would end without a page."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match="jaxmoe.plots."):
        write_sweep(tmp_path, POINTS, _swept())
    assert {path.name for path in tmp_path.iterdir()} == {"sweep.json", "sweep.html"}
    page = (tmp_path / "sweep.html").read_text("utf-8")
    assert "No charts" in page and len(_rows(page)) > len(POINTS)
