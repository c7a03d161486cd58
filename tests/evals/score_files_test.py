"""Files of scores: what is read, what is refused, and what outlives a kill."""

import json
import multiprocessing
import os
import time
from dataclasses import replace

import numpy as np
import pytest

from jaxmoe.evals.score_files import (
    read_scores,
    read_scores_of,
    score_run,
    verifier_of,
)
from jaxmoe.evals.store import RunWriteError
from jaxmoe.evals.verifiers import VerifierError
from tests.evals.compare_test import run_of

# -- reading -----------------------------------------------------------------------


@pytest.fixture
def written(tmp_path):
    """A function from lines to the scores read from a file of them."""

    def read(*lines, ids=("p", "q"), n=2):
        path = tmp_path / "scores.jsonl"
        texts = [x if isinstance(x, str) else json.dumps(x) for x in lines]
        path.write_text("\n".join(texts) + "\n", encoding="utf-8")
        return read_scores(path, list(ids), n)

    return read


def _one(problem, sample, score):
    return {"problem": problem, "sample": sample, "score": score}


def test_files_of_both_kinds_are_read(written):
    """Scores would land at the wrong sample, or the order of lines matter."""
    found = written(
        _one("q", 1, 4), "", {"problem": "p", "scores": [0.5, None]}, _one("q", 0, -3.5)
    )
    np.testing.assert_array_equal(found, [[0.5, np.nan], [-3.5, 4]])
    assert found.dtype == np.float64


ROW = {"problem": "p", "scores": [1, 2]}


@pytest.mark.parametrize(
    "line, message",
    [
        ("{", "expected JSON, found '{'"),
        ("[1]", r"problem, sample and score, .* found \[1\]"),
        ({"problem": "q", "score": 1}, "problem, sample and score"),
        ({"problem": "q", "scores": 1}, "problem, sample and score"),
        ({**_one("q", 0, 1), "more": 1}, "problem, sample and score"),
        (_one("r", 0, 1), "expected a problem of this run, found 'r'"),
        (_one(7, 0, 1), "expected a problem of this run, found 7"),
        (_one([], 0, 1), r"expected a problem of this run, found \[\]"),
        (_one("q", 2, 1), r"sample in 0\.\.1, found 2"),
        (_one("q", -1, 1), r"sample in 0\.\.1, found -1"),
        (_one("q", True, 1), r"sample in 0\.\.1, found True"),
        (_one("q", 0, "1"), "finite number or null as score, found '1'"),
        (_one("q", 0, True), "finite number or null as score, found True"),
        (_one("q", 0, float("inf")), "finite number or null as score, found inf"),
        (_one("q", 0, 10**400), "too large"),
        ({"problem": "q", "scores": [1]}, "expected 2 scores for problem 'q', found 1"),
        (_one("p", 1, 1), "one score for sample 1 of problem 'p', .* in line 1;"),
        (ROW, "one score for sample 0 of problem 'p', found another in line 1;"),
    ],
)
def test_lines_that_do_not_fit_are_named(written, line, message):
    """A wrong line among thousands could not be found, or would be taken as it is."""
    with pytest.raises(ValueError, match=rf"scores\.jsonl, line 3: .*{message}"):
        written(ROW, "", line)


def test_missing_scores_are_named(written):
    """A file cut short would leave samples that never win."""
    message = "expected 4 scores, found 3; .* first that for sample 0 of problem 'q'"
    with pytest.raises(ValueError, match=message):
        written(ROW, _one("q", 1, 1))


def test_ids_must_differ(written):
    """The second of two problems with one id would have no scores."""
    with pytest.raises(ValueError, match="ids that differ, found 1 among 2"):
        written(ROW, ids=("p", "p"))


# -- writing -----------------------------------------------------------------------

RUN = run_of([["a", "bb"], ["ccc", "dd"], ["e", "ff"]])
EXPECTED = [[6, 7], [8, 7], [6, 7]]  # characters of "text a", "text bb", ...


def length(problem, answers):
    """The number of characters of each answer."""
    return [float(len(answer)) for answer in answers]


@pytest.fixture
def path(tmp_path):
    """A file of scores that is not there yet, nor its folder."""
    return tmp_path / "new" / "scores.jsonl"


def line(problem, *scores):
    """As `score_run` writes it."""
    return json.dumps({"problem": problem, "scores": scores}).encode() + b"\n"


