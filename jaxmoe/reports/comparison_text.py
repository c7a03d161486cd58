"""Runs and comparisons as text for people."""

from collections.abc import Sequence
from typing import Any

from jaxmoe.evals.comparison import Comparison, RunSummary
from jaxmoe.evals.draw import in_words
from jaxmoe.evals.grading import ISOLATION
from jaxmoe.reports.text_table import number


def as_text(found: RunSummary) -> str:
    """A few lines for people."""
    about = found.about
    lines = [
        f"{len(found.right)} problems of {about['task']}, {found.n} answers each",
        in_words(about["policy"]),
        in_words(about["sampler"]),
        *_isolation([found]),
        *_aligned(found.measures.items()),
        *_aligned((k, number(v)) for k, v in found.numbers.items()),
    ]
    return "\n".join(lines)


def _aligned(rows: Any) -> list[str]:
    rows = list(rows)
    width = max(len(name) for name, _ in rows)
    return [f"  {name:<{width}}  {value}" for name, value in rows]


def comparison_text(found: Comparison) -> str:
    """Tables for people: every run's measures, then the differences."""
    names = list(dict.fromkeys(m for run in found.runs for m in run.measures))
    rows = [["", *(run.name for run in found.runs)]]
    for name in names:
        rows.append([name, *(str(run.measures.get(name, "")) for run in found.runs)])
    head = [f"{len(found.problems)} problems of {found.task}", *_isolation(found.runs)]
    text = "\n".join([*head, _table(rows)])
    if not found.differences:
        return text
    rows = [["difference", "", "", "p", "p (Holm)"]]
    for d in found.differences:
        p_values = (f"{p:.3g}" for p in (d.p_value, d.adjusted))
        rows.append([f"{d.b} less {d.a}", d.measure, str(d.interval), *p_values])
    return f"{text}\n\n{_table(rows)}"


def _isolation(runs: Sequence[RunSummary]) -> list[str]:
    """The isolation of programs, of runs that ran any."""
    found = {run.name: run.about.get(ISOLATION) for run in runs}
    if not any(found.values()):
        return []
    kinds = set(found.values())
    said = {name: kind or "not recorded" for name, kind in found.items()}
    each = [f"{kind} ({name})" for name, kind in said.items()]
    return [f"programs ran in: {kinds.pop() if len(kinds) == 1 else ', '.join(each)}"]


def _table(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )
