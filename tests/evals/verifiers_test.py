"""Many problems scored in threads: order, errors, and what is kept."""

import signal
import threading
import time
from queue import SimpleQueue

import numpy as np
import pytest

from jaxmoe.evals import verifiers
from jaxmoe.evals.verifiers import VerifierError, scores_from

PROBLEMS = ["one", "two", "three"]
TEXTS = [["a", "bb"], ["ccc", ""], ["d", "ee"]]


def _length(problem, answers):
    return [float(len(answer)) for answer in answers]


@pytest.mark.parametrize("workers", [1, 2, 8])
def test_scores_are_in_order_however_they_come(workers):
    """Scores would be those of another problem where threads overtake each other."""

    def late(problem, answers):
        time.sleep(0.05 if problem == "one" else 0.0)
        return np.array(_length(problem, answers)).tolist()

    kept = {}
    found = scores_from(late, PROBLEMS, TEXTS, workers=workers, keep=kept.__setitem__)
    np.testing.assert_array_equal(found, [[1, 2], [3, 0], [1, 2]])
    assert found.dtype == np.float64
    assert kept == {0: [1.0, 2.0], 1: [3.0, 0.0], 2: [1.0, 2.0]}


def test_problems_are_scored_at_once():
    """The pool would have one thread: both calls wait here for each other."""
    barrier = threading.Barrier(3, timeout=10)

    def together(problem, answers):
        barrier.wait()
        return _length(problem, answers)

    assert scores_from(together, PROBLEMS, TEXTS, workers=3).shape == (3, 2)


def test_what_is_done_is_not_asked_for_again():
    """A resumed run would pay for all scores once more."""
    asked = []

    def noted(problem, answers):
        asked.append(problem)
        return _length(problem, answers)

    kept = {}
    done = {0: [7.0, 8.0], 2: [9.0, 0.5]}
    found = scores_from(noted, PROBLEMS, TEXTS, done=done, keep=kept.__setitem__)
    np.testing.assert_array_equal(found, [[7, 8], [3, 0], [9, 0.5]])
    assert asked == ["two"]
    assert kept == {1: [3.0, 0.0]}


@pytest.mark.parametrize(
    "returned, found",
    [
        ([1.0], "found 1;"),
        ([1.0, 2.0, 3.0], "found 3;"),
        ([], "found 0;"),
        ([1.0, float("nan")], r"found \[1.0, nan\];"),
        ([1.0, float("inf")], r"found \[1.0, inf\];"),
        (["good", "bad"], "found \\['good', 'bad'\\];"),
        (None, "found None;"),
        (3.0, "found 3.0;"),
    ],
)
def test_scores_that_do_not_fit_name_their_problem(returned, found):
    """Scores would be stretched over all answers, or nan be ranked."""
    kept = {}

    def one_wrong(problem, answers):
        return returned if problem == "two" else _length(problem, answers)

    message = rf"problem 1 \('two'\): expected 2 finite scores, {found}"
    with pytest.raises(VerifierError, match=message) as caught:
        scores_from(one_wrong, PROBLEMS, TEXTS, keep=kept.__setitem__)
    assert kept.keys() == {0, 2}
    assert "3 problems, found them for 2" in str(caught.value)


def test_one_failure_loses_nothing():
    """An error in one problem would throw away those that were paid for."""
    kept = {}

    def broken(problem, answers):
        if problem == "one":
            raise KeyError("gone")
        return _length(problem, answers)

    message = r"Failed: 1, first problem 0 \('one'\): KeyError: 'gone'"
    with pytest.raises(VerifierError, match=message) as caught:
        scores_from(broken, PROBLEMS, TEXTS, workers=1, keep=kept.__setitem__)
    assert isinstance(caught.value.__cause__, KeyError)
    assert kept.keys() == {1, 2}
    found = scores_from(_length, PROBLEMS, TEXTS, done=kept)
    np.testing.assert_array_equal(found, [[1, 2], [3, 0], [1, 2]])


