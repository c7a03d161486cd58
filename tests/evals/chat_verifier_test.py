"""A verifier that asks a chat endpoint, against one on this machine."""

import base64
import html
import json
import threading
import time
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import quote

import pytest

from jaxmoe.evals import chat_verifier
from jaxmoe.evals.chat_verifier import ChatVerifier
from jaxmoe.evals.verifiers import VerifierError


def completion(text):
    """The reply of an endpoint whose model says so."""
    message = {"role": "assistant", "content": text}
    return 200, json.dumps({"choices": [{"message": message}]}), {}


@contextmanager
def endpoint(*replies):
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
    with endpoint(completion("Fine.\nScore: 7"), completion("Score: 2.5")) as (
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
    with endpoint(completion(reply)) as (url, requests):
        assert _verifier(url)("p", ["a"]) == [float(score)]
    assert len(requests) == 1


@pytest.mark.parametrize(
    "reply",
    ["It is right.", "Score: high", "Score: 11", "Score: -3", "Score: 7,5", "", None]
    + ["the underscore 5", "Score out of 10: 7"],
)
def test_replies_without_a_score_are_an_error(reply):
    """Nonsense would be some score, and rank an answer."""
    with endpoint(completion(reply)) as (url, requests):
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
        completion("Let me think."),
        0.0,  # closes without a word
    ],
    ids=str,
)
def test_failures_that_pass_are_tried_again(passing):
    """One bad moment of a server would end an evaluation."""
    with endpoint(passing, passing, completion("Score: 5")) as (url, requests):
        assert _verifier(url, attempts=3)("p", ["a"]) == [5.0]
        assert len(requests) == 3


def test_a_silent_server_is_given_up():
    """A reply that never comes would hold a thread for ever."""
    with endpoint(30.0, completion("Score: 5")) as (url, requests):
        assert _verifier(url, timeout=0.2)("p", ["a"]) == [5.0]
        assert len(requests) == 2
    with endpoint(30.0) as (url, requests):
        with pytest.raises(VerifierError, match=r"(?i)timed? ?out.* \(2 attempts\)"):
            _verifier(url, timeout=0.1, attempts=2)("p", ["a"])
        assert len(requests) == 2


def test_no_server_is_an_error():
    """A wrong port would be a traceback of urllib."""
    with endpoint(BUSY) as (url, _):
        pass
    with pytest.raises(VerifierError, match="expected a reply, found .*refused"):
        _verifier(url, attempts=2)("p", ["a"])


def test_refusals_are_final():
    """A wrong key would be tried again and again, and its error not be shown."""
    with endpoint((401, "no such key", {})) as (url, requests):
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
    with endpoint(BUSY, date, later, never, completion("Score: 1")) as (url, _):
        _verifier(url, pause=1.0, attempts=5)("p", ["a"])
    assert slept == [1.0, 2.0, 7.0, 15.0]


def test_the_key_stays_with_its_host():
    """A redirect would hand the key to another host."""
    with endpoint(completion("Score: 1")) as (other, seen):
        moved = (302, "", {"Location": other})
        with (
            endpoint(moved) as (url, _),
            pytest.raises(VerifierError, match="302"),
        ):
            _verifier(url, key="sk-1", attempts=1)("p", ["a"])
        assert seen == []


@pytest.mark.parametrize("state", [200, 401, 500])
def test_errors_show_neither_the_key_nor_escapes(state):
    """A key would stand in logs; a terminal would obey the endpoint."""
    for pad in ("", "x" * 180, "x" * 190):
        body = f"\x1b[2J\x07 Bearer sk-secret-key {pad}"
        with (
            endpoint((state, body, {})) as (url, _),
            pytest.raises(VerifierError) as caught,
        ):
            _verifier(url, key="sk-secret-key", attempts=1)("p", ["a"])
        assert "\x1b" not in str(caught.value) and "secret" not in str(caught.value)
        assert "-key" not in str(caught.value)


@pytest.mark.parametrize(
    "form",
    [
        *(lambda key: key, json.dumps, lambda key: json.dumps(key).replace("/", r"\/")),
        *(html.escape, quote, lambda key: quote(key, safe="")),
        lambda key: base64.b64encode(key.encode()).decode(),
    ],
)
def test_the_key_is_hidden_in_every_form(form):
    """Endpoints that repeat a key in an error write it as their format wants it."""
    key = "sk-a/b+c=d\"e'f&g\\h"
    with (
        endpoint((401, f"bad {form(key)}\n" * 9, {})) as (url, _),
        pytest.raises(VerifierError, match=r"\*\*\*") as caught,
    ):
        _verifier(url, key=key, attempts=1)("p", ["a"])
    assert form(key).strip('"=') not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "body",
    [
        "[" * 200_000 + "]" * 200_000,
        '{"choices": ' + "9" * 10_000 + "}",
        " " * (17 << 20),
    ],
)
def test_bodies_that_are_no_completion_are_one_error(body):
    """A reply could end a run, or fill the memory."""
    with endpoint((200, body, {})) as (url, _), pytest.raises(VerifierError):
        _verifier(url, attempts=1)("p", ["a"])


def test_a_reply_has_a_deadline(monkeypatch):
    """An endpoint that sends a byte a second would be waited for all day."""

    def drip(request, timeout, deadline):
        time.sleep(60)

    monkeypatch.setattr(chat_verifier, "_exchange", drip)
    start = time.monotonic()
    with pytest.raises(VerifierError, match="in time"):
        _verifier("http://localhost", attempts=1, timeout=0.1)("p", ["a"])
    assert time.monotonic() - start < 10


def test_the_judge_sees_the_answer_alone():
    """Twenty thousand tokens of thinking would be sent, and judged."""
    with endpoint(completion("Score: 7")) as (url, seen):
        _verifier(url)("p", ["<think>hidden</think>shown"])
    content = seen[0][2]["messages"][0]["content"]
    assert "shown" in content and "hidden" not in content


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
        ({"url": "http://"}, "url must name a host"),
        ({"url": "http://:80/v1"}, "url must name a host"),
        ({"url": "http://host:port/v1"}, "no host or port"),
        ({"url": "http://host:99999/v1"}, "no host or port"),
        ({"url": "http://[::1/v1"}, "no host or port"),
        ({"url": "http://a b/v1"}, "ASCII without spaces"),
        ({"url": "http://host/\r\nX: y"}, "ASCII without spaces"),
        ({"url": "http://bücher.test/v1"}, "ASCII without spaces"),
        ({"url": "http://me:pw@host/v1"}, "without user, password"),
        ({"url": "http://host/v1?api-key=pw"}, "without user, password"),
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
