"""A user's file of problems, one JSON object a line, made into questions."""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jaxmoe.evals.tasks.base import Question, Task
from jaxmoe.evals.tasks.prompts import shown

_BOM = b"\xef\xbb\xbf"


def read_questions(
    path: Path,
    task: Task,
    *,
    seed: int = 0,
    template: str | None = None,
    limit: int | None = None,
) -> list[Question]:
    """The questions of a file, in its order. Blank lines are skipped.

    A question's id is its row's `id`, text or an integer, as text; without one it is
    "line-7" after the number of its line from 1, blank lines counted.

    Args:
      seed: of whatever the task shuffles.
      template: a prompt instead of the task's own, see `template_of`.
      limit: only the first so many questions; what follows is not read.

    Raises:
      ValueError: no questions, a line that is no JSON object or not UTF-8, a row that
        the task cannot use, or two questions of one id. The message begins with the
        file and the line, and for malformed JSON has the column, both from 1.
    """
    if limit is not None and limit < 1:
        raise ValueError(
            f"limit must be at least 1, found {limit}; None reads them all"
        )
    questions: list[Question] = []
    lines: dict[str, int] = {}
    for number, row in _rows(path):
        where = f"{path}, line {number}"
        id = _id(row, number, where)
        if id in lines:
            raise ValueError(
                f'{where}: expected an id of its own, found "{id}" as on line '
                f"{lines[id]}; give each row another id, or none"
            )
        lines[id] = number
        try:
            question = task.question(row, id=id, seed=seed, template=template)
        except ValueError as error:
            raise ValueError(f"{where}: {error}. {_wanted(task)}") from None
        questions.append(question)
        if len(questions) == limit:
            break
    if not questions:
        raise ValueError(
            f"{path}: expected a JSON object on each line, found an empty file; "
            f"{_wanted(task)}"
        )
    return questions


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
        text = path.read_bytes().removeprefix(_BOM).decode("utf-8").rstrip()
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


def _rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Line number, from 1, and object of every line that is not blank."""
    # Split by bytes: str.splitlines would also split at U+2028, which JSON texts hold.
    lines = path.read_bytes().removeprefix(_BOM).split(b"\n")
    for number, line in enumerate(lines, start=1):
        if line.strip():
            yield number, _row(line, f"{path}, line {number}")


def _row(line: bytes, where: str) -> Mapping[str, Any]:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{where}: expected UTF-8, found {error.reason} at byte {error.start + 1}; "
            "save the file as UTF-8"
        ) from None
    except json.JSONDecodeError as error:
        raise ValueError(
            f"{where}, column {error.colno}: expected a JSON object, found "
            f"{shown(line.decode().strip())} ({error.msg}); write each row on one line"
        ) from None
    except (ValueError, RecursionError) as error:  # vast numbers, deep nesting
        raise ValueError(
            f"{where}: expected a JSON object, found one that Python does not read "
            f"({error}); write vast numbers as text, and nest less"
        ) from None
    if not isinstance(row, dict):
        raise ValueError(
            f"{where}: expected a JSON object, found {shown(row)}; write each row as "
            '{"name": value, ...}'
        )
    return row


def _id(row: Mapping[str, Any], number: int, where: str) -> str:
    id = row.get("id")
    if id is None:
        return f"line-{number}"
    # A bool is an int to Python, and no id.
    if not (isinstance(id, str) and id.strip()) and type(id) is not int:
        raise ValueError(
            f'{where}: expected text or an integer in the field "id", found '
            f"{shown(id)}; correct it, or leave it out"
        )
    return str(id)


def _wanted(task: Task) -> str:
    fields = "; ".join(f'"{name}" ({why})' for name, why in task.fields.items())
    return f"The task {task.name} reads the fields {fields}"