def put(path, content):
    """Makes the file with this in it."""
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)


def test_a_run_is_scored_into_a_file(path):
    """Answers would be scored under another problem, or `compare` not read the file."""
    asked, shown = {}, []

    def noted(problem, answers):
        asked[problem] = answers
        return length(problem, answers)

    found = score_run(RUN, noted, path, workers=1, progress=shown.append)
    np.testing.assert_array_equal(found, EXPECTED)
    np.testing.assert_array_equal(read_scores(path, RUN.ids, RUN.n), EXPECTED)
    assert asked["prompt p1"] == ["text ccc", "text dd"] and len(asked) == 3
    assert shown == [0, 1, 2, 3]
    assert path.read_bytes().splitlines(True)[1] == line("p1", 8.0, 7.0)


OWN = {"checkpoint": "d1", "reduce": "min", "cut": False}


def test_scores_say_whose_they_are(path):
    """A second verifier's would never be asked for, or complete half a file."""
    assert score_run(RUN.cut(["p0"]), length, path, identity=OWN).shape == (1, 2)
    held = path.read_bytes()
    for other in (None, OWN | {"reduce": "last"}, OWN | {"cut": True}, {"url": "u"}):
        with pytest.raises(ValueError, match=r"checkpoint d1, reduce min, cut False"):
            score_run(RUN, length, path, identity=other)
    assert path.read_bytes() == held
    found = score_run(RUN, length, path, identity=OWN, workers=1)
    np.testing.assert_array_equal(found, EXPECTED)
    np.testing.assert_array_equal(read_scores(path, RUN.ids, RUN.n), EXPECTED)
    assert verifier_of(path) == OWN
    assert path.read_bytes().count(b"verifier") == 1


def test_scores_name_their_run(path):
    """Scores of another run of the same questions would rank these answers."""
    score_run(RUN, length, path, identity=OWN)
    other = run_of([["a", "bb"], ["ccc", "dd"], ["e", "ff"]], seed=7)
    held = path.read_bytes()
    for call in (
        lambda: read_scores_of(other, path),
        lambda: score_run(other, length, path, identity=OWN),
    ):
        with pytest.raises(ValueError, match=f"{other.name} in .* a run named"):
            call()
    assert path.read_bytes() == held
    # Graded otherwise, or in another folder, they are the same answers.
    same = replace(RUN, name="copy", manifest={**RUN.manifest, "task": "other"})
    for one in (RUN, same):
        np.testing.assert_array_equal(read_scores_of(one, path), EXPECTED)
    # An older file names none.
    put(path, b"".join([b'{"verifier": {}}\n', *held.splitlines(True)[1:]]))
    np.testing.assert_array_equal(read_scores_of(other, path), EXPECTED)


def test_files_that_do_not_say_whose_scores_they_hold(path):
    """An older file could not be compared any more, or be completed by another."""
    put(path, line("p0", 6.0, 7.0))
    assert verifier_of(path) is None
    assert read_scores(path, ["p0"], 2).tolist() == [[6, 7]]
    with pytest.raises(ValueError, match='put this line before them: {"verifier": '):
        score_run(RUN, length, path, identity=OWN)
    # Half a head, which a kill has left, is written again.
    for size in (1, 8, 20):
        put(path, json.dumps({"verifier": OWN}).encode()[:size])
        score_run(RUN, length, path, identity=OWN)
        assert verifier_of(path) == OWN


def test_prompts_are_found_by_id(path):
    """A run cut to some problems would be scored with the prompts of others."""
    asked = []

    def noted(problem, answers):
        asked.append(problem)
        return length(problem, answers)

    found = score_run(RUN.cut(["p2", "p1"]), noted, path, workers=1)
    np.testing.assert_array_equal(found, [EXPECTED[2], EXPECTED[1]])
    assert asked == ["prompt p2", "prompt p1"]


@pytest.mark.parametrize("cut", [1, 5, 12, 20, len(line("p1", 8.0, 7.0)) - 1])
def test_half_a_line_is_cut_off(path, cut):
    """After a kill the next line would be appended to half of one."""
    asked = []

    def noted(problem, answers):
        asked.append(problem)
        return length(problem, answers)

    put(path, line("p0", 0.5, 1.5) + line("p1", 8.0, 7.0)[:cut])
    found = score_run(RUN, noted, path, workers=1)
    np.testing.assert_array_equal(found, [[0.5, 1.5], *EXPECTED[1:]])
    assert asked == ["prompt p1", "prompt p2"]
    rows = [line("p0", 0.5, 1.5), line("p1", 8.0, 7.0), line("p2", 6.0, 7.0)]
    assert path.read_bytes() == b"".join(rows)


