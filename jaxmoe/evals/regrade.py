"""Grading again after a grader has changed, and grading answers drawn elsewhere."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from jaxmoe.evals.evaluate import about_questions
from jaxmoe.evals.grading import (
    ISOLATION,
    OPENS,
    grade_answer,
    grading_of,
    isolation_of,
    write_grading,
)
from jaxmoe.evals.message_parts import is_content, is_reasoning, text_of_parts
from jaxmoe.evals.question_files import rows_of
from jaxmoe.evals.records import Record
from jaxmoe.evals.score_files import ANSWERS_DIGEST
from jaxmoe.evals.shards import encode, read_lines, records_files
from jaxmoe.evals.store import RunDirectory, read_manifest, write_manifest
from jaxmoe.evals.tasks.base import Question, Task
from jaxmoe.evals.tasks.prompts import shown
from jaxmoe.files import lock, printable, replacing

_PROBLEMS = ("problem", "custom_id", "id", "question_id", "task_id", "doc_id")
"""Columns with a problem's id, of which the first one there decides."""
_TEXTS = (
    *("text", "texts", "output", "outputs", "completion", "completions"),
    *("response", "responses", "resps", "generated_text", "generation", "generations"),
    *("prediction", "predictions", "model_output", "answers"),
)
"""Columns with what the model wrote, of which the first one there decides.

Data sets call the right answers "answers" too, so that it comes last; "solution" is
theirs alone.
"""


@dataclass(frozen=True)
class Regraded:
    """What grading again came to: answers in all, and those that changed.

    gained, lost: answers that are right now and were not, and the other way round.
    moved: others, whose answer or details changed.
    """

    total: int
    gained: int
    lost: int
    moved: int


def grade_again(
    path: Path | str, task: Task, questions: Sequence[Question], *, graders: int = 1
) -> Regraded:
    """Grades all answers of a run directory anew, in place.

    Each records file is replaced as a whole, so that a kill leaves the old grades or
    the new ones; texts, tokens and scores stay as they are.

    Args:
      questions: those that the run was drawn for, of the same file and seed.
      graders: threads that grade.

    Raises:
      ValueError: the folder is no run, is of another task or other questions, or a
        process draws into it.
    """
    folder = Path(path)
    manifest = read_manifest(folder)
    known = _known(manifest, task, questions, folder)
    opened = bool(manifest.get(OPENS))

    def grade(record: Record) -> Record:
        found = grade_answer(
            task,
            known[record.problem],
            record.text,
            opened=opened,
            finish=record.finish,
        )
        return replace(
            record, answer=found.answer, correct=found.correct, details=found.details
        )

    total = gained = lost = moved = 0
    with ExitStack() as stack, ThreadPoolExecutor(graders) as pool:
        files = list(records_files(folder))
        for file in files:
            _lock(stack, file)
        for file in files:
            before = [line.record for line in read_lines([file])]
            after = list(pool.map(grade, before))
            _replace(file, after)
            for old, new in zip(before, after, strict=True):
                total += 1
                gained += new.correct and not old.correct
                lost += old.correct and not new.correct
                moved += old.correct == new.correct and old.line() != new.line()
    write_grading(folder, grading_of(task))
    now = {name: v for name, v in manifest.items() if name != ISOLATION}
    if (now := now | isolation_of(task)) != manifest:
        write_manifest(folder, now)
    return Regraded(total, gained, lost, moved)


def grade_file(
    path: Path,
    task: Task,
    questions: Sequence[Question],
    into: Path | str,
    *,
    data: Mapping[str, Any],
) -> None:
    """Grades answers that any engine drew, into a new run directory.

    The file has a row for each answer, or for each problem with a list of answers. A
    row names its problem (`problem`, `custom_id`, `id`, ..., the first one there, but
    for a `problem` that is the problem's text; `doc_id` is a question's place from 0)
    and holds the answer's text (`text`, `output`, `completion`, `response`, ...), a
    chat completion (`choices`), a chat (`messages`) that ends with it, or OpenAI's
    batch reply around one. Reasoning sent apart from a message's text is left out; a
    message without content is an answer without text.

    Args:
      questions: as `read_questions` gives them.
      data: where the questions are from, with "sha256" of their file.

    Raises:
      ValueError: rows that are none of these, of no such question, or problems with
        different numbers of answers.
    """
    known = {question.id: question for question in questions}
    answers: dict[str, list[str]] = {}
    for row in rows_of(path):
        try:
            if isinstance(row.values, ValueError):
                raise row.values
            id = _problem_of(row.values, questions, known)
            answers.setdefault(id, []).extend(_texts_of(row.values))
        except ValueError as error:
            raise ValueError(printable(f"{path}, {row.place}: {error}")) from None
    n = _answers_each(answers, path)
    chosen = [question for question in questions if question.id in answers]
    manifest = {
        "task": task.name,
        "data": dict(data),
        "answers": path.name,
        ANSWERS_DIGEST: _digest([answers[question.id] for question in chosen]),
        "n": n,
        "policy": "of another engine",
        "sampler": "of another engine",
        **isolation_of(task),
        **about_questions(chosen),
    }
    with RunDirectory(into, manifest) as run:
        for j, question in enumerate(chosen):
            for i, text in enumerate(answers[question.id]):
                if (question.id, i) not in run.done:
                    run.add(_record(task, question, text, j, i))
    write_grading(Path(into), grading_of(task))


