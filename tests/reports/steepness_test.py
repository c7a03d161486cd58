"""Heads and cuts: the same numbers in table, file and page."""

import csv
import io
import json

import numpy as np
import pytest

from jaxmoe.analysis.cutting import Cutting
from jaxmoe.analysis.router_heads import PLACES, Heads, Ranks
from jaxmoe.reports import plots, router_files
from jaxmoe.reports.steepness import cutting_table, heads_table, place_name
from tests.reports.router_figures_test import LAYERS, K


def _heads(steepness: float) -> Heads:
    """Two layers over three prompts; no token is past the second bin."""
    random = np.random.default_rng(0)
    sums = np.zeros((3, 2, 2, len(PLACES) + 1, 4))
    sums[..., :2, :] = random.uniform(4, 6, (3, 2, 2, 2, 4))
    sums[..., :2, 0] = 10
    sums[..., 1] = steepness * sums[..., 2]
    return Heads(Ranks(3, 8, 16), (1, 2), ("prompt", "generated"), tuple("abc"), sums)


def test_numbers_are_the_same_everywhere(monkeypatch, matplotlib, tmp_path):
    """A checkpoint would be given the head of another, or a size the loss of one."""
    monkeypatch.setattr(plots, "_save", lambda _, picture: picture.png.write_bytes(b""))
    heads = {"first": _heads(2.0), "second": _heads(0.5)}
    sums = np.array([[[4, -8.0, 2], [4, -4.0, 3]], [[6, -9.0, 0], [6, -8.0, 4]]])
    cutting = Cutting((1, 4), ("a", "b"), sums)
    router_files.write_routers(
        tmp_path, LAYERS, k=K, digest="d", policy={}, heads=heads, cutting=cutting
    )
    results = json.loads((tmp_path / "router.json").read_text("utf-8"))
    lines = list(csv.DictReader(io.StringIO((tmp_path / "heads.csv").read_text())))
    rows = results["heads"]
    # Checkpoints, all layers and each, all classes and each, all positions and two.
    assert len(lines) == len(rows) == 2 * 3 * 3 * 3
    means = {
        name: {row["steepness"][0] for row in rows if row["checkpoint"] == name}
        for name in heads
    }
    assert [*means["first"]] == pytest.approx([2.0] * len(means["first"]))
    assert [*means["second"]] == pytest.approx([0.5] * len(means["second"]))
    assert [float(line["mass low"]) for line in lines] == [r["mass"][1] for r in rows]
    page = (tmp_path / "router.html").read_text("utf-8")
    assert page.count("2.0000 [2.0000, 2.0000]") == 3 + 2
    (cut,) = results["cutting"]
    assert cut["log p lost"][0] == 0.5
    assert f"{cut['log p lost'][0]:.4f} [" in cutting_table(cutting, LAYERS)
    printed = heads_table(heads)
    assert [name for name in heads if printed.count(f"  {name}\n") == 3] == [*heads]
    assert {"steepness.png", "cutting.png"} <= {p.name for p in tmp_path.iterdir()}


def test_bins_of_positions_are_named_by_what_they_hold():
    """A reader would take one bin for another."""
    names = [place_name(place) for place in (None, 0, 1, len(PLACES))]
    assert names == ["all", "0..15", "16..63", "1024.."]
