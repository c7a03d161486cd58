"""Texts whose routing is to be measured, as a file of JSON lines has them."""

import codecs
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxmoe.analysis.route_exchange import routes_in
from jaxmoe.files import parse_json

Text = str | list[int]
"""Text, or token ids."""


@dataclass(frozen=True)
class Row:
    """A prompt with its answers, and what to call it in an error.

    routes: none, or what returns the experts of each answer, int16 [T, L, K], as
    `jaxmoe.sample` records them; of all answers at once they would fill the memory.
    chat: options of the chat template; None: the prompt is read as it is.
    """

    name: str
    prompt: Text
    answers: tuple[Text, ...] = ()
    routes: tuple[Callable[[], Any], ...] = ()
    chat: Mapping[str, Any] | None = None


def read_rows(path: Path) -> list[Row]:
    """The rows of a file of prompts.

    Raises a ValueError with the line's number for what is no such row.
    """
    # Split by bytes: str.splitlines would also split at U+2028, which texts hold.
    lines = enumerate(path.read_bytes().removeprefix(codecs.BOM_UTF8).split(b"\n"), 1)
    named = ((f"{path}, line {number}", line) for number, line in lines if line.strip())
    values = [(name, _object(name, line)) for name, line in named]
    if not values:
        raise ValueError(
            f'{path} must have a line with {{"prompt": ...}} at least, found none; add '
            "prompts"
        )
    return [_row(name, value) for name, value in values]


def _object(name: str, line: bytes) -> dict[str, Any]:
    try:
        value = parse_json(line.decode())
    except ValueError as error:
        raise ValueError(f"{name} must be JSON, but: {error}; mend it") from None
    if not isinstance(value, dict):
        raise ValueError(f"{name} must be a JSON object, found {value!r:.60}; mend it")
    return value


def _row(name: str, value: dict[str, Any]) -> Row:
    if "prompt" not in value:
        raise ValueError(
            f'{name} must have a "prompt", found {sorted(value)}; add it to each line'
        )
    given = [value[key] for key in ("answer", "text") if value.get(key) is not None]
    answers = tuple(_text(name, answer) for answer in given)
    try:
        routes = routes_in(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None
    if routes is not None and len(answers) > 1:
        raise ValueError(
            f'{name} has an "answer" and a "text" beside routes of one answer; leave '
            "one of them out, or the routes"
        )
    recorded = () if routes is None else (routes,)
    return Row(name, _text(name, value["prompt"]), answers, recorded)


def _text(name: str, value: Any) -> Text:
    ids = isinstance(value, list) and all(type(item) is int for item in value)
    if not isinstance(value, str) and not ids:
        raise ValueError(
            f"{name} must have text or a list of token ids, found {value!r:.60}; mend "
            "it"
        )
    return value
