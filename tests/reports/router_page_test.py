"""A router report's page: each layer's numbers, and the figures that were drawn."""

import xml.etree.ElementTree as ElementTree

from jaxmoe.reports import router_figures, router_page
from jaxmoe.reports.plots import Picture
from jaxmoe.reports.router_table import summary
from tests.reports.router_figures_test import LAYERS, K

HOSTILE = "<script>alert(1)</script>"


def _page(pictures) -> ElementTree.Element:
    policy = {"drawn": HOSTILE, "given": None}
    page = router_page.render(LAYERS, pictures, k=K, checkpoint="abc", policy=policy)
    return ElementTree.fromstring(page.split("\n", 1)[1])


def test_rows_are_those_of_the_layers():
    """A layer would be given the numbers of another."""
    root = _page({})
    _, *rows = [["".join(c.itertext()).strip() for c in r] for r in root.iter("tr")]
    pairs = [(l, n, s) for l, classes in LAYERS.items() for n, s in classes.items()]
    assert len(rows) == len(pairs)
    for row, (layer, name, stats) in zip(rows, pairs, strict=True):
        found = summary(stats, K)
        assert row[:3] == [str(layer), name, "200"]
        assert row[3] == f"{found['entropy']:.2f}"
        assert row[-1] == str(found["advice"]["r"])
    assert not list(root.iter("script")) and not list(root.iter("figure"))
    assert HOSTILE in "".join(root.itertext())


def test_figures_stand_under_their_headings(matplotlib, tmp_path):
    """A figure would be read as another one, or be in the page and not beside it."""
    pictures = {"mass": Picture("mass", "mass", tmp_path / "mass.png")}
    router_figures.plot_mass(LAYERS, pictures["mass"], k=K, title="Title")
    assert (tmp_path / "mass.png").read_bytes().startswith(b"\x89PNG")
    (figure,) = _page(pictures).iter("figure")
    texts = ["".join(node.itertext()) for node in figure.iter("text")]
    assert "Title" in texts and "layer 1" in texts
