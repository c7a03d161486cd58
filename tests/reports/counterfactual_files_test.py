"""Files of counterfactual routes: the same numbers in all of them."""

import csv
import io
import json
import sys
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from jaxmoe import ExpertSample
from jaxmoe.analysis.counterfactual import EDGES, Counterfactuals, Importance, Sums
from jaxmoe.reports.counterfactual_files import write_counterfactual
from jaxmoe.reports.counterfactual_table import importance_table, table

HOSTILE = "<script>alert(1)</script>"


def made_up() -> tuple[Counterfactuals, Importance]:
    """Three answers; no token is in the last bin, and one expert was never chosen."""
    random, shape = np.random.default_rng(0), (3, 2, len(EDGES) + 1)
    sums = Sums(*(random.uniform(1, 2, shape) for _ in Sums._fields))
    tokens = np.full(shape, 4.0)
    tokens[..., -1] = 0
    groups = (b"a", b"b", b"b")
    found = Counterfactuals(
        ("1", "all"), 8, 1, ExpertSample(), groups, sums._replace(tokens=tokens)
    )
    count = np.full((3, 1, 4), 5.0)
    count[..., 2] = 0
    loss = random.normal(size=(3, 1, 4)) * (count > 0)
    ranks = random.normal(size=(3, 1, 2))
    return found, Importance((1,), loss, count, ranks, np.full(3, 10.0), groups)


def test_all_files_have_the_same_numbers(matplotlib, tmp_path):
    """A number would stand beside another layer's, or an expert's be nan."""
    found, importance = made_up()
    settings = {"drawn by": HOSTILE}
    write_counterfactual(tmp_path, found, importance, digest="abc", settings=settings)
    results = json.loads(
        (tmp_path / "counterfactual.json").read_text("utf-8"),
        parse_constant=pytest.fail,
    )
    rows = results["rows"]
    assert [r["layers"] for r in rows] == ["1"] * 6 + ["all"] * 6  # the last bin: none
    assert [r["count"] for r in rows[:2]] == [60, 12]
    mean = found.mean("utility", "all", 0)
    assert rows[7]["utility"] == [mean.mean, mean.low, mean.high]
    text = (tmp_path / "counterfactual.csv").read_text("utf-8")
    lines = list(csv.DictReader(io.StringIO(text)))
    assert [float(line["utility low"]) for line in lines] == [
        row["utility"][1] for row in rows
    ]
    experts = list(csv.DictReader((tmp_path / "importance.csv").open()))
    assert [line["expert"] for line in experts] == ["0", "1", "3"]
    page = (tmp_path / "counterfactual.html").read_text("utf-8")
    root = ElementTree.fromstring(page.split("\n", 1)[1])
    assert HOSTILE in "".join(root.itertext()) and not list(root.iter("script"))
    assert page.count("<svg") == 2
    assert len(list(root.iter("tr"))) == 1 + 12 + 1 + 3
    printed = table(found) + importance_table(importance)
    assert f"{mean.mean:.4f} [{mean.low:.4f}, {mean.high:.4f}]" in printed


def test_without_matplotlib_the_numbers_are_there(tmp_path, monkeypatch):
    """Hours of passes would end without a file."""
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    found, _ = made_up()
    with pytest.raises(ImportError, match="jaxmoe.plots."):
        write_counterfactual(tmp_path, found, None, digest="abc", settings={})
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {f"counterfactual.{kind}" for kind in ("json", "csv", "html")}
