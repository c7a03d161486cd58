"""HTML pages from the templates beside this file: one file each, which loads nothing.

Whatever a template prints is text, also where it is the answer of a model; only what
was made by another template, or by `inline_svg`, is HTML. Pages are well-formed XML
too, which a test can check.
"""

import re
from functools import cache
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from jaxmoe.reports import report_words as words
from jaxmoe.reports.colours import RUNS, style
from jaxmoe.text.printable import clean

TEMPLATES = Path(__file__).with_name("templates")
SHORT = 120
"""Characters of a text that is shown without being asked for."""


def render_page(template: str, **values: Any) -> str:
    """The page of `templates/TEMPLATE`; equal values give equal text.

    Charts are in `values` as `Markup`; all else is text.
    """
    return _environment().get_template(template).render(values)


@cache
def _environment() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    made.filters.update(unbroken=unbroken, beginning=_beginning)
    css = style() + (TEMPLATES / "style.css").read_text("utf-8")
    made.globals.update(style=Markup(css), colours=len(RUNS), short=SHORT)
    made.globals.update(counted=words.counted)
    return made


def _finalize(value: Any) -> Any:
    """What is printed, without what would disturb the page."""
    return clean(value) if type(value) is str else value


def unbroken(sentence: str) -> Markup:
    """HTML whose intervals and p-values are not broken between lines."""
    parts = r"\[[^\]<]*\]|\bp (?:=|&lt;) [\d.]+\d"
    mark = '<span class="unbroken">{}</span>'.format
    return Markup(re.sub(parts, lambda m: mark(m[0]), str(escape(clean(sentence)))))


def _beginning(text: str) -> str:
    return f"{text[: SHORT // 2].rstrip()}\N{HORIZONTAL ELLIPSIS}"
