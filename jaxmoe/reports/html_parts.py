"""Pieces of HTML: escaped text, elements, tables, folded texts, the page around them.

All is written so that it is well-formed XML too, which a test can check.
"""

import html
import re
from collections.abc import Sequence
from pathlib import Path

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"

_STYLE = Path(__file__).with_name("report_style.css")
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
_VOID = {"circle", "line", "link", "meta", "path", "rect"}
# Control characters but for tab and line feed; marks and overrides of the writing
# direction, which would reorder what stands beside them; what UTF-8 cannot carry, and
# what is no character.
_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
    "\ud800-\udfff\ufdd0-\ufdef"
    + "".join(
        f"{chr(plane << 16 | 0xFFFE)}{chr(plane << 16 | 0xFFFF)}" for plane in range(17)
    )
    + "]"
)


def clean(value: str) -> str:
    """`value` with what would disturb a page or a file replaced, one for one.

    Control characters, controls of the writing direction, surrogates and what is no
    character become U+FFFD; line ends become line feeds.
    """
    return _UNSAFE.sub(REPLACEMENT, value.replace("\r\n", "\n"))


def text(value: str) -> str:
    """Text from anywhere, as HTML, for content and for attributes."""
    return html.escape(clean(value))


def element(tag: str, *inner: str, **attributes: str | float | None) -> str:
    """<tag attributes>inner</tag>.

    Args:
      tag: the name.
      inner: HTML already.
      attributes: texts, which are escaped, and numbers, shown to 2 decimals. class_ is
        class, other _ are -; None is left out.
    """
    given = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{_attribute(value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    content = "".join(inner)
    if tag in _VOID and not content:
        return f"<{tag}{given} />"
    return f"<{tag}{given}>{content}</{tag}>"


def name(value: str) -> str:
    """A name of a run or a problem; its writing direction stays its own affair."""
    return element("bdi", text(value))


def folded(summary: str, *inner: str) -> str:
    """What is seen when asked for; `summary` and `inner` are HTML."""
    return element("details", element("summary", summary), *inner)


def block(value: str) -> str:
    """A long text as it is, lines and spaces kept."""
    if not value:
        return element("p", "(empty)", class_="note")
    # A parser drops a line feed right after <pre>, so that one of the text's own
    # would be lost.
    return element("pre", "\n" + text(value), dir="auto")


def long_text(value: str, limit: int = 120) -> str:
    """A short text as it is, a longer one folded behind its beginning."""
    if len(value) <= limit:
        return name(value)
    beginning = value[: limit // 2].rstrip()
    return folded(name(f"{beginning}\N{HORIZONTAL ELLIPSIS}"), block(value))


def table(
    caption: str,
    head: Sequence[str],
    groups: Sequence[tuple[str, Sequence[Sequence[str]]]],
    *,
    kind: str = "numbers",
) -> str:
    """A table in a box of its own, which scrolls where the page is narrow.

    Args:
      caption: plain text.
      head: HTML of the columns' headings.
      groups: (plain heading, rows) each; "" is no heading. A row holds the HTML of its
        cells, the first of them its heading; the last cell of a short row reaches over
        the columns that are left.
      kind: class of the table, for its style.
    """
    columns = "".join(element("th", cell, scope="col") for cell in head)
    inner = [
        element("caption", _pinned(caption, "caption")),
        element("thead", element("tr", columns)),
        *(_group(heading, rows, len(head)) for heading, rows in groups if rows),
    ]
    box = {"class_": "scroll", "role": "region", "tabindex": "0", "aria_label": caption}
    return element("div", element("table", *inner, class_=kind), **box)


def section(identifier: str, heading: str, *inner: str) -> str:
    """A section with its heading; "" where it would be empty."""
    if not any(inner):
        return ""
    head = element("h2", text(heading), id=f"{identifier}-heading")
    labelled = f"{identifier}-heading"
    return element("section", head, *inner, id=identifier, aria_labelledby=labelled)


def page(title: str, *body: str) -> str:
    """The whole file; it asks for nothing that is outside it."""
    head = [
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=_POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        # Browsers would ask the server for a picture otherwise.
        element("link", rel="icon", href="data:,"),
        element("title", text(title)),
        element("style", "\n", _STYLE.read_text("utf-8")),
    ]
    content = "\n".join(filter(None, body))
    return "\n".join(
        [
            "<!DOCTYPE html>",
            '<html lang="en">',
            element("head", "\n", "\n".join(head), "\n"),
            element("body", "\n", content, "\n"),
            "</html>\n",
        ]
    )


def _attribute(value: str | float) -> str:
    if isinstance(value, str):
        return text(value)
    return f"{value:z.2f}".rstrip("0").rstrip(".")


def _pinned(content: str, kind: str = "") -> str:
    """Plain text in a block that stays in view while the table is scrolled."""
    return element("span", text(content), class_=f"pinned {kind}".strip())


def _group(heading: str, rows: Sequence[Sequence[str]], columns: int) -> str:
    head = ""
    if heading:
        cell = element("th", _pinned(heading), scope="rowgroup", colspan=columns)
        head = element("tr", cell, class_="group")
    return element("tbody", head, *("\n" + _row(row, columns) for row in rows))


def _row(row: Sequence[str], columns: int) -> str:
    heading, *cells = row
    left = columns - len(row)
    last = len(cells) - 1
    spans = (
        1 + left if index == last and left else None for index in range(len(cells))
    )
    return element(
        "tr",
        element("th", heading, scope="row"),
        *(
            element("td", cell, colspan=span)
            for cell, span in zip(cells, spans, strict=True)
        ),
    )
