"""A figure of matplotlib as SVG within a page, in the colours of the page."""

import io
import re
import warnings
import xml.etree.ElementTree as ElementTree
from typing import TYPE_CHECKING, Any

from jaxmoe.reports.colours import LIGHT
from jaxmoe.text.printable import clean

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_NAMES = {colour: f"var(--{name})" for name, colour in LIGHT.items()}
_COLOUR = re.compile("|".join(_NAMES))
_FAMILY = re.compile(r"font-family:[^;]*;?")
_SHORTHAND = re.compile(r"font: ((?:[a-z]+ )*)([\d.]+px) [^;]*")
_DECIMALS = re.compile(r"(\.\d\d)\d+")
_ROUNDED = ("d", "x", "y", "width", "height", "points")
_PIXELS = 1.3
"""Of the page, where it is wide enough, for a point of the drawing."""


def inline_svg(figure: "Figure", name: str, label: str) -> str:
    """The drawing as an element of HTML that is well-formed XML too.

    Texts stay texts. Equal figures give equal drawings.

    Args:
      name: what keeps the drawing's ids apart from those of others on the page.
      label: what is drawn, for those who do not see it.
    """
    import matplotlib

    file = io.StringIO()
    settings: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": name}
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        # Texts stay texts: the reader's fonts have letters that ours lacks.
        warnings.filterwarnings("ignore", r"Glyph \d+ .* missing from font")
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", metadata=nothing)
    root = ElementTree.fromstring(file.getvalue())
    for node in root.iter():
        node.tag = node.tag.rpartition("}")[2]
    _drop(root, {"metadata", "style"})
    used = set(re.findall(r"(?:url\(|href=\")#([^)\"]+)", file.getvalue()))
    for node in root.iter():
        _adapt(node, used)
        if node.tag != "tspan":  # within a text blanks count
            node.tail = None
        if node.tag not in ("text", "tspan"):
            node.text = (node.text or "").strip() or None
    width = float(root.get("viewBox", "").split()[2])
    root.attrib = {
        "viewBox": root.get("viewBox", ""),
        "class": "chart",
        "role": "img",
        "aria-label": clean(label),
        "style": f"width: {_PIXELS * width:.0f}px",
    }
    return ElementTree.tostring(root, encoding="unicode")


def _drop(node: ElementTree.Element, tags: set[str]) -> None:
    """Takes elements out: one would say who made it, the other style the whole page."""
    for inner in list(node):
        if inner.tag in tags:
            node.remove(inner)
        else:
            _drop(inner, tags)


def _adapt(node: ElementTree.Element, used: set[str]) -> None:
    """Colours by name, the page's letters, short numbers, only ids that are used."""
    found = {name.rpartition("}")[2]: value for name, value in node.items()}
    if found.get("id") not in used:
        found.pop("id", None)
    if "style" in found:
        style = _COLOUR.sub(lambda m: _NAMES[m[0]], found["style"])
        found["style"] = _SHORTHAND.sub(r"font-size: \2", _FAMILY.sub("", style))
    for name in _ROUNDED:
        if name in found:
            found[name] = _DECIMALS.sub(r"\1", found[name]).replace("\n", "")
    node.attrib = found
