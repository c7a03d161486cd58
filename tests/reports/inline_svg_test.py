"""Drawings within pages: in the page's colours, with nothing that leaks out of them."""

import re
import xml.etree.ElementTree as ElementTree

import pytest

from jaxmoe.reports.colours import LIGHT
from jaxmoe.reports.plots import BLUE, Picture, figure_file

HOSTILE = '<b>&"</svg><script>alert(1)</script>$x$ \N{GREEK SMALL LETTER TAU}'


def _drawn(name: str, label: str = "label", title: str = HOSTILE) -> str:
    picture = Picture(name, label)
    with figure_file(picture, 3, 2) as figure:
        axes = figure.add_subplot()
        axes.plot([1, 2, 3], [1, 3, 2], "o-", color=BLUE, label=title)
        axes.set_title(title)
        axes.legend()
    return picture.svg


@pytest.fixture(scope="module")
def svg(matplotlib) -> str:
    """A drawing with a line, markers, clipped, and a hostile title."""
    return _drawn("one", HOSTILE)


def test_texts_stay_texts(svg):
    """A title could run a script, or be taken for a formula, or be no text to find."""
    root = ElementTree.fromstring(svg)
    assert root.get("aria-label") == HOSTILE
    texts = ["".join(node.itertext()) for node in root.iter("text")]
    assert texts.count(HOSTILE) == 2
    tags = {node.tag for node in root.iter()}
    assert tags <= {"svg", "defs", "g", "path", "text", "use", "clipPath", "rect"}


def test_letters_that_no_font_here_has_are_kept(matplotlib, recwarn):
    """A run's name would be boxes, or each of its letters a warning."""
    assert "\u6a21\u578b" in _drawn("one", title="\u6a21\u578b")
    assert not recwarn.list


def test_colours_are_those_of_the_page(svg):
    """In the dark, lines would be drawn in the colours of the light."""
    assert "var(--run-2)" in svg and "var(--ink)" in svg and "var(--muted)" in svg
    assert not re.search("|".join(LIGHT.values()), svg)
    assert not re.findall("#[0-9a-f]{6}", svg)
    assert "font-family" not in svg and "DejaVu" not in svg


def test_drawings_do_not_touch_each_other(svg):
    """A clip or a marker would be taken from another drawing of the page."""
    other = _drawn("two")
    ids = [set(re.findall(r' id="([^"]+)"', one)) for one in (svg, other)]
    assert ids[0] and not ids[0] & ids[1]
    used = set(re.findall(r"#([\w]+)", svg))
    assert used == ids[0]
    assert svg == _drawn("one", HOSTILE)


def test_nothing_is_said_of_who_drew_it(svg):
    """A page would change with the day, or name another site."""
    assert "http" not in svg and "matplotlib" not in svg.lower()