ONE = line("p0", 1.0, 2.0)


@pytest.mark.parametrize(
    "more, message",
    [
        (line("p9", 1, 2), "expected a problem of this run, found 'p9'"),
        (line(7, 1, 2), "expected a problem of this run, found 7"),
        (line("p1", 1), "expected 2 scores for problem 'p1', found 1"),
        (line("p1", 1, 2, 3), "expected 2 scores for problem 'p1', found 3"),
        (line("p1", 1, None), "expected a problem and 2 finite scores"),
        (line("p1", 1, "2"), "finite number or null as score, found '2'"),
        (line("p1", 1, float("nan")), "finite number or null as score, found nan"),
        (line("p1", 1, 10**400), "too large"),
        (b'{"problem": "p1", "sample": 0, "score": 1}\n', "and 2 finite scores"),
        (line("p0", 1.0, 2.0), "expected problem 'p0' once, found it again"),
        (b"{\n", "expected JSON"),
        (b"[" * 100_000 + b"\n", "expected JSON"),
        (b"\xff\n", "codec can't decode"),
        (b"my notes", "expected scores, found 'my notes'"),
    ],
)
def test_a_file_of_something_else_is_left_alone(path, more, message):
    """Scores of another run would be mixed in, or a user's file be overwritten."""
    put(path, ONE + b"\n" + more)
    with pytest.raises(ValueError, match=rf"scores\.jsonl, line 3: .*{message}"):
        score_run(RUN, length, path)
    assert path.read_bytes() == ONE + b"\n" + more


def test_scores_outlive_a_failed_problem(path):
    """One problem without scores would cost those of all others."""

    def broken(problem, answers):
        if problem == "prompt p1":
            raise KeyError("gone")
        return length(problem, answers)

    message = r"KeyError: 'gone' \(.*scores\.jsonl keeps the scores of 2 problems\)"
    with pytest.raises(VerifierError, match=message):
        score_run(RUN, broken, path, workers=1)
    assert path.read_bytes() == line("p0", 6.0, 7.0) + line("p2", 6.0, 7.0)
    np.testing.assert_array_equal(score_run(RUN, length, path), EXPECTED)


def test_a_full_disk_leaves_whole_lines(path, monkeypatch):
    """Half a line would stand in the file, or the error not say what is kept."""
    write = os.write

    def full(descriptor, data):
        if b"p1" not in data:
            return write(descriptor, data)
        if data.startswith(b'{"pro'):
            return write(descriptor, data[:9])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    message = r"\(No space left on device\); the scores of 1 problems are kept"
    with pytest.raises(RunWriteError, match=message):
        score_run(RUN, length, path, workers=1)
    assert path.read_bytes() == line("p0", 6.0, 7.0)


def test_manifests_without_prompts_are_refused(path):
    """The verifier would be asked about nothing."""
    with pytest.raises(ValueError, match="expected a prompt for each problem"):
        score_run(run_of([["a"]], prompts=[]), length, path)
    assert not path.exists()


def score_two(path):
    """Scores two problems as a process of its own, and hangs in the third."""

    def hangs(problem, answers):
        if problem == "prompt p2":
            time.sleep(60)
        return length(problem, answers)

    score_run(RUN, hangs, path, workers=1)


def test_a_killed_process_goes_on_and_a_second_is_refused(path):
    """A kill would lose scores, or two processes ask for each of them."""
    # Forked from this process, with the threads of jax, it might hang.
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=score_two, args=(path,))
    process.start()
    try:
        end = time.monotonic() + 60
        while not path.exists() or path.read_bytes().count(b"\n") < 2:
            assert time.monotonic() < end
            time.sleep(0.01)
        with pytest.raises(ValueError, match="another process adds scores to"):
            score_run(RUN, length, path)
    finally:
        process.kill()
        process.join()
    asked = []

    def noted(problem, answers):
        asked.append(problem)
        return length(problem, answers)

    np.testing.assert_array_equal(score_run(RUN, noted, path), EXPECTED)
    assert asked == ["prompt p2"]
