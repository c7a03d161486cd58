"""Kinds of problems, by name: how a row becomes a question, how an answer is graded.

aime: integers from 0 to 999 in a box. math: LaTeX, compared by the optional library
math-verify. gpqa, mcq: multiple choice. exact: one of a few strings. code: programs
that are run against tests. reasoning-gym:NAME: a data set of that library.

The demo's numbers game is a task as well, `jaxmoe.demo.countdown.Countdown`; it lives
with the demo, on which nothing here depends.
"""

from importlib import import_module

from jaxmoe.evals.tasks.base import Grade, Question, Task

# Module and callable; imported where asked for, since a task may need what others do
# not.
_PLACES = {
    "aime": ("aime", "Aime"),
    "math": ("math_verify", "Math"),
    "gpqa": ("choice", "gpqa"),
    "mcq": ("choice", "mcq"),
    "exact": ("exact", "Exact"),
    "code": ("code", "CodeTask"),
    "reasoning-gym:NAME": ("reasoning_gym", "ReasoningGym"),
}

TASKS = tuple(_PLACES)
"""The names that `task` knows, where NAME stands for any data set of reasoning-gym."""

GYM = "reasoning-gym:"
"""How the names of its data sets begin."""


def task(name: str) -> Task:
    """The task of a name.

    Raises:
      ValueError: no task has this name.
    """
    if name.startswith(GYM):
        from jaxmoe.evals.tasks.reasoning_gym import ReasoningGym

        return ReasoningGym(name.removeprefix(GYM))
    if name not in _PLACES:
        raise ValueError(
            f"expected one of the tasks {', '.join(TASKS)}, found {name!r}; countdown "
            "is jaxmoe.demo.countdown.Countdown(), and any object that is a "
            "jaxmoe.evals.tasks.Task will do"
        )
    module, made_by = _PLACES[name]
    return getattr(import_module(f"jaxmoe.evals.tasks.{module}"), made_by)()


__all__ = ["GYM", "TASKS", "Grade", "Question", "Task", "task"]