def _digest(answers: Sequence[Sequence[str]]) -> str:
    """What tells these texts from others, whatever form their file has."""
    return hashlib.sha256(json.dumps(answers).encode()).hexdigest()


def _record(task: Task, question: Question, text: str, j: int, i: int) -> Record:
    grade = grade_answer(task, question, text)
    return Record(
        problem=question.id,
        sample=i,
        key=(0, j, i),
        text=text,
        finish="stop",
        answer=grade.answer,
        correct=grade.correct,
        details=grade.details,
        length=0,
        logprob_sum=None,
        logprob_mean=None,
    )


def _known(
    manifest: Mapping[str, Any],
    task: Task,
    questions: Sequence[Question],
    folder: Path,
) -> dict[str, Question]:
    """The run's questions by id, which are the ones given."""
    if manifest.get("task") != task.name:
        raise ValueError(
            f"expected a run of the task {task.name}, found one of "
            f"{manifest.get('task')!r} in {folder}; pass the run's own task"
        )
    known = {question.id: question for question in questions}
    prompts = dict(
        zip(manifest.get("problems", ()), manifest.get("prompts", ()), strict=False)
    )
    for id, prompt in prompts.items():
        if id not in known or known[id].prompt != prompt:
            found = "another prompt" if id in known else "none"
            raise ValueError(
                f"expected the question {id!r} of {folder} as it was put, found "
                f"{found}; pass the questions of the run's own file, seed and template"
            )
    return known


def _lock(stack: ExitStack, file: Path) -> None:
    """Keeps others from drawing into the file."""
    descriptor = os.open(file, os.O_RDWR)
    stack.callback(os.close, descriptor)
    if not lock(descriptor):
        raise ValueError(f"another process draws into {file}; grade when it has ended")


def _replace(file: Path, records: Sequence[Record]) -> None:
    with replacing(file) as out:
        for record in records:
            out.write(encode(record))


def _problem_of(
    row: Mapping[str, Any], questions: Sequence[Question], known: Mapping[str, Question]
) -> str:
    ids = {name: row[name] for name in _PROBLEMS if row.get(name) is not None}
    if "custom_id" in ids:
        ids.pop("id", None)  # of the reply
    if not ids:
        raise ValueError(
            f"expected the problem's id in one of {', '.join(_PROBLEMS)}, found "
            f"{shown(list(row))}; add it"
        )
    found = [_named(name, id, questions, known) for name, id in ids.items()]
    if found[0] is None and len(ids) > 1 and _puts(found[1], ids.get("problem")):
        found.pop(0)
    if found[0] is None:
        name, id = next(iter(ids.items()))
        raise ValueError(
            f'expected the id of a question in "{name}", found {shown(id)}; pass the '
            "questions that were answered"
        )
    return found[0].id


def _puts(question: Question | None, text: Any) -> bool:
    """Whether a question has this text, which is then no id, as it has several words.

    Data sets of mathematics call a problem's text "problem".
    """
    words = isinstance(text, str) and len(text.split()) > 1
    return question is not None and words and text.strip() in question.prompt


def _named(
    name: str, id: Any, questions: Sequence[Question], known: Mapping[str, Question]
) -> Question | None:
    """The question of which this is the id, in a column of this name."""
    if name == "doc_id" and type(id) is int and 0 <= id < len(questions):
        return questions[id]
    return known.get(str(id))


def _texts_of(row: Mapping[str, Any]) -> list[str]:
    """The answers of a row."""
    texts = list(_texts_in(row))
    if not texts:
        raise ValueError(
            f"expected an answer's text in one of {', '.join(_TEXTS)}, or choices, "
            f"found {shown(list(row))}; add it"
        )
    return texts


def _texts_in(value: Any) -> Iterator[str]:
    """Texts of a row, of lists of them, and of chat completions within it."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        if is_content(value):
            yield text_of_parts(value)
        else:
            for one in value:
                if not is_reasoning(one):
                    yield from _texts_in(one)
    elif isinstance(value, Mapping):
        names = ("body", "message", *_TEXTS)
        name = next((name for name in names if value.get(name) is not None), None)
        if _is_completion(value.get("choices")):
            yield from _texts_in(value["choices"])
        elif name is not None:
            yield from _texts_in(value[name])
        elif last := _last_answer(value.get("messages")):
            yield from _texts_in(last)
        elif value.get("content"):
            yield from _texts_in(value["content"])
        elif "content" in value:  # null: the tokens ended within the reasoning
            yield ""


def _is_completion(choices: Any) -> bool:
    """Whether choices are answers of a model, and not what a question lets choose."""
    if not (isinstance(choices, list) and choices):
        return False
    return all(isinstance(one, Mapping) and "label" not in one for one in choices)


def _last_answer(messages: Any) -> Any:
    """The last of a chat's messages, where the model wrote it."""
    last = messages[-1] if isinstance(messages, list) and messages else None
    answers = isinstance(last, Mapping) and last.get("role") == "assistant"
    return last if answers else None


def _answers_each(answers: Mapping[str, Sequence[str]], path: Path) -> int:
    """n; a ValueError where it is not the same for all problems."""
    numbers = {len(texts) for texts in answers.values()}
    if len(numbers) != 1:
        few = min(answers, key=lambda id: len(answers[id]), default=None)
        raise ValueError(
            f"{path}: expected the same number of answers to each problem, found "
            f"{json.dumps(sorted(numbers))}"
            + (f", fewest to {few!r}" if few is not None else "")
            + "; add those missing"
        )
    return numbers.pop()
