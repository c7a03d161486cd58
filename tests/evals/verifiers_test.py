"""Verifiers in threads, files of scores, and a chat endpoint on this machine."""

import json
import threading
import time
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from jaxmoe.evals.verifiers import (
    ChatVerifier,
    VerifierError,
    read_scores,
    scores_from,
)

PROBLEMS = ["one", "two", "three"]
TEXTS = [["a", "bb"], ["ccc", ""], ["d", "ee"]]


def _length(problem, answers):
    return [float(len(answer)) for answer in answers]


# -- many problems -----------------------------------------------------------------


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


# -- files -------------------------------------------------------------------------


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


# -- chat --------------------------------------------------------------------------


def _completion(text):
    message = {"role": "assistant", "content": text}
    return 200, json.dumps({"choices": [{"message": message}]}), {}


@contextmanager
def _endpoint(*replies):
    """A server with these replies in turn, the last for ever; yields (url, requests).

    A reply is (status, body, headers), or a number of seconds to stay silent.
    """
    requests, over = [], threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):  # noqa: N802
            length = int(self.headers.get("Content-Length", 0))
            body = json.loads(self.rfile.read(length) or b"null")
            requests.append((self.path, dict(self.headers), body))
            reply = replies[min(len(requests), len(replies)) - 1]
            if isinstance(reply, float):
                over.wait(reply)
                return
            status, text, headers = reply
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(text.encode())

        do_GET = do_POST  # noqa: N815

        def log_message(self, format, *args):
            """Nothing on standard error."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1", requests
    finally:
        over.set()
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    """Requests to this machine must not go through a proxy that a user has set."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def _verifier(url, **options):
    return ChatVerifier(url, "judge", **{"pause": 0.001, "timeout": 10.0, **options})


def test_chat_asks_once_for_each_answer():
    """The endpoint would not get the problem, the answer, the model or the key."""
    with _endpoint(_completion("Fine.\nScore: 7"), _completion("Score: 2.5")) as (
        url,
        requests,
    ):
        verifier = _verifier(
            url + "/", key="sk-1", options={"temperature": 0.5, "max_tokens": 9}
        )
        assert verifier("What is {answer}?", ["It is 3.", "No."]) == [7.0, 2.5]
    assert [path for path, _, _ in requests] == ["/v1/chat/completions"] * 2
    _, headers, body = requests[0]
    assert headers["Authorization"] == "Bearer sk-1"
    assert headers["Content-Type"] == "application/json"
    assert (body["model"], body["temperature"], body["max_tokens"]) == ("judge", 0.5, 9)
    (message,) = body["messages"]
    assert message["role"] == "user"
    assert "What is {answer}?" in message["content"]
    assert message["content"].count("It is 3.") == 1
    assert "No." in requests[1][2]["messages"][0]["content"]


@pytest.mark.parametrize(
    "reply, score",
    [
        ("Score: 7", 7),
        ("**Score:** 8/10", 8),
        ("**Score: 10**", 10),
        ('{"score": 3.5}', 3.5),
        ("Score: 2? No, it is right.\nscore = 9.", 9),
        ("Score: 0", 0),
        (" 6\n", 6),
        ("I give it 3 points out of 5 steps.\n\nScore: 4, because", 4),
    ],
)
def test_scores_are_read_from_replies(reply, score):
    """Another number of the reply would be taken for the score."""
    with _endpoint(_completion(reply)) as (url, requests):
        assert _verifier(url)("p", ["a"]) == [float(score)]
    assert len(requests) == 1


@pytest.mark.parametrize(
    "reply",
    ["It is right.", "Score: high", "Score: 11", "Score: -3", "Score: 7,5", "", None]
    + ["the underscore 5", "Score out of 10: 7"],
)
def test_replies_without_a_score_are_an_error(reply):
    """Nonsense would be some score, and rank an answer."""
    with _endpoint(_completion(reply)) as (url, requests):
        with pytest.raises(VerifierError, match=r'"Score: x", x in 0\.\.10, found'):
            _verifier(url, attempts=2)("p", ["a"])
        assert len(requests) == 2
        # Or the score that the user chose for it.
        assert _verifier(url, attempts=1, unreadable=0.0)("p", ["a"]) == [0.0]


BUSY = (503, "busy", {})


