"""Processes of their own are in tests/mesh/processes_test.py."""

import socket
import subprocess
import sys

import pytest

from jaxmoe import host_watch, hosts

OTHER = """
import sys, time
from jaxmoe import host_watch
host_watch.connect("127.0.0.1", {port}, 3)
print("connected", flush=True)
sys.stdin.readline()
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
        hosts.initialize(coordinator, **given)


def test_one_process_decides_alone():
    """A single process would wait for others; or its error would be wrapped."""
    assert hosts.is_first()
    assert hosts.first_decides(lambda: {"a": (1, 2)}) == {"a": (1, 2)}
    hosts.check_equal({"anything": [1]})
    with pytest.raises(KeyError):
        hosts.first_decides(lambda: {}["missing"])


@pytest.fixture
def lost(monkeypatch) -> list[str]:
    """Names of processes that were found dead; this one goes on."""
    names: list[str] = []
    monkeypatch.setattr(host_watch, "_stop", names.append)
    monkeypatch.setattr(host_watch, "_connections", [])
    return names


@pytest.mark.parametrize("killed", [True, False], ids=["killed", "ended"])
def test_a_killed_process_is_told_from_one_that_ends(lost, killed):
    """A kill would go unseen, or each normal end would stop the others."""
    port = host_watch.listen(1)
    other = subprocess.Popen(
        [sys.executable, "-c", OTHER.format(port=port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdout is not None and other.stdin is not None
    assert other.stdout.readline() == "connected\n"
    if killed:
        other.kill()
    else:
        other.stdin.write("\n")
        other.stdin.close()
    other.wait(20)
    for thread in host_watch.threading.enumerate():
        if thread.name.startswith("jaxmoe-"):
            thread.join(20)
    assert lost == (["process 3"] if killed else [])


def test_the_end_is_one_line_with_a_remedy(capsys):
    """Who finds a run ended would not learn why, nor that nothing is lost."""
    codes: list[int] = []
    host_watch._stop("process 1", codes.append)
    assert codes == [host_watch.LOST]
    message = capsys.readouterr().err
    assert "process 1 has died" in message and "the same command" in message


def test_nobody_to_connect_to():
    """An error of the network would come as something else than OSError."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(OSError):
        host_watch.connect("127.0.0.1", port, 1)
