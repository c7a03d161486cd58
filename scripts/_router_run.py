"""A run of `evaluate.py` as rows whose routing is to be measured."""

import warnings
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _router_data import Row
from _running import digest_of

from jaxmoe.cli.task_options import DEMO_TASK

if TYPE_CHECKING:
    from jaxmoe.evals.run import Run


def run_rows(path: Path, checkpoint: str) -> list[Row]:
    """Each problem with all of its answers, read and routed as they were in the run.

    Prompts go into the chat template where the task's do; answers are tokens where
    those were kept. Routes are taken where tokens were kept too, and if they are of
    this checkpoint; a warning says where they are not.
    """
    from jaxmoe.evals.run import read_run, routes_of

    run = read_run(path, partial=True)
    chat = _chat_options(path, run.manifest)
    replayed = _can_be_replayed(path, run, checkpoint)
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


def _chat_options(path: Path, manifest: Any) -> dict[str, Any] | None:
    """What the template was given, as in `jaxmoe.evals.evaluate.prompts_of`."""
    from jaxmoe.demo.countdown import Countdown
    from jaxmoe.evals.tasks import task as find_task

    name = manifest.get("task")
    try:
        task = Countdown() if name == DEMO_TASK else find_task(name)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return {"enable_thinking": manifest.get("thinking")} if task.chat else None


def _can_be_replayed(path: Path, run: "Run", checkpoint: str) -> bool:
    """Whether all answers have routes that say something of this checkpoint."""
    records = [record for row in run.records for record in row]
    if not any(record.routes for record in records):
        return False
    why = None
    if run.manifest.get("checkpoint") != digest_of(checkpoint):
        why = "they are another checkpoint's"
    elif not all(record.routes and record.tokens for record in records):
        why = "they need the tokens, which --keep-tokens of evaluate.py keeps"
    if why is not None:
        warnings.warn(
            f"the routes in {path} are left out: {why}; answers are routed by top-k",
            stacklevel=2,
        )
    return why is None
