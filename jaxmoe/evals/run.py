"""Runs as arrays, for analysis; shards put together; routes packed into records."""

import base64
import shutil
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int16, Int64, Integer

from jaxmoe.evals.bucket import run_folder
from jaxmoe.evals.grading import read_grading, write_grading
from jaxmoe.evals.records import Record
from jaxmoe.evals.shards import WHOLE, Line, read_lines, records_files
from jaxmoe.evals.store import (
    MANIFEST,
    differences,
    identity,
    read_manifest,
    write_manifest,
)
from jaxmoe.evals.times import Go, add_go, read_goes
from jaxmoe.files import replacing, sync


class IncompleteRunError(ValueError):
    """A run that lacks answers, and is otherwise sound."""


# Arrays have no single truth value, so the generated == could only raise.
@dataclass(frozen=True, eq=False)
class Run:
    """n answers to each of P problems, graded.

    name: of the folder. manifest: what was run. ids: of the problems, in the manifest's
    order. records: [P][n], by sample. goes: how long they took, as far as is known.
    grading: how they were graded, as far as is known.
    """

    name: str
    manifest: Mapping[str, Any]
    ids: tuple[str, ...]
    records: tuple[tuple[Record, ...], ...]
    goes: tuple[Go, ...] = ()
    grading: Mapping[str, Any] | None = None

    @property
    def n(self) -> int:
        """Answers to each problem."""
        return self.manifest["n"]

    @cached_property
    def correct(self) -> Bool[np.ndarray, "P n"]:
        """Which answers count as right."""
        return self._array(lambda record: record.correct, bool)

    @cached_property
    def lengths(self) -> Int64[np.ndarray, "P n"]:
        """Tokens of each answer, the stop token included."""
        return self._array(lambda record: record.length, np.int64)

    @cached_property
    def logprob_sum(self) -> Float[np.ndarray, "P n"]:
        """Sum over tokens of their log-probability, nats; NaN where not finite."""
        return self._array(lambda record: _number(record.logprob_sum), np.float64)

    @cached_property
    def logprob_mean(self) -> Float[np.ndarray, "P n"]:
        """Mean over tokens of their log-probability, nats; NaN where not finite."""
        return self._array(lambda record: _number(record.logprob_mean), np.float64)

    @cached_property
    def self_certainty(self) -> Float[np.ndarray, "P n"]:
        """See `Record`, nats; NaN where it was not asked for."""
        return self._array(lambda record: _number(record.self_certainty), np.float64)

    @cached_property
    def confidence(self) -> Float[np.ndarray, "P n"]:
        """See `Record`, nats; NaN where it was not asked for."""
        return self._array(lambda record: _number(record.confidence), np.float64)

    @property
    def answers(self) -> list[list[str | None]]:
        """[P][n], normalised, so that equal answers are equal strings."""
        return [[record.answer for record in row] for row in self.records]

    @property
    def finish(self) -> list[list[str]]:
        """[P][n], as of `Record`."""
        return [[record.finish for record in row] for row in self.records]

    @property
    def groups(self) -> tuple[str, ...]:
        """The group of each problem; intervals resample whole groups."""
        pairs = zip(self.manifest["problems"], self.manifest["groups"], strict=True)
        group = dict(pairs)
        return tuple(group[id] for id in self.ids)

    def cut(self, ids: Sequence[str]) -> "Run":
        """The run with these of its problems only, in this order."""
        row = dict(zip(self.ids, self.records, strict=True))
        return replace(self, ids=tuple(ids), records=tuple(row[id] for id in ids))

    def _array(self, value: Callable[[Record], Any], dtype: type) -> np.ndarray:
        values = [[value(record) for record in row] for row in self.records]
        return np.array(values, dtype).reshape(len(self.ids), self.n)


