"""Answers that are equal without being the same text, for votes."""

import functools
import importlib.util
from collections.abc import Sequence

import numpy as np

from jaxmoe.evals.run import Run
from jaxmoe.evals.votes import codes
from jaxmoe.typing import Integer


@functools.lru_cache(maxsize=16)
def codes_of(run: Run) -> Integer[np.ndarray, "P n"]:
    """`votes.codes` of a run's answers, where equal answers have one code.

    Mathematics is compared by math-verify, where it is installed: "x = 5" and "5", 10 %
    and 10, factored and expanded forms are one answer. Elsewhere equal answers are
    equal texts already.
    """
    table = codes(run.answers)
    if run.manifest.get("task") != "math":
        return table
    if importlib.util.find_spec("math_verify") is None:
        return table
    from jaxmoe.evals.tasks.math_verify import Math

    task = Math()
    for row, records in zip(table, run.records, strict=True):
        first = {int(code): records[i].text for i, code in _first_of(row)}
        if len(first) > 1:
            merged = task.classes(list(first.values()))
            to = dict(zip(first, merged, strict=True))
            row[:] = [to.get(int(code), code) for code in row]
    table.flags.writeable = False  # kept for who asks next
    return table


def _first_of(row: Sequence[int] | np.ndarray) -> list[tuple[int, int]]:
    """The first sample of each answer, and its code."""
    seen: dict[int, int] = {}
    for sample, code in enumerate(row):
        if code >= 0:
            seen.setdefault(int(code), sample)
    return [(sample, code) for code, sample in seen.items()]
