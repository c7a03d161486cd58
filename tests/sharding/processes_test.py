"""Processes of their own are in tests/mesh/processes_test.py."""

import socket
import subprocess
import sys
import threading

import pytest

from jaxmoe.sharding import processes, watch

OTHER = """
import sys
from jaxmoe.sharding import watch
watch.connect("127.0.0.1", {port}, bytes.fromhex("{token}"), 3)
print("connected", flush=True)
sys.stdin.readline()
{end}
"""


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"coordinator": "a:1"}, "found no processes and no process"),
        ({"coordinator": "a:1", "processes": 2}, "found no process; give it"),
        ({"coordinator": "a:1", "processes": 2, "process": 2}, r"0\.\.1, found 2"),
    ],
)
def test_half_an_address_is_refused(given, words):
    """jax would look for a cluster that is not there, for minutes."""
    coordinator = given.pop("coordinator")
    with pytest.raises(ValueError, match=words):
        processes.initialize(coordinator, **given)


def test_one_process_decides_alone():
    """A single process would wait for others; or its error would be wrapped."""
    assert processes.is_first()
    assert processes.first_decides(lambda: {"a": (1, 2)}) == {"a": (1, 2)}
    processes.check_equal({"anything": [1]})
    with pytest.raises(KeyError):
        processes.first_decides(lambda: {}["missing"])


@pytest.fixture
def lost(monkeypatch) -> list[str]:
    """What was heard of other processes' ends; this one goes on."""
    heard: list[str] = []
    monkeypatch.setattr(watch, "_stop", heard.append)
    monkeypatch.setattr(watch, "_connections", [])
    monkeypatch.setattr(watch, "GRACE_SECONDS", 0)
    return heard


def other(port: int, token: bytes, end: str = "") -> subprocess.Popen:
    """A process that has joined, and waits for a line."""
    code = OTHER.format(port=port, token=token.hex(), end=end)
    started = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert started.stdout is not None
    assert started.stdout.readline() == "connected\n"
    return started


def wait_for_threads() -> None:
    """Until all that listens has heard the end."""
    for thread in threading.enumerate():
        if thread.name.startswith("jaxmoe-"):
            thread.join(20)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("how", "end", "expected"),
    [
        ("kill", "", ["process 3 has died"]),
        ("line", "", []),
        ("line", "watch.fail(2)", ["process 3 has failed"]),
    ],
)
def test_each_end_is_told_from_the_others(lost, how, end, expected):
    """A kill or a failure would go unseen, or each normal end would stop the others."""
    process = other(*watch.listen(1), end)
    if how == "kill":
        process.kill()
    else:
        process.communicate("\n")
    process.wait(20)
    assert process.returncode == {"kill": -9, "line": 2 if end else 0}[how]
    wait_for_threads()
    assert lost == expected


def test_strangers_are_not_heard(lost):
    """Any port scan would stop the run, or take the place of a process."""
    port, token = watch.listen(1)
    for greeting in (b"", b"GET / HTTP/1.1\r\n\r\n" + bytes(30)):
        with socket.create_connection(("127.0.0.1", port)) as stranger:
            stranger.sendall(greeting)
    process = other(port, token)
    assert lost == []
    process.kill()
    process.wait(20)
    wait_for_threads()
    assert lost == ["process 3 has died"]


def test_failing_alone_changes_nothing(monkeypatch):
    """A script of one process would end within the function, its exit code lost."""
    monkeypatch.setattr(watch, "_connections", [])
    watch.fail(2)


def test_the_end_is_one_line_with_a_remedy(capsys, monkeypatch):
    """Who finds a run ended would not learn why, nor that nothing is lost."""
    codes: list[int] = []
    monkeypatch.setattr(watch, "_leave", codes.append)
    watch._stop("process 1 has died")
    assert codes == [watch.LOST]
    message = capsys.readouterr().err
    assert "process 1 has died" in message and "the same command" in message


def test_nobody_to_connect_to():
    """An error of the network would come as something else than OSError."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(OSError):
        watch.connect("127.0.0.1", port, bytes(16), 1)
