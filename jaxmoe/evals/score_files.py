"""Files of scores: written as a verifier's scores come, and read for a comparison."""

import hashlib
import itertools
import json
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxmoe.evals.run import Run
from jaxmoe.evals.store import RunWriteError
from jaxmoe.evals.tasks.reasoning import answer_in
from jaxmoe.evals.verifiers import Verifier, VerifierError, end_of, scores_from
from jaxmoe.files import lock, write_all

_BEGINNING = b'{"problem": '
"""Of each line of scores that `score_run` writes."""
_HEAD = b'{"verifier": '
"""Of the line before them that says whose they are, and of which run."""
_OF_HEAD = {"verifier", "run"}
_DECIDES = (
    *("checkpoint", "config_sha256", "weights", "prompts_sha256", "problems"),
    *("policy", "sampler", "n", "max_new_tokens", "seed", "noisy_prefill"),
    "deep_conf",
)
"""Entries of a manifest that decide the answers."""
_GIVEN = "answers_sha256"
"""Of answers that another engine drew, which no such entry decides."""

Identity = Mapping[str, str | bool]
"""What tells verifiers apart, such as {"url": ..., "model": ...}."""


def score_run(
    run: Run,
    verifier: Verifier,
    path: Path | str,
    *,
    identity: Identity | None = None,
    workers: int = 4,
    progress: Callable[[int], None] | None = None,
) -> Float[np.ndarray, "P n"]:
    """A verifier's scores of all answers of a run, kept in a file as they come.

    Each problem's scores are appended to the file in one write, as a line
    {"problem": id, "scores": [n numbers]}, and outlive the process from then on. The
    next call keeps whole lines, cuts off half a last one, and scores the rest. With an
    identity the first line is {"verifier": identity, "run": {"name", "sha256"}}. Give
    each run its own file.

    Args:
      run: P problems, n answers to each.
      verifier: called with a problem's prompt and the texts of its answers, less the
        reasoning before them.
      path: the file; made, with its folder, where it is missing.
      identity: whose scores they are; those of others are not added to.
      workers: problems scored at once, each in a thread.
      progress: called with the number of problems that have scores, at the start and
        after each problem.

    Returns:
      float64.

    Raises:
      ValueError: a manifest without prompts; a file that another process adds to, of
        another run, of another identity or of none where there is one, or with a line
        that is no such line, of an unknown problem, with a wrong number of scores or of
        a problem that has some; workers below 1.
      VerifierError: problems whose scores did not come; those of the others are kept.
      RunWriteError: the file could not be written.
    """
    path, report = Path(path), progress or (lambda done: None)
    problems = _prompts_of(run)
    texts = [[answer_in(record.text) for record in row] for row in run.records]
    with _opened(path) as descriptor:
        done = _take(descriptor, path, run, identity)
        report(len(done))

        def keep(index: int, scores: list[float]) -> None:
            row = {"problem": run.ids[index], "scores": scores}
            try:
                _append(descriptor, json.dumps(row).encode() + b"\n")
            except OSError as error:
                raise RunWriteError(
                    f"{path} cannot be written ({error.strerror}); the scores of "
                    f"{len(done)} problems are kept: make room, and call again for "
                    "the rest"
                ) from error
            done[index] = scores
            report(len(done))

        before = dict(done)
        try:
            return scores_from(
                verifier, problems, texts, workers=workers, done=before, keep=keep
            )
        except VerifierError as error:
            raise VerifierError(
                f"{error} ({path} keeps the scores of {len(done)} problems)"
            ) from error


def read_scores(path: Path, ids: Sequence[str], n: int) -> Float[np.ndarray, "P n"]:
    """Scores from a file of JSON lines, in the order of `ids`.

    A line is {"problem": id, "sample": i, "score": x} with i in 0..n-1, or
    {"problem": id, "scores": [n numbers]}; both kinds may be mixed, in any order. null
    is an unknown score and becomes nan, which counts as the lowest. A first line that
    says whose scores they are (`verifier_of`) may be there, or not, as in older files.

    Args:
      path: the file; empty lines are skipped.
      ids: every problem's id.
      n: answers to each problem.

    Returns:
      float64.

    Raises:
      ValueError: a line that is none of these, an unknown id, a score given twice, a
        wrong number of scores, or scores missing.
    """
    rows = {name: row for row, name in enumerate(ids)}
    if len(rows) != len(ids):
        raise ValueError(
            f"expected ids that differ, found {len(rows)} among {len(ids)}; name each "
            "problem once"
        )
    scores = np.full((len(ids), n), np.nan)
    source: dict[tuple[int, int], int] = {}
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip() or (number == 1 and _identity_in(line) is not None):
                continue
            try:
                for name, sample, score in _parse_line(line, n):
                    place = _place(rows, name, sample, source)
                    source[place] = number
                    scores[place] = score
            except (ValueError, OverflowError) as error:
                raise ValueError(f"{path}, line {number}: {error}") from None
    places = itertools.product(range(len(ids)), range(n))
    if missing := next((place for place in places if place not in source), None):
        row, sample = missing
        raise ValueError(
            f"{path}: expected {len(ids) * n} scores, found {len(source)}; add those "
            f"missing, first that for sample {sample} of problem {ids[row]!r}, or null "
            "where it is unknown"
        )
    return scores


