"""The questions that options ask for."""

import argparse
import json
from dataclasses import replace
from hashlib import sha256
from typing import Any

from jaxmoe import demo
from jaxmoe.checkpoints.gcs import fetch_file
from jaxmoe.cli.task_options import DEMO_TASK
from jaxmoe.demo.countdown import Countdown, questions
from jaxmoe.evals import tasks
from jaxmoe.evals.questions import digest, read_questions, template_of
from jaxmoe.evals.sandbox import available_isolation
from jaxmoe.evals.tasks.base import Question, Task
from jaxmoe.evals.tasks.code import CodeTask
from jaxmoe.evals.tasks.reasoning_gym import ReasoningGym


def task_named(name: str) -> Task:
    """The task of a name, the demo's among them.

    Raises:
      ValueError: no task has this name.
    """
    return Countdown() if name == DEMO_TASK else tasks.task(name)


def questions_of(
    args: argparse.Namespace,
) -> tuple[Task, list[Question], dict[str, Any]]:
    """The task, its questions, and where they are from."""
    task = _task_of(args)
    if args.problems is not None and args.problems < 1:
        raise ValueError(f"--problems must be at least 1, found {args.problems}")
    _refuse_unread(args, task)
    if args.data is None:
        if args.template is not None:
            raise ValueError("--template goes with --data, whose fields it names")
        if isinstance(task, ReasoningGym):
            return task, *_made_questions(task)
        if args.task != DEMO_TASK:
            fields = "; ".join(f"{k}: {v}" for k, v in task.fields.items())
            raise ValueError(
                f"--task {args.task} needs --data, a file with a JSON object a line "
                f"({fields})"
            )
        return task, *_own_questions(args)
    template = None if args.template is None else template_of(args.template, task)
    file = fetch_file(args.data)
    asked = read_questions(
        file,
        task,
        seed=args.seed,
        template=template,
        limit=args.problems,
        skip_bad_rows=args.skip_bad_rows,
    )
    return task, asked, {"file": file.name, "sha256": digest(file)}


def _refuse_unread(args: argparse.Namespace, task: Task) -> None:
    """Raises a ValueError for options that say where other questions are from."""
    if args.data_seed and (args.data is not None or not isinstance(task, ReasoningGym)):
        raise ValueError(
            "--data-seed is of the questions that reasoning-gym makes, found others "
            f"(task {args.task}); leave it out"
        )
    if args.split != "test" and (args.data is not None or args.task != DEMO_TASK):
        raise ValueError(
            "--split is of the demo's own questions, found others (task "
            f"{args.task}); leave it out"
        )


def _task_of(args: argparse.Namespace) -> Task:
    """The task, with what options say of it."""
    if args.task == "code":
        return _code_task(args)
    task = task_named(args.task)
    if isinstance(task, ReasoningGym):
        size = task.size if args.problems is None or args.data else args.problems
        return replace(task, seed=args.data_seed, size=size)
    return task


def _made_questions(task: ReasoningGym) -> tuple[list[Question], dict[str, Any]]:
    """The questions that a library makes."""
    asked = task.questions()
    text = json.dumps([[question.prompt, question.answer] for question in asked])
    about = f"{task.name}, seed {task.seed}, size {task.size}"
    return asked, {"file": about, "sha256": sha256(text.encode()).hexdigest()}


def _code_task(args: argparse.Namespace) -> CodeTask:
    """The task that runs programs, where that was allowed and can be done."""
    if not (args.allow_code or args.unsafe_code):
        return CodeTask()
    try:
        isolation = available_isolation(unsafe=args.unsafe_code)
    except RuntimeError as error:  # the machine's fault, to be said in one line
        raise ValueError(str(error)) from None
    return CodeTask(True, isolation=isolation)


def _own_questions(args: argparse.Namespace) -> tuple[list[Question], dict[str, Any]]:
    """The demo's questions, which come with the package."""
    own = questions(args.split)
    if args.problems is not None and args.problems > len(own):
        raise ValueError(f"--problems must be 1 to {len(own)}, found {args.problems}")
    data = {"file": f"demo, {args.split}", "sha256": digest(demo.PROBLEMS)}
    return own[: args.problems], data