def test_a_dead_verifier_is_left():
    """Thousands of problems would each wait for a server that is not there."""
    asked = []

    def dead(problem, answers):
        asked.append(problem)
        raise TimeoutError

    problems = [str(j) for j in range(100)]
    with pytest.raises(VerifierError, match="found them for 0"):
        scores_from(dead, problems, [["x"]] * 100, workers=2, max_failures=5)
    assert 5 <= len(asked) <= 7


def test_what_runs_when_the_rest_is_left_is_kept():
    """Scores under way when the limit is reached would be lost."""
    kept, failed = {}, threading.Event()

    def verifier(problem, answers):
        if problem == "one":
            failed.set()
            raise TimeoutError
        failed.wait(10)
        time.sleep(0.05)
        return _length(problem, answers)

    with pytest.raises(VerifierError, match="found them for 1"):
        scores_from(
            verifier,
            PROBLEMS,
            TEXTS,
            workers=2,
            max_failures=1,
            keep=kept.__setitem__,
        )
    assert kept == {1: [3.0, 0.0]}


def test_an_error_in_keep_is_not_the_verifiers():
    """A full disk would be reported as a problem without scores, after all is done."""

    def full(index, scores):
        raise OSError("no space")

    with pytest.raises(OSError, match="no space"):
        scores_from(_length, PROBLEMS, TEXTS, keep=full)


@pytest.fixture
def ctrl_c():
    """Ctrl-C raises, also where whoever started this process had it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
def test_ctrl_c_ends_at_once_and_keeps_what_has_come():
    """Scores that were paid for would be lost, or Ctrl-C wait for a slow endpoint."""
    kept, over = {}, threading.Event()

    def verifier(problem, answers):
        if problem == "three":
            over.wait(30)
        return _length(problem, answers)

    def keep(index, scores):
        kept[index] = scores
        if len(kept) == 2:
            # As if pressed while the third is waited for.
            main = threading.main_thread().ident
            threading.Timer(0.05, signal.pthread_kill, (main, signal.SIGINT)).start()

    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        scores_from(verifier, PROBLEMS, TEXTS, workers=2, keep=keep)
    over.set()
    assert time.monotonic() - started < 10
    assert kept == {0: [1.0, 2.0], 1: [3.0, 0.0]}


def test_ctrl_c_keeps_what_waits_to_be_taken(monkeypatch):
    """Scores that came together with Ctrl-C would be asked for again."""

    class Interrupted(SimpleQueue):
        """All three have come when Ctrl-C is pressed, and none is taken yet."""

        pressed = False

        def get(self):
            if not self.pressed:
                while self.qsize() < 3:
                    time.sleep(0.001)
                self.pressed = True
                raise KeyboardInterrupt
            return super().get()

    kept = {}
    monkeypatch.setattr(verifiers, "SimpleQueue", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        scores_from(_length, PROBLEMS, TEXTS, keep=kept.__setitem__)
    assert kept.keys() == {0, 1, 2}


def test_what_ends_the_program_is_no_failed_problem():
    """A verifier that calls sys.exit would leave its thread waited for in vain."""

    def ends(problem, answers):
        raise SystemExit(3)

    with pytest.raises(SystemExit):
        scores_from(ends, PROBLEMS, TEXTS)


@pytest.mark.parametrize(
    "texts, options, message",
    [
        ([["a"], ["b", "c"], ["d"]], {}, r"same number .* \[1, 2\] texts"),
        ([["a"]], {}, "each of 3 problems, found 1 lists"),
        (TEXTS, {"workers": 0}, "workers and max_failures must be at least 1"),
        (TEXTS, {"max_failures": 0}, "workers and max_failures must be at least 1"),
        (TEXTS, {"done": {3: [1.0, 1.0]}}, r"problems in 0\.\.2, found 3"),
        (TEXTS, {"done": {1: [1.0]}}, r"problem 1 \('two'\): expected 2 .* found 1"),
    ],
)
def test_what_cannot_be_scored_is_refused(texts, options, message):
    """The error would come after hours, or scores of another run be mixed in."""
    with pytest.raises(ValueError, match=message):
        scores_from(_length, PROBLEMS, texts, **options)


def test_no_problems_have_no_scores():
    """An empty file would end in an error about something else."""
    assert scores_from(_length, [], []).shape == (0, 0)
    assert scores_from(_length, ["x"], [[]]).shape == (1, 0)
