"""Questions put to a model: answers drawn, graded and kept as they come.

All questions go through one call of `jaxmoe.stream`; what is there already, and what
belongs to other shards, is skipped. Skipping changes no shape, so a run that was killed
or shared out ends with the answers, to the bit, of an unbroken one (and with its
grades, unless a task grades by the clock).
"""

import json
import math
import platform
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import partial
from hashlib import sha256
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxmoe.decode.inputs import (
    check_prompt,
    check_slots,
    check_top_logprobs,
    check_whole,
    read_sampler,
)
from jaxmoe.decode.request import Progress
from jaxmoe.evals.deep_conf import confident_stream, lowest_group
from jaxmoe.evals.draw import Draw
from jaxmoe.evals.grading import (
    OPENS,
    grade_answer,
    grading_of,
    isolation_of,
    read_grading,
    write_grading,
)
from jaxmoe.evals.records import Record
from jaxmoe.evals.run import pack_routes
from jaxmoe.evals.shards import WHOLE, Shard, read_lines, records_files
from jaxmoe.evals.store import RunDirectory, RunWriteError, differences
from jaxmoe.evals.tasks.base import Question, Task
from jaxmoe.evals.tasks.reasoning import opens_reasoning
from jaxmoe.evals.times import Go, add_go
from jaxmoe.model import Model
from jaxmoe.ops.bf16_bits import is_bits
from jaxmoe.router.policies import for_model
from jaxmoe.sampling import Finished, stream
from jaxmoe.sharding.processes import check_equal, first_decides, wait_for_all

FORMAT = 1
"""Of the run directory; another number is another configuration."""

VERSIONS = ("jaxmoe", "jax", "jaxlib", "flax", "tokenizers")
"""Libraries that answers depend on."""

BACKLOG = 4
"""Answers that may wait for each grader; drawing stops for more."""


@dataclass(frozen=True)
class Keep:
    """What of an answer is kept beside its text and its sums.

    tokens: ids. routes: the experts of every token. certainty: the mean
    self-certainty, which costs a look at all logits of every step.
    """

    tokens: bool = False
    routes: bool = False
    certainty: bool = True


DEFAULT = Keep()


@dataclass(frozen=True)
class Status:
    """How far an evaluation has come, this shard's answers alone.

    done, correct: answers kept, in this go and before. drawn: in this go. total: of
    the shard. tokens, seconds: of this go.
    """

    done: int
    correct: int
    drawn: int
    total: int
    tokens: int
    seconds: float

    @property
    def tokens_per_second(self) -> float:
        """Mean rate of this go, compilation included."""
        return self.tokens / self.seconds if self.seconds else 0.0

    @property
    def accuracy(self) -> float:
        """Share of right answers so far; NaN where there are none."""
        return self.correct / self.done if self.done else math.nan

    @property
    def seconds_left(self) -> float:
        """At this go's mean rate of answers; NaN where none has come."""
        left = self.total - self.done
        return left * self.seconds / self.drawn if self.drawn else math.nan


def prompts_of(
    model: Model,
    task: Task,
    questions: Sequence[Question],
    *,
    thinking: bool | None = None,
) -> list[Sequence[int] | str]:
    """Each question as the model reads it: in its chat template, or as it is.

    thinking: whether a chat's answer may begin with reasoning; None for the template's
    own way.
    """
    if not task.chat:
        return [question.prompt for question in questions]
    return [
        model.chat([{"role": "user", "content": q.prompt}], enable_thinking=thinking)
        for q in questions
    ]