def read_scores_of(run: Run, path: Path) -> Float[np.ndarray, "P n"]:
    """The scores of a run's answers, as `read_scores` reads them.

    Raises:
      ValueError: as of `read_scores`; a file that names another run.
    """
    with path.open(encoding="utf-8") as file:
        _check_run(file.readline(), path, run)
    return read_scores(path, run.ids, run.n)


def verifier_of(path: Path) -> Identity | None:
    """Whose scores a file holds; None where it does not say."""
    with path.open(encoding="utf-8") as file:
        return _identity_in(file.readline())


# -- writing ---------------------------------------------------------------------------


def _prompts_of(run: Run) -> list[str]:
    """What each problem of a run asks, in the order of its ids."""
    problems, prompts = run.manifest["problems"], run.manifest.get("prompts")
    if not isinstance(prompts, list) or len(prompts) != len(problems):
        raise ValueError(
            f"expected a prompt for each problem in the manifest of {run.name}, found "
            "another number or none; evaluate it with this version"
        )
    prompt = dict(zip(problems, prompts, strict=True))
    return [prompt[id] for id in run.ids]


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """A file's descriptor, with a lock for as long as it is open."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        if not lock(descriptor):
            raise ValueError(
                f"another process adds scores to {path}; wait for it, or choose "
                "another file"
            )
        yield descriptor
    finally:
        os.close(descriptor)


def _take(
    descriptor: int, path: Path, run: Run, identity: Identity | None
) -> dict[int, list[float]]:
    """The scores that are there, by the problem's row; cuts off half a last line.

    Nothing is changed in a file that holds something else. A new one gets its head.
    """
    with os.fdopen(os.dup(descriptor), "rb") as file:
        *lines, half = file.read().split(b"\n")
    done = _rows_in(lines, path, run)
    if lines:
        _check_run(lines[0], path, run)
        _check_identity(lines[0], path, identity)
    beginning = _BEGINNING if lines or identity is None else _HEAD
    if half[: len(beginning)] != beginning[: len(half)]:
        raise ValueError(
            f"{path}, line {len(lines) + 1}: expected scores, found "
            f"{end_of(half.decode(errors='replace'))!r}; choose another file"
        )
    if half:
        os.ftruncate(descriptor, os.fstat(descriptor).st_size - len(half))
    if not lines and identity is not None:
        _append(descriptor, _head(identity, run))
    return done


def _head(identity: Identity, run: Run | None = None) -> bytes:
    head: dict[str, Any] = {"verifier": dict(identity)}
    if run is not None:
        head["run"] = {"name": run.name, "sha256": _digest_of(run)}
    return json.dumps(head).encode() + b"\n"


def _digest_of(run: Run) -> str:
    """What tells a run's answers from another's, however they are graded."""
    decides = {name: run.manifest.get(name) for name in _DECIDES}
    if _GIVEN in run.manifest:
        decides[_GIVEN] = run.manifest[_GIVEN]
    text = json.dumps(decides, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _check_run(first: str | bytes, path: Path, run: Run) -> None:
    """Raises a ValueError where the first line of a file names another run."""
    found = _head_in(first).get("run")
    if not isinstance(found, dict) or found.get("sha256") == _digest_of(run):
        return
    raise ValueError(
        f"expected scores of the answers of {run.name} in {path}, found those of a run "
        f"named {found.get('name')!r} that drew others; give each run its own file"
    )


def _check_identity(first: bytes, path: Path, identity: Identity | None) -> None:
    """Raises a ValueError for scores of another verifier than is to add to them."""
    found = _identity_in(first)
    if found == (None if identity is None else dict(identity)):
        return
    if identity is None:
        raise ValueError(
            f"{path} holds scores of {verifier_in_words(found)}; name it as the "
            "verifier's identity, or choose another file"
        )
    if found is None:
        raise ValueError(
            f"{path} does not say whose scores it holds; choose another file or, if "
            f"they are of the same verifier, put this line before them: "
            f"{_head(identity).decode().strip()}"
        )
    raise ValueError(
        f"expected scores of {verifier_in_words(identity)} in {path}, found those of "
        f"{verifier_in_words(found)}; choose another file"
    )


def _rows_in(lines: Sequence[bytes], path: Path, run: Run) -> dict[int, list[float]]:
    """Row -> scores of whole lines; the first one may say whose they are."""
    rows = {id: row for row, id in enumerate(run.ids)}
    done: dict[int, list[float]] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or (number == 1 and _identity_in(line) is not None):
            continue
        try:
            row, scores = _whole_row(line, rows, run.n)
            if row in done:
                raise ValueError(
                    f"expected problem {run.ids[row]!r} once, found it again; remove "
                    "one of the lines"
                )
        except (ValueError, OverflowError) as error:
            raise ValueError(f"{path}, line {number}: {error}") from None
        done[row] = scores
    return done


def _whole_row(line: bytes, rows: Mapping[str, int], n: int) -> tuple[int, list[float]]:
    """The row and the n scores of a line that `score_run` has written."""
    found = _parse_line(line.decode(), n)
    scores = [score for _, _, score in found]
    if len(scores) != n or not all(map(math.isfinite, scores)):
        raise ValueError(
            f"expected a problem and {n} finite scores, found "
            f"{end_of(line.decode())}; remove the line, and they are asked for anew"
        )
    name = found[0][0] if found else None
    if not isinstance(name, str) or name not in rows:
        raise ValueError(
            f"expected a problem of this run, found {name!r}; choose another file"
        )
    return rows[name], scores


def _append(descriptor: int, line: bytes) -> None:
    """Adds a whole line, or nothing, down to the disk."""
    end = os.fstat(descriptor).st_size
    try:
        write_all(descriptor, line)
    except BaseException:
        # Where this fails too, the next call cuts it off.
        with suppress(OSError):
            os.ftruncate(descriptor, end)
        raise
    os.fsync(descriptor)


# -- reading ---------------------------------------------------------------------------


def verifier_in_words(identity: Identity | None) -> str:
    """A verifier for people, such as "url ..., model ..."."""
    if identity is None:
        return "a verifier that is not named"
    return ", ".join(f"{name} {value}" for name, value in identity.items())


def _identity_in(line: str | bytes) -> dict[str, Any] | None:
    """What a line says of the verifier; None for any other line."""
    verifier = _head_in(line).get("verifier")
    return verifier if isinstance(verifier, dict) else None


def _head_in(line: str | bytes) -> dict[str, Any]:
    """What the line before scores says; empty where it is none."""
    with suppress(ValueError, RecursionError):
        row = json.loads(line)
        if isinstance(row, dict) and "verifier" in row and row.keys() <= _OF_HEAD:
            return row
    return {}


def _parse_line(line: str, n: int) -> list[tuple[Any, int, float]]:
    """The problem, sample and score of each score in a line."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"expected JSON, found {end_of(line.strip())!r} ({error}); write one "
            "object a line"
        ) from None
    keys = set(row) if isinstance(row, dict) else set()
    if keys == {"problem", "sample", "score"}:
        found = [(row["sample"], row["score"])]
    elif keys == {"problem", "scores"} and isinstance(row["scores"], list):
        found = list(enumerate(row["scores"]))
        if len(found) != n:
            raise ValueError(
                f"expected {n} scores for problem {row['problem']!r}, found "
                f"{len(found)}; give one for each answer"
            )
    else:
        raise ValueError(
            "expected problem, sample and score, or problem and a list of scores, "
            f"found {end_of(line.strip())}; write one of these two"
        )
    for sample, _ in found:
        if type(sample) is not int or not 0 <= sample < n:
            raise ValueError(
                f"expected a sample in 0..{n - 1}, found {sample!r}; count from 0"
            )
    return [(row["problem"], sample, _number(score)) for sample, score in found]


def _number(value: Any) -> float:
    if value is None:
        return math.nan
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(
            f"expected a finite number or null as score, found {value!r}; "
            "write null where it is unknown"
        )
    return float(value)


def _place(
    rows: Mapping[str, int],
    name: Any,
    sample: int,
    source: Mapping[tuple[int, int], int],
) -> tuple[int, int]:
    """Where a score belongs; a ValueError where nothing, or already one, does."""
    if not isinstance(name, str) or name not in rows:
        raise ValueError(
            f"expected a problem of this run, found {name!r}; use the ids of its "
            "records"
        )
    place = rows[name], sample
    if place in source:
        raise ValueError(
            f"expected one score for sample {sample} of problem {name!r}, found "
            f"another in line {source[place]}; remove one of them"
        )
    return place
