"""Grading one answer, whatever it is, and what is kept of how answers were graded.

How answers are graded is no part of what makes a run another run: it is written beside
the records, in grading.json, and `regrade.py` grades again.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import is_dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

from jaxmoe.evals.tasks.base import Grade, Question, Task
from jaxmoe.evals.tasks.reasoning import answer_in
from jaxmoe.files import parse_json, write_text

GRADING = "grading.json"
VERSION = 4
"""Of the graders; higher where one of them reads an answer otherwise than before."""

LIBRARIES = {
    "math": ("math-verify", "sympy"),
    "reasoning-gym": ("reasoning-gym",),
}
"""Task, up to a colon -> the libraries that its grades depend on."""

OPENS = "opens_reasoning"
"""Entry of a manifest: whether the prompts end within thinking."""


ISOLATION = "isolation"
"""Entry of a manifest: what kept the programs that were run in their place."""


def isolation_of(task: Task) -> dict[str, str]:
    """What a manifest says of a task that runs programs; nothing of another."""
    used = getattr(task, "isolation_used", None)
    return {} if used is None else {ISOLATION: used}


ENDED = "stop_when"
"""How an answer finished that a rule ended before it was complete."""


def grade_answer(
    task: Task,
    question: Question,
    text: str,
    *,
    opened: bool = False,
    finish: str = "stop",
) -> Grade:
    """The grade of one answer, less the reasoning before it; it never raises.

    Where grading fails the answer counts as wrong, and the grade's details say why
    under "grading_error": one answer must not end a run.

    Args:
      opened: the prompt ended within thinking, so an answer that never closes it was
        cut off.
      finish: how it ended. What a rule ended has no answer, whatever its text.
    """
    grade = _graded(task, question, text, opened)
    return replace(grade, answer=None, correct=False) if finish == ENDED else grade


def _graded(task: Task, question: Question, text: str, opened: bool) -> Grade:
    try:
        return task.grade(question, answer_in(f"<think>{text}" if opened else text))
    except Exception as error:  # whatever a task does with a strange text
        found = f"{type(error).__name__}: {error}"[:500]
        return Grade(None, False, {"grading_error": found})


def grading_of(task: Task) -> dict[str, Any]:
    """How this task grades here and now, for grading.json."""
    versions = {}
    for name in ("jaxmoe", *LIBRARIES.get(task.name.partition(":")[0], ())):
        with suppress(metadata.PackageNotFoundError):
            versions[name] = metadata.version(name)
    return {
        "version": VERSION,
        "task": repr(task) if is_dataclass(task) else type(task).__qualname__,
        **isolation_of(task),
        "versions": versions,
    }


def graders_in(grading: Mapping[str, Any]) -> dict[str, Any]:
    """Of a grading.json what verdicts depend on: VERSION and the libraries'."""
    versions = grading.get("versions")
    own = dict(versions) if isinstance(versions, Mapping) else {}
    own.pop("jaxmoe", None)  # VERSION tells its graders apart
    return {"version": grading.get("version"), "versions": own}


def read_grading(folder: Path) -> Mapping[str, Any] | None:
    """How a run's answers were graded; None where nothing says so."""
    try:
        found = parse_json((folder / GRADING).read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return found if isinstance(found, dict) else None


def write_grading(folder: Path, grading: Mapping[str, Any]) -> None:
    """Writes grading.json at once, or leaves the one that is there."""
    write_text(folder / GRADING, json.dumps(grading, indent=1) + "\n")