def manifest_of(
    model: Model,
    task: Task,
    questions: Sequence[Question],
    prompts: Sequence[np.ndarray],
    draw: Draw,
    *,
    keep: Keep,
    checkpoint: str,
    data: Mapping[str, Any],
    thinking: bool | None = None,
) -> dict[str, Any]:
    """All that decides a run's records, and what a report says of it.

    prompts: token ids, as the model reads them; their digest shows another tokenizer
      or chat template. checkpoint: the digest of its weights. data: where the questions
      are from, with "sha256" of the file.
    """
    slots = check_slots(model, len(questions) * draw.n, draw.slots)
    mesh = {} if model.layout is None else {"mesh": model.layout.describe()}
    return {
        "format": FORMAT,
        "task": task.name,
        "data": dict(data),
        "checkpoint": checkpoint,
        **draw.describe(),
        "slots": slots,
        **mesh,
        "thinking": thinking,
        OPENS: _open_reasoning(model, prompts),
        **isolation_of(task),
        "prompts_sha256": _sha256([prompt.tolist() for prompt in prompts]),
        "config_sha256": _sha256(repr(model.config)),
        "weights": _weights_of(model),
        "device": jax.devices()[0].device_kind,
        "kept": {"tokens": keep.tokens, "routes": keep.routes}
        | {"certainty": keep.certainty},
        "versions": _versions(),
        **about_questions(questions),
    }


def _weights_of(model: Model) -> str:
    """What weights are: their type, also where their bits are held, "int8" or "fp8"."""
    held = model.config.weights
    if held != "float":
        return str(held)
    weight = model.params["embed.weight"]
    return "bfloat16" if is_bits(weight) else str(weight.dtype)


def about_questions(questions: Sequence[Question]) -> dict[str, list[str]]:
    """What a manifest says of each question."""
    return {
        "problems": [question.id for question in questions],
        "groups": [question.group for question in questions],
        "prompts": [question.prompt for question in questions],
        "references": [_reference(question) for question in questions],
    }


def _open_reasoning(model: Model, prompts: Sequence[np.ndarray]) -> bool:
    """Whether all prompts end within thinking, as a chat template may have them."""
    tokenizer = model.tokenizer
    if tokenizer is None or not len(prompts):
        return False
    ends = (prompt[-16:].tolist() for prompt in prompts)
    return all(
        opens_reasoning(tokenizer.decode(end, skip_special_tokens=False))
        for end in ends
    )


def evaluate(
    model: Model,
    task: Task,
    questions: Sequence[Question],
    draw: Draw,
    path: Path,
    *,
    checkpoint: str,
    data: Mapping[str, Any],
    shard: Shard = WHOLE,
    keep: Keep = DEFAULT,
    thinking: bool | None = None,
    graders: int = 1,
    progress: Callable[[Status], None] | None = None,
) -> None:
    """Draws and grades n answers to each question, into the run directory `path`.

    What is there already is kept: a run that was stopped goes on, and ends with the
    same records. Question j of the list uses `fold_in(key, j)`. Of several processes
    all make the same call; the first one reads, grades and writes.

    Args:
      checkpoint: the digest of the weights (`jaxmoe.checkpoints.store.read_manifest`).
      data: where the questions are from, with "sha256" of the file.
      shard: only its questions are drawn; all by default.
      graders: threads that grade while the device goes on drawing.
      progress: called now and then.

    Raises:
      ValueError: no questions; prompts that do not fit; a directory of another run, or
        one that another process is writing.
      OSError: a disk that is full or cannot be written; what was kept is safe.
    """
    _check(model, questions, draw, graders)
    prompts = [
        check_prompt(model, prompt, draw.max_new_tokens)
        for prompt in prompts_of(model, task, questions, thinking=thinking)
    ]
    manifest = manifest_of(
        model,
        task,
        questions,
        prompts,
        draw,
        keep=keep,
        checkpoint=checkpoint,
        data=data,
        thinking=thinking,
    )
    check_equal({"options and questions": manifest, "shard": repr(shard)})
    run: _Run | None = None

    def begin() -> list[list[Any]]:
        nonlocal run
        directory = stack.enter_context(RunDirectory(path, manifest, shard))
        run = _Run(task, questions, draw, keep, shard, directory, graders, progress)
        return [sorted(run.skipped()), run.confidences()]

    with ExitStack() as stack:
        skipped, confidences = first_decides(begin)
        skip = {(j, i) for j, i in skipped}
        if len(skip) == len(questions) * draw.n:
            return
        draw_all: Callable[..., Iterator[Finished]] = stream
        if draw.deep_conf is not None:
            known = {(j, i): value for j, i, value in confidences}
            draw_all = partial(confident_stream, rule=draw.deep_conf, known=known)
        answers = draw_all(
            model,
            prompts,
            key=draw.key,
            n=draw.n,
            policy=draw.policy,
            sampler=draw.sampler,
            max_new_tokens=draw.max_new_tokens,
            slots=manifest["slots"],
            noisy_prefill=draw.noisy_prefill,
            return_routes=keep.routes,
            return_certainty=keep.certainty,
            skip=skip,
            progress=None if run is None else run.report,
        )
        if run is None:
            deque(answers, maxlen=0)
        else:
            run.keep_all(answers)
    wait_for_all()


