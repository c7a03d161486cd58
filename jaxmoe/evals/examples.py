"""Problems and answers to be read: few enough for a page, and of every kind."""

from collections.abc import Iterable, Sequence

import numpy as np

from jaxmoe.evals.comparison import Answer, Example
from jaxmoe.evals.records import Record
from jaxmoe.evals.run import Run

PROBLEMS = 64
"""Problems at most."""
ANSWERS = 4
"""Answers of a run to a problem at most."""
LONGEST = 6000
"""Characters of a text; of a longer one the middle is left out."""
CHARACTERS = 2_000_000
"""Of all texts together: no problem is added beyond."""


def examples_of(runs: Sequence[Run]) -> tuple[Example, ...]:
    """Problems that one run solved alone, the surest first; then some of the others.

    Those are spread evenly over the file. Of a problem's answers in a run, one of each
    kind (right, wrong, cut off, nothing read) is taken, then the first ones.

    Args:
      runs: of the same problems.
    """
    right = np.stack([run.correct.sum(axis=1) for run in runs])
    alone = np.flatnonzero((right > 0).sum(axis=0) == 1) if len(runs) > 1 else []
    first = sorted(map(int, alone), key=lambda j: -right[:, j].max())[:PROBLEMS]
    others = [j for j in range(right.shape[1]) if j not in set(map(int, alone))]
    room = min(PROBLEMS - len(first), len(others))
    spread = np.linspace(0, len(others) - 1, room).round().astype(int) if room else []
    chosen = [*first, *(others[place] for place in spread)]
    found, characters = [], 0
    for j in chosen:
        example = _example(runs, j, right[:, j], j in first)
        characters += len(example.prompt) + sum(
            len(answer.text) for some in example.answers.values() for answer in some
        )
        if found and characters > CHARACTERS:
            break
        found.append(example)
    return tuple(found)


def _example(runs: Sequence[Run], j: int, right: np.ndarray, alone: bool) -> Example:
    manifest = runs[0].manifest
    place = manifest["problems"].index(runs[0].ids[j])
    return Example(
        problem=runs[0].ids[j],
        prompt=excerpt(manifest["prompts"][place]),
        reference=excerpt(manifest["references"][place]),
        solved_by=runs[int(right.argmax())].name if alone else None,
        right={run.name: int(c) for run, c in zip(runs, right, strict=True)},
        answers={run.name: tuple(map(_answer, _some(run.records[j]))) for run in runs},
    )


def _some(records: Iterable[Record]) -> list[Record]:
    """At most `ANSWERS` of them, in their order."""
    records = list(records)
    kinds = {}
    for record in records:
        kind = (record.correct, record.answer is None, record.finish == "length")
        kinds.setdefault(kind, record.sample)
    first = list(kinds.values())
    others = [r.sample for r in records if r.sample not in set(first)]
    chosen = {*first[:ANSWERS], *others[: max(0, ANSWERS - len(first))]}
    return [record for record in records if record.sample in chosen]


def _answer(record: Record) -> Answer:
    return Answer(
        sample=record.sample,
        text=excerpt(record.text),
        read=None if record.answer is None else excerpt(record.answer),
        right=record.correct,
        cut=record.finish == "length",
        tokens=record.length,
    )


def excerpt(text: str) -> str:
    """A text, of a long one a third from its beginning and the rest from its end.

    The end is where the answer stands.
    """
    if len(text) <= LONGEST:
        return text
    start = LONGEST // 3
    left = len(text) - LONGEST
    return (
        f"{text[:start]}\n[... {left:,} characters left out ...]\n"
        f"{text[start + left :]}"
    )