@pytest.mark.parametrize(
    "passing",
    [
        BUSY,
        (500, "oops", {}),
        (429, "slow down", {"Retry-After": "0"}),
        (200, "<html>", {}),
        (200, '{"error": "overloaded"}', {}),
        (200, '{"choices": []}', {}),
        (200, '{"choices": [{"message": {"content": [1]}}]}', {}),
        (200, "cut", {"Content-Length": "100"}),
        _completion("Let me think."),
        0.0,  # closes without a word
    ],
    ids=str,
)
def test_failures_that_pass_are_tried_again(passing):
    """One bad moment of a server would end an evaluation."""
    with _endpoint(passing, passing, _completion("Score: 5")) as (url, requests):
        assert _verifier(url, attempts=3)("p", ["a"]) == [5.0]
        assert len(requests) == 3


def test_a_silent_server_is_given_up():
    """A reply that never comes would hold a thread for ever."""
    with _endpoint(30.0, _completion("Score: 5")) as (url, requests):
        assert _verifier(url, timeout=0.2)("p", ["a"]) == [5.0]
        assert len(requests) == 2
    with _endpoint(30.0) as (url, requests):
        with pytest.raises(VerifierError, match=r"(?i)timed? ?out.* \(2 attempts\)"):
            _verifier(url, timeout=0.1, attempts=2)("p", ["a"])
        assert len(requests) == 2


def test_no_server_is_an_error():
    """A wrong port would be a traceback of urllib."""
    with _endpoint(BUSY) as (url, _):
        pass
    with pytest.raises(VerifierError, match="expected a reply, found .*refused"):
        _verifier(url, attempts=2)("p", ["a"])


def test_refusals_are_final():
    """A wrong key would be tried again and again, and its error not be shown."""
    with _endpoint((401, "no such key", {})) as (url, requests):
        with pytest.raises(VerifierError, match="HTTP 401 .*no such key") as caught:
            _verifier(url, key="sk-secret")("p", ["a"])
        assert len(requests) == 1
    assert "sk-secret" not in str(caught.value)


def test_pauses_grow_and_follow_the_server(monkeypatch):
    """A busy server would be asked in a tight loop, or sooner than it wants."""
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    later = (429, "", {"Retry-After": "7"})
    never = (429, "", {"Retry-After": "99999"})
    date = (503, "", {"Retry-After": "Fri, 31 Dec 1999 23:59:59 GMT"})
    with _endpoint(BUSY, date, later, never, _completion("Score: 1")) as (url, _):
        _verifier(url, pause=1.0, attempts=5)("p", ["a"])
    assert slept == [1.0, 2.0, 7.0, 60.0]


def test_the_key_stays_with_its_host():
    """A redirect would hand the key to another host."""
    with _endpoint(_completion("Score: 1")) as (other, seen):
        moved = (302, "", {"Location": other})
        with _endpoint(moved) as (url, _), suppress(VerifierError):
            _verifier(url, key="sk-1", attempts=1)("p", ["a"])
        assert len(seen) == 1
        assert all("Authorization" not in headers for _, headers, _ in seen)


def test_the_key_is_never_shown():
    """A key would stand in logs and manifests."""
    verifier = ChatVerifier("http://localhost", "judge", key="sk-secret")
    assert "sk-secret" not in repr(verifier)
    with pytest.raises(ValueError, match="printable ASCII") as caught:
        ChatVerifier("http://localhost", "judge", key="sk-secret\n")
    assert "sk-secret" not in str(caught.value)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"url": "localhost:8000"}, "url must begin with http"),
        ({"url": "file:///etc"}, "url must begin with http"),
        ({"attempts": 0}, "attempts must be at least 1"),
        ({"timeout": 0.0}, "timeout above 0"),
        ({"pause": -1.0}, "pause not below 0"),
        ({"prompt": "Grade {answer}"}, "must contain {problem} and {answer}"),
    ],
)
def test_chat_refuses_options_without_meaning(options, message):
    """The first request would fail, or ask about nothing."""
    with pytest.raises(ValueError, match=message):
        ChatVerifier(**{"url": "http://localhost", "model": "judge", **options})


def test_chat_scores_a_run():
    """The pool and the endpoint would not fit together."""
    with _endpoint(_completion("Score: 4")) as (url, requests):
        found = scores_from(_verifier(url), PROBLEMS, TEXTS)
    np.testing.assert_array_equal(found, np.full((3, 2), 4.0))
    assert len(requests) == 6