def _check(
    model: Model, questions: Sequence[Question], draw: Draw, graders: int
) -> None:
    """Finds what does not fit before the directory is made.

    The options put right would be another configuration.
    """
    if not questions:
        raise ValueError("expected at least one question, found none")
    for name in ("n", "max_new_tokens"):
        check_whole(name, getattr(draw, name))
    check_whole("graders", graders)
    for policy in draw.policies:
        for_model(policy, model.config, several=not draw.noisy_prefill)
    _check_policies(draw)
    read_sampler(model, draw.sampler)
    if draw.deep_conf is not None:
        check_top_logprobs(model, draw.deep_conf.top)


def _check_policies(draw: Draw) -> None:
    """Raises a ValueError for policies of single answers that are not one for each."""
    if not isinstance(draw.policy, tuple):
        return
    if len(draw.policy) != draw.n:
        raise ValueError(
            f"policies of single answers must be n = {draw.n}, found "
            f"{len(draw.policy)}; give one for each answer"
        )
    if draw.deep_conf is not None and draw.deep_conf.warm_up < draw.n:
        raise ValueError(
            "policies of single answers go with answers that are drawn whole, found "
            f"DeepConf with a warm-up of {draw.deep_conf.warm_up} of {draw.n}; leave "
            "it out, or pass DeepConf(warm_up=n)"
        )


