"""A run's answers as rows whose routing is to be measured."""

import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from jaxmoe.analysis.texts import Row
from jaxmoe.evals.run import Run, read_run, routes_of
from jaxmoe.evals.tasks.base import Task


def run_rows(path: Path, digest: str, find_task: Callable[[str], Task]) -> list[Row]:
    """Each problem with all of its answers, read and routed as they were in the run.

    Prompts go into the chat template where the task's do; answers are tokens where
    those were kept. Routes are taken where tokens were kept too, and if they are of
    this checkpoint; a warning says where they are not.

    Args:
      path: the run directory.
      digest: of the weights that the routing is measured of.
      find_task: the task of a name, `jaxmoe.evals.tasks.task` or one that knows more.

    Raises:
      ValueError: no run, or one of an unknown task.
    """
    run = read_run(path, partial=True)
    chat = _chat_options(path, run.manifest, find_task)
    replayed = _can_be_replayed(path, run, digest)
    prompts = dict(zip(run.manifest["problems"], run.manifest["prompts"], strict=True))
    return [
        Row(
            f"{path}, problem {name}",
            prompts[name],
            tuple([*r.tokens] if r.tokens else r.text for r in records),
            tuple(partial(routes_of, r) for r in records) if replayed else (),
            chat,
        )
        for name, records in zip(run.ids, run.records, strict=True)
    ]


def _chat_options(
    path: Path, manifest: Any, find_task: Callable[[str], Task]
) -> dict[str, Any] | None:
    """What the template was given, as in `jaxmoe.evals.evaluate.prompts_of`."""
    try:
        task = find_task(manifest.get("task"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return {"enable_thinking": manifest.get("thinking")} if task.chat else None


def _can_be_replayed(path: Path, run: Run, digest: str) -> bool:
    """Whether all answers have routes that say something of this checkpoint."""
    records = [record for row in run.records for record in row]
    if not any(record.routes for record in records):
        return False
    why = None
    if run.manifest.get("checkpoint") != digest:
        why = "they are another checkpoint's"
    elif not all(record.routes and record.tokens for record in records):
        why = "they need the tokens, which `jaxmoe evaluate --keep-tokens` keeps"
    if why is not None:
        warnings.warn(
            f"the routes in {path} are left out: {why}; answers are routed by top-k",
            stacklevel=2,
        )
    return why is None
