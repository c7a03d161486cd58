"""Scores of answers by something other than the model: a verifier.

A verifier is any function from a problem and its answers to one number for each,
higher is better. Scores are kept as they come, so that a broken connection costs no
more than the problems that were being scored.
"""

import math
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from queue import SimpleQueue
from threading import Thread
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float

_SHOWN = 200
"""Characters of a text shown in an error."""


class VerifierError(RuntimeError):
    """A verifier that gave no scores that can be used."""


@runtime_checkable
class Verifier(Protocol):
    """Scores the answers to one problem; called from several threads at once."""

    def __call__(self, problem: str, answers: Sequence[str]) -> Sequence[float]:
        """One finite number for each answer, in their order; higher is better."""
        ...


def scores_from(
    verifier: Verifier,
    problems: Sequence[str],
    texts: Sequence[Sequence[str]],
    *,
    workers: int = 4,
    done: Mapping[int, Sequence[float]] | None = None,
    keep: Callable[[int, list[float]], None] | None = None,
    max_failures: int = 8,
) -> Float[np.ndarray, "P n"]:
    """A verifier's scores of n texts to each problem.

    Attempts again are the verifier's own affair. A problem whose scores did not come is
    never filled in, as a made-up score would be ranked: the others are still scored and
    given to `keep`, no more are begun after `max_failures` such problems, and one error
    is raised at the end. Call again with what was kept as `done` for the rest. Ctrl-C
    ends it at once: what had come is given to `keep`, the up to `workers` problems
    under way are left.

    Args:
      problems: what each problem asks.
      texts: n answers to each.
      workers: problems scored at once, each in a thread.
      done: problem's index -> its scores, which are not asked for again.
      keep: called with a problem's index and scores as they come, from the thread that
        called `scores_from`.
      max_failures: problems without scores before the rest is left.

    Returns:
      float64.

    Raises:
      ValueError: texts that are not n for each problem, scores in `done` that are not n
        finite numbers or of no problem, workers or max_failures below 1.
      VerifierError: problems whose scores did not come.
    """
    n = _answers_each(problems, texts)
    if workers < 1 or max_failures < 1:
        raise ValueError(
            "workers and max_failures must be at least 1, found "
            f"{workers} and {max_failures}; pass for example 4 and 8"
        )
    scores = np.full((len(problems), n), np.nan)
    for index, values in (done or {}).items():
        if not 0 <= index < len(problems):
            raise ValueError(
                f"done must hold problems in 0..{len(problems) - 1}, found {index}; "
                "pass the scores of these problems"
            )
        scores[index] = _checked(values, n, _label(index, problems))

    def ask(index: int) -> list[float]:
        values = verifier(problems[index], texts[index])
        return _checked(values, n, _label(index, problems))

    waiting = deque(j for j in range(len(problems)) if j not in (done or {}))
    failed: dict[int, Exception] = {}
    for index, result in _in_threads(ask, waiting, workers):
        if isinstance(result, Exception):
            failed[index] = result
            if len(failed) == max_failures:
                waiting.clear()  # those that run still end
            continue
        scores[index] = result
        if keep is not None:
            keep(index, result)
    if failed:
        raise _failure(failed, scores, problems)
    return scores


def end_of(text: str) -> str:
    """The end of a long text, for errors; a reply's score would be there."""
    return text if len(text) <= _SHOWN else "..." + text[-_SHOWN:]


def _label(index: int, problems: Sequence[str]) -> str:
    return f"problem {index} ({problems[index][:40]!r})"


def _answers_each(problems: Sequence[str], texts: Sequence[Sequence[str]]) -> int:
    """n; a ValueError where it is not the same for all problems."""
    numbers = {len(row) for row in texts}
    if len(texts) != len(problems) or len(numbers) > 1:
        raise ValueError(
            f"expected the same number of texts for each of {len(problems)} problems, "
            f"found {len(texts)} lists with {sorted(numbers)} texts; finish the run"
        )
    return numbers.pop() if numbers else 0


def _checked(values: Any, n: int, label: str) -> list[float]:
    """A verifier's scores as n finite floats."""
    try:
        scores = [float(value) for value in values]
    except (TypeError, ValueError):
        scores = [math.nan]
    finite = all(map(math.isfinite, scores))
    if len(scores) != n or not finite:
        found = len(scores) if finite else end_of(repr(values))
        raise ValueError(
            f"{label}: expected {n} finite scores, found {found}; return one number "
            "for each answer"
        )
    return scores


def _in_threads(
    ask: Callable[[int], list[float]], waiting: deque[int], workers: int
) -> Iterator[tuple[int, list[float] | Exception]]:
    """What came of each index in `waiting`, as it comes, `workers` at a time.

    None is taken out before a thread is free for it, so clearing `waiting` stops all
    that have not begun.
    """
    results: SimpleQueue[tuple[int, list[float] | BaseException]] = SimpleQueue()

    def work(index: int) -> None:
        try:
            results.put((index, ask(index)))
        except BaseException as error:  # raised again where it is waited for
            results.put((index, error))

    running = 0
    while waiting or running:
        while waiting and running < workers:
            # A pool's threads would hold up the end of the program after Ctrl-C.
            Thread(target=work, args=(waiting.popleft(),), daemon=True).start()
            running += 1
        try:
            index, result = results.get()
        except KeyboardInterrupt:
            yield from _finished(results)
            raise
        running -= 1
        yield index, _no_exit(result)


def _finished(
    results: SimpleQueue[tuple[int, list[float] | BaseException]],
) -> Iterator[tuple[int, list[float] | Exception]]:
    """What has come by now."""
    while not results.empty():
        index, result = results.get()
        yield index, _no_exit(result)


def _no_exit(result: list[float] | BaseException) -> list[float] | Exception:
    """The result; what is meant to end the program is raised."""
    if isinstance(result, BaseException) and not isinstance(result, Exception):
        raise result
    return result


def _failure(
    failed: Mapping[int, Exception],
    scores: Float[np.ndarray, "P n"],
    problems: Sequence[str],
) -> VerifierError:
    index = min(failed)
    text, label = str(failed[index]), _label(index, problems)
    if not text.startswith(label):
        text = f"{label}: {type(failed[index]).__name__}: {text}"
    have = int(np.isfinite(scores).all(axis=1).sum())
    failure = VerifierError(
        f"expected scores for {len(problems)} problems, found them for {have}; call "
        f"again for the rest. Failed: {len(failed)}, first {text}"
    )
    failure.__cause__ = failed[index]
    return failure