class _Run:
    """The records of one go: what is graded, kept and reported."""

    def __init__(
        self,
        task: Task,
        questions: Sequence[Question],
        draw: Draw,
        keep: Keep,
        shard: Shard,
        directory: RunDirectory,
        graders: int,
        progress: Callable[[Status], None] | None,
    ):
        """See `evaluate`."""
        self.task, self.questions, self.draw, self.keep = task, questions, draw, keep
        self.shard, self.directory, self.progress = shard, directory, progress
        self.opened = bool(directory.manifest.get(OPENS))
        self._note_grading()
        own = {q.id for j, q in enumerate(questions) if shard.of(j)}
        lines = read_lines(records_files(directory.path))
        before = [line.record for line in lines if line.record.problem in own]
        self.before = before
        self.done, self.drawn = len(before), 0
        self.correct = sum(record.correct for record in before)
        self.total = len(own) * draw.n
        self.tokens, self.began = 0, time.perf_counter()
        self.graders = graders
        self.pending: deque[Future[Record]] = deque()

    def _note_grading(self) -> None:
        """Keeps how answers are graded, and warns where some were graded otherwise."""
        folder, now = self.directory.path, grading_of(self.task)
        before = read_grading(folder) if self.directory.done else None
        if before is None:
            write_grading(folder, now)
        elif before != now:
            warnings.warn(
                f"{self.directory.shown}: its answers were graded by another version "
                f"({differences(before, now)}); grade it again, so that all are "
                "graded alike",
                stacklevel=2,
            )

    def skipped(self) -> set[tuple[int, int]]:
        """(question, sample) of what is there, or belongs to other shards."""
        return {
            (j, i)
            for j, question in enumerate(self.questions)
            for i in range(self.draw.n)
            if not self.shard.of(j) or (question.id, i) in self.directory.done
        }

    def confidences(self) -> list[tuple[int, int, float]]:
        """(question, sample, confidence) of what is there, as far as it is known."""
        place = {question.id: j for j, question in enumerate(self.questions)}
        return [
            (place[record.problem], record.sample, record.confidence)
            for record in self.before
            if record.confidence is not None
        ]

    def keep_all(self, answers: Iterator[Finished]) -> None:
        """Grades in threads while the next answers are drawn; keeps in order."""
        with ThreadPoolExecutor(self.graders) as pool:
            try:
                for answer in answers:
                    self.pending.append(pool.submit(self._record, answer))
                    self._keep_graded(BACKLOG * self.graders)
            except RunWriteError:
                self.pending.clear()  # nothing more can be kept
                raise
            finally:
                # Also where drawing was stopped: what is drawn is not drawn again.
                self._keep_graded(0)
                self._note_time()

    def _note_time(self) -> None:
        seconds = time.perf_counter() - self.began
        with suppress(OSError):  # of a full disk, which was said already
            go = Go(seconds, self.drawn, self.tokens)
            add_go(self.directory.path, self.shard, go)

    def _keep_graded(self, most: int) -> None:
        """Keeps what is graded; waits while more than `most` are not."""
        while self.pending and (self.pending[0].done() or len(self.pending) > most):
            self._keep(self.pending.popleft().result())

    def report(self, now: Progress | None = None) -> None:
        """Tells how far the run has come; with `now`, after every segment."""
        if now is not None:
            self.tokens = now.tokens
            self._keep_graded(BACKLOG * self.graders)
            self.directory.sync_if_due()
        if self.progress is not None:
            seconds = time.perf_counter() - self.began
            counts = (self.done, self.correct, self.drawn, self.total)
            self.progress(Status(*counts, self.tokens, seconds))

    def _keep(self, record: Record) -> None:
        self.directory.add(record)
        self.done, self.drawn = self.done + 1, self.drawn + 1
        self.correct += record.correct
        self.report()

    def _record(self, answer: Finished) -> Record:
        question, text = self.questions[answer.prompt], answer.text or ""
        grade = grade_answer(
            self.task, question, text, opened=self.opened, finish=answer.finish
        )
        total = float(answer.logprobs.sum(dtype=np.float64))
        length = len(answer.tokens)
        return Record(
            problem=question.id,
            sample=answer.sample,
            key=(self.draw.seed, answer.prompt, answer.sample),
            text=text,
            finish=answer.finish,
            answer=grade.answer,
            correct=grade.correct,
            details=grade.details,
            length=length,
            logprob_sum=_finite(total),
            logprob_mean=_finite(total / length),
            self_certainty=_mean(answer.certainties),
            confidence=self._confidence(answer),
            tokens=tuple(answer.tokens.tolist()) if self.keep.tokens else None,
            routes=None if answer.routes is None else pack_routes(answer.routes),
        )

    def _confidence(self, answer: Finished) -> float | None:
        rule = self.draw.deep_conf
        return None if rule is None else _finite(lowest_group(answer, rule.group))


def _sha256(value: Any) -> str:
    return sha256(json.dumps(value).encode()).hexdigest()


def _versions() -> dict[str, str]:
    found = {"python": ".".join(platform.python_version_tuple()[:2])}
    for name in VERSIONS:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def _mean(values: np.ndarray | None) -> float | None:
    return None if values is None else _finite(float(values.mean(dtype=np.float64)))


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _reference(question: Question) -> str:
    """The right answer as a report shows it; nothing where it is no plain value."""
    plain = isinstance(question.answer, str | int | float)
    return str(question.answer) if plain else ""
