"""Several real processes on this machine, joined over loopback."""

import json
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from jaxmoe.evals.shards import records_files
from tests.mesh.eight_devices_test import ROOT, environment

EVALUATE = [sys.executable, str(ROOT / "scripts" / "evaluate.py"), "demo"]
BOUND = 90
"""Seconds in which the others must end once a process has died."""


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def options_of(out: Path, problems: int) -> list[str]:
    """An evaluation on a mesh of 2 x 4, everything kept."""
    options = ["--mesh", "2x4", "--n", "4", "--problems", str(problems)]
    return [*options, "--out", str(out), "--keep-tokens", "--keep-routes"]


def launch(
    options: list[str], process: int, processes: int, port: int, devices: int
) -> subprocess.Popen:
    """One process of an evaluation, with its part of the devices."""
    join = ["--coordinator", f"127.0.0.1:{port}", "--process", str(process)]
    join += ["--processes", str(processes)]
    return subprocess.Popen(
        [*EVALUATE, *options, *(join if processes > 1 else [])],
        env=environment(devices // processes),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start(out: Path, processes: int, problems: int = 6) -> list[subprocess.Popen]:
    """The same evaluation in so many processes, on eight devices in all."""
    port, options = free_port(), options_of(out, problems)
    return [launch(options, i, processes, port, 8) for i in range(processes)]


def finish(started: list[subprocess.Popen], seconds: float = 300) -> list[str]:
    """What they printed; all must end well."""
    outputs = []
    for process in started:
        out, err = process.communicate(timeout=seconds)
        assert process.returncode == 0, err[-4000:]
        outputs.append(out)
    return outputs


def records(out: Path) -> list[bytes]:
    """The records of a run, sorted."""
    lines = []
    for path in records_files(out):
        lines += path.read_bytes().splitlines()
    return sorted(lines)


@pytest.fixture(scope="module")
def one_process(tmp_path_factory) -> Path:
    """The run of one process with eight devices."""
    out = tmp_path_factory.mktemp("one") / "run"
    finish(start(out, 1))
    return out


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, 4])
def test_processes_give_the_answers_of_one(one_process, tmp_path, count):
    """A pod would answer otherwise than one host, or answer twice."""
    outputs = finish(start(tmp_path / "run", count))
    one, several = records(one_process), records(tmp_path / "run")
    assert len(one) == 24
    for left, right in zip(one, several, strict=True):
        left, right = json.loads(left), json.loads(right)
        for name in ("problem", "sample", "tokens", "routes", "text", "correct"):
            assert left[name] == right[name]
    assert "accuracy" in outputs[0] and not any(outputs[1:])


def kill_one(started: list[subprocess.Popen], victim: int, out: Path) -> None:
    """SIGKILL, once some records are there."""
    began = time.monotonic()
    while not any(path.stat().st_size for path in records_files(out)):
        assert time.monotonic() - began < 200, "no record came"
        assert all(process.poll() is None for process in started)
        time.sleep(0.1)
    started[victim].send_signal(signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_dies_stops_the_others(tmp_path, victim):
    """The others would wait for ever, or end as if all was well; or the run could not
    go on, or would end with other records."""
    whole, out = tmp_path / "whole", tmp_path / "run"
    finish(start(whole, 2, problems=40))
    started = start(out, 2, problems=40)
    kill_one(started, victim, out)
    died = time.monotonic()
    other = started[1 - victim]
    _, err = other.communicate(timeout=BOUND)
    assert time.monotonic() - died < BOUND
    assert other.returncode != 0
    assert "process" in err.lower(), err[-3000:]
    kept = len(records(out))
    assert 0 < kept < 160
    finish(start(out, 2, problems=40))
    assert records(out) == records(whole)


@pytest.mark.slow
def test_processes_that_disagree_are_stopped(tmp_path):
    """Processes started with other options would wait for each other for ever."""
    port, out = free_port(), tmp_path / "run"
    started = [
        launch([*options_of(out, 4), "--n", n], process, 2, port, 8)
        for process, n in enumerate(("4", "5"))
    ]
    for process in started:
        _, err = process.communicate(timeout=120)
        assert process.returncode != 0
        assert "expected the same" in err and "2 processes" in err