def read_run(
    path: Path | str, *, problems: Iterable[str] | None = None, partial: bool = False
) -> Run:
    """The run in a folder or at a gs:// address, which may still be going on.

    Args:
      problems: ids of those to read; None: all.
      partial: leave out problems that lack answers, instead of raising.

    Raises:
      IncompleteRunError: answers are missing, or with `partial` no problem has all of
        its.
      ValueError: the folder is no run or its records are broken, or it has no problem
        of such an id.
    """
    folder = run_folder(path)
    manifest = _run_manifest(folder)
    ids, n = _chosen(manifest, problems, folder), manifest["n"]
    order = _order(manifest)
    table: dict[str, dict[int, Record]] = {id: {} for id in ids}
    for line in read_lines(records_files(folder)):
        _place(line, order, n)
        if line.record.problem in table:
            table[line.record.problem][line.record.sample] = line.record
    whole = [id for id in ids if len(table[id]) == n]
    if len(whole) < len(ids) and not (partial and whole):
        found = sum(map(len, table.values()))
        raise IncompleteRunError(
            f"expected {len(ids) * n} records in {folder}, found {found}, which make "
            f"{len(whole)} of {len(ids)} problems whole; run the same command again to "
            "draw the rest"
            + (", or pass partial=True to leave it out" if whole else "")
        )
    rows = (tuple(table[id][i] for i in range(n)) for id in whole)
    name, goes = folder.resolve().name, read_goes(folder)
    grading = read_grading(folder)
    return Run(name, manifest, tuple(whole), tuple(rows), goes, grading)


def shared(runs: Sequence[Run]) -> tuple[Run, ...]:
    """The runs, cut to the problems that all have, in the first one's order.

    Raises:
      ValueError: no runs, other tasks or data files, or no problem in common.
    """
    if not runs:
        raise ValueError("expected one or more runs, found none; name their folders")
    first = runs[0]
    for run in runs[1:]:
        for what, value in _about(first).items():
            if _about(run)[what] != value:
                raise ValueError(
                    f"expected runs of one {what}, found {value!r} in {first.name} and "
                    f"{_about(run)[what]!r} in {run.name}; compare runs over the same "
                    "data"
                )
    common = set(first.ids).intersection(*(run.ids for run in runs))
    if not common:
        names = ", ".join(run.name for run in runs)
        raise ValueError(
            f"expected problems that all runs have, found none in {names}; draw the "
            "same ones in each"
        )
    ids = [id for id in first.ids if id in common]
    return tuple(run.cut(ids) for run in runs)


# -- merging ---------------------------------------------------------------------------


def merge(paths: Sequence[Path | str], into: Path | str) -> int:
    """Puts folders of one configuration, such as shards, together into a new one.

    Its records are sorted by problem, in the manifest's order, and sample, and copied
    byte by byte; so the file is the same however the run was split. The folder appears
    when it is complete. Answers may be missing; a run goes on in it like in any other.

    Returns:
      The number of records.

    Raises:
      ValueError: no folders, one that is no run or of another configuration, broken or
        contradicting records, or `into` holds something already.
    """
    folders, into = [Path(path) for path in paths], Path(into)
    manifest = _common_manifest(folders)
    order = _order(manifest)
    files = [file for folder in folders for file in records_files(folder)]
    lines = sorted(
        (_place(line, order, manifest["n"]), (line.path, line.start, line.size))
        for line in read_lines(files)
    )
    work = into.with_name(into.name + ".partial")
    _refuse_existing(into, "that is there already")
    _refuse_existing(work, "that a killed merge has left, or another one is writing")
    work.mkdir(parents=True)
    try:
        _write_merged(work, manifest, [place for _, place in lines])
        for go in (go for folder in folders for go in read_goes(folder)):
            add_go(work, WHOLE, go)
        gradings = [read_grading(folder) for folder in folders]
        if gradings[0] and all(found == gradings[0] for found in gradings):
            write_grading(work, gradings[0])
        work.rename(into)
        sync(into.parent)
    except BaseException:
        shutil.rmtree(work, ignore_errors=True)
        raise
    return len(lines)


def _common_manifest(folders: Sequence[Path]) -> dict[str, Any]:
    if not folders:
        raise ValueError("expected one or more folders to merge, found none; name them")
    first = _run_manifest(folders[0])
    for folder in folders[1:]:
        found = read_manifest(folder)
        pair = identity(first), identity(found)
        if differ := differences(*pair, "in the first", "in the second"):
            raise ValueError(
                f"expected folders of one configuration, found {folders[0]} and "
                f"{folder} ({differ}); merge only parts of one run"
            )
    return first


def _refuse_existing(path: Path, why: str) -> None:
    if path.exists():
        raise ValueError(
            f"expected a new folder to merge into, found {path} {why}; remove it, or "
            "choose another"
        )


