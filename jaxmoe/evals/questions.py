"""A user's file of problems, a row each, made into questions."""

import hashlib
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxmoe.evals.question_files import BOM, Row, rows_of
from jaxmoe.evals.tasks.base import Question, Task
from jaxmoe.evals.tasks.prompts import shown
from jaxmoe.files import printable

_IDS = ("id", "ID", "unique_id", "task_id", "question_id", "Record ID")
"""Columns that hold a row's id, in published data sets too; the first one counts."""

_LISTED = 20
"""Bad rows that an error lists."""


class BadRowsWarning(UserWarning):
    """Rows that were left out of a file of problems, and how many."""


def read_questions(
    path: Path,
    task: Task,
    *,
    seed: int = 0,
    template: str | None = None,
    limit: int | None = None,
    skip_bad_rows: bool = False,
) -> list[Question]:
    """The questions of a file, in its order. Blank lines are skipped.

    The file holds JSON lines, or is called .csv, .tsv or .parquet. A question's id is
    its row's `id` (or what published data sets call so), text or an integer, as text;
    without one it is "line-7" after the number of its line from 1, blank lines counted,
    or "row-7" where rows are no lines.

    Args:
      seed: of whatever the task shuffles.
      template: a prompt instead of the task's own, see `template_of`.
      limit: only the first so many questions; what follows is not read.
      skip_bad_rows: leave out rows that cannot be read or used; a `BadRowsWarning`
        says how many.

    Raises:
      ValueError: no questions; rows that are no JSON object or not UTF-8, that the task
        cannot use, or of one id. The message begins with the file, lists all such rows
        with their lines, and for malformed JSON has the column, both from 1.
      ImportError: what the file or the task needs is not installed.
    """
    if limit is not None and limit < 1:
        raise ValueError(
            f"limit must be at least 1, found {limit}; None reads them all"
        )
    questions: list[Question] = []
    bad: list[str] = []
    places: dict[str, str] = {}
    for row in rows_of(path):
        try:
            id = _own_id(row, places)
            values = _values(row)
            questions.append(_question(task, values, id, seed, template))
        except ValueError as error:
            bad.append(f"{row.place}: {error}".replace(": column ", ", column ", 1))
        if len(questions) + (0 if skip_bad_rows else len(bad)) == limit:
            break
    if bad and not (skip_bad_rows and questions):
        raise ValueError(printable(_bad_rows(path, bad, len(questions))))
    if bad:
        warnings.warn(
            printable(f"{path}: left out {len(bad)} bad rows, first {bad[0]}"),
            BadRowsWarning,
            stacklevel=2,
        )
    if not questions:
        raise ValueError(
            f"{path}: expected a JSON object on each line, found an empty file; "
            f"{_wanted(task)}"
        )
    return questions


def _bad_rows(path: Path, bad: list[str], good: int) -> str:
    """All that is wrong in a file."""
    if len(bad) == 1:
        return f"{path}, {bad[0]}"
    listed = "".join(f"\n  {line}" for line in bad[:_LISTED])
    more = f"\n  and {len(bad) - _LISTED} more" if len(bad) > _LISTED else ""
    return (
        f"{path}: expected rows that can be read, found {len(bad)} bad ones beside "
        f"{good} good ones; correct them, or leave them out (skip_bad_rows):"
        f"{listed}{more}"
    )


def digest(path: Path) -> str:
    """SHA-256 of the file's bytes, 64 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def template_of(path: Path, task: Task) -> str:
    r"""The prompt template of a file, blanks at its end left out.

    A template holds names of the task's fields in braces, such as {problem}; all other
    braces stay as they are, so "\boxed{}" needs no escape. The right answer is never
    put in. Names that only some rows need are checked with the rows.

    Raises:
      ValueError: not UTF-8, or none of the task's fields in it.
    """
    try:
        text = path.read_bytes().removeprefix(BOM).decode("utf-8").rstrip()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: expected UTF-8, found {error.reason} at byte {error.start + 1}; "
            "save it as UTF-8"
        ) from None
    names = [name for name in task.fields if name not in ("answer", "id", "group")]
    if not any(f"{{{name}}}" in text for name in names):
        found = ", ".join(re.findall(r"\{\w+\}", text)) or "no name in braces"
        wanted = ", ".join(f"{{{name}}}" for name in names)
        raise ValueError(
            f"{path}: expected a template with {wanted}, found {shown(found)}; write "
            "each where its text belongs"
        )
    return text


def _values(row: Row) -> Mapping[str, Any]:
    if isinstance(row.values, ValueError):
        raise row.values
    return row.values


def _question(
    task: Task, values: Mapping[str, Any], id: str, seed: int, template: str | None
) -> Question:
    try:
        return task.question(values, id=id, seed=seed, template=template)
    except ValueError as error:
        raise ValueError(f"{error}. {_wanted(task)}") from None


def _own_id(row: Row, places: dict[str, str]) -> str:
    """The id of a row that no row before it has; `places` is where each one stands."""
    values = _values(row)
    name = next((name for name in _IDS if values.get(name) is not None), None)
    id = _id(values[name], name) if name else row.place.replace(" ", "-")
    if id in places:
        raise ValueError(
            f'expected an id of its own, found "{id}" as on {places[id]}; give each '
            "row another id, or none"
        )
    places[id] = row.place
    return id


def _id(id: Any, name: str) -> str:
    # A bool is an int to Python, and no id.
    if not (isinstance(id, str) and id.strip()) and type(id) is not int:
        raise ValueError(
            f'expected text or an integer in the field "{name}", found {shown(id)}; '
            "correct it, or leave it out"
        )
    return str(id)


def _wanted(task: Task) -> str:
    fields = "; ".join(f'"{name}" ({why})' for name, why in task.fields.items())
    return f"The task {task.name} reads the fields {fields}"