def _write_merged(
    folder: Path, manifest: Mapping[str, Any], places: Sequence[tuple[Path, int, int]]
) -> None:
    """Copies lines in their order: path, first byte and size of each."""
    write_manifest(folder, manifest)
    with ExitStack() as stack:
        merged = stack.enter_context(replacing(folder / WHOLE.file_name))
        paths = {path for path, _, _ in places}
        files = {path: stack.enter_context(path.open("rb")) for path in paths}
        for path, start, size in places:
            files[path].seek(start)
            merged.write(files[path].read(size))


# -- what manifests and records must say -----------------------------------------------


def _run_manifest(folder: Path) -> dict[str, Any]:
    """A manifest with its problems, their groups and n."""
    manifest = read_manifest(folder)
    problems, groups = manifest.get("problems"), manifest.get("groups")
    n = manifest.get("n")
    if not (
        isinstance(problems, list)
        and isinstance(groups, list)
        and isinstance(n, int)
        and len(set(map(str, problems))) == len(problems) == len(groups)
    ):
        raise ValueError(
            f"expected `problems`, each once, as many `groups`, and `n` in "
            f"{folder / MANIFEST}, found other values; give the --out of a run"
        )
    return manifest


def _order(manifest: Mapping[str, Any]) -> dict[str, int]:
    return {id: place for place, id in enumerate(manifest["problems"])}


def _place(line: Line, order: Mapping[str, int], n: int) -> tuple[int, int]:
    """Place of the problem, and sample, of a record that is of the run."""
    problem, sample = line.record.problem, line.record.sample
    if problem not in order or not 0 <= sample < n:
        raise ValueError(
            f"expected answers 0 to {n - 1} to the problems of {MANIFEST}, found "
            f"answer {sample} to problem {problem!r} in {line.path}; the file is of "
            "another run"
        )
    return order[problem], sample


def _chosen(
    manifest: Mapping[str, Any], problems: Iterable[str] | None, folder: Path
) -> list[str]:
    """The ids asked for, in the manifest's order."""
    if problems is None:
        return manifest["problems"]
    asked = set(problems)
    if unknown := asked.difference(manifest["problems"]):
        raise ValueError(
            f"expected ids of problems in {folder}, found {sorted(unknown)[0]!r}; see "
            f"`problems` in its {MANIFEST}"
        )
    return [id for id in manifest["problems"] if id in asked]


def _about(run: Run) -> dict[str, Any]:
    """What runs must have in common to be compared."""
    data = run.manifest.get("data") or {}
    return {"task": run.manifest.get("task"), "data file": data.get("sha256")}


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


# -- routes ----------------------------------------------------------------------------


def pack_routes(routes: Integer[np.ndarray, "T L K"]) -> str:
    """The chosen experts of an answer as text, for `Record.routes`.

    "TxLxK:" and the base64 of the zlib of little-endian int16 in C order, as in
    "57x48x8:eJx...".

    Args:
      routes: experts of each of T tokens and L layers; -1 in dense layers.

    Raises:
      ValueError: a number that is no int16.
    """
    packed = routes.astype("<i2")
    if (packed != routes).any():
        raise ValueError(
            f"routes must be experts in -1..32767, found {routes.min()}.."
            f"{routes.max()}; pass them as they were drawn"
        )
    shape = "x".join(map(str, routes.shape))
    return f"{shape}:{base64.b64encode(zlib.compress(packed.tobytes())).decode()}"


def routes_of(record: Record) -> Int16[np.ndarray, "T L K"]:
    """The experts that `pack_routes` put into a record.

    Raises:
      ValueError: the record has none, or they are broken or not of its length.
    """
    what = f"answer {record.sample} to problem {record.problem!r}"
    if record.routes is None:
        raise ValueError(
            f"expected routes, found none kept for {what}; draw the run anew with them"
        )
    try:
        head, packed = record.routes.split(":")
        shape = [int(size) for size in head.split("x")]
        values = zlib.decompress(base64.b64decode(packed, validate=True))
        routes = np.frombuffer(values, "<i2").astype(np.int16).reshape(shape)
    except (ValueError, zlib.error) as error:  # base64 raises a ValueError
        raise ValueError(
            f"expected TxLxK:base64 as routes, found something else for {what} "
            f"({error}); draw that answer anew"
        ) from error
    if routes.ndim != 3 or len(routes) != record.length:
        raise ValueError(
            f"expected routes [{record.length}, L, K], found {list(routes.shape)} for "
            f"{what}; draw that answer anew"
        )
    return routes
