"""Several real processes on this machine, joined over loopback."""

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
PROBLEMS, SAMPLES = 24, 4
BOUND = 90
"""Seconds in which the others must end once a process has died."""

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("processes")]


def free_port() -> int:
    """A port that nobody listens on just now."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Evaluation:
    """One evaluation on a mesh of 2 x 4 devices, in one process or several."""

    def __init__(self, cache: Path):
        self.cache = cache
        self.started: list[subprocess.Popen] = []

    def start(self, out: Path, processes: int, *more: list[str], problems=PROBLEMS):
        """Starts it; `more` are options of single processes, such as other ones."""
        port = free_port()
        options = ["--mesh", "2x4", "--n", str(SAMPLES), "--problems", str(problems)]
        options += ["--slots", "16", "--out", str(out), "--keep-tokens"]
        self.started = []
        for i in range(processes):
            join = ["--coordinator", f"127.0.0.1:{port}", "--process", str(i)]
            join += ["--processes", str(processes)]
            own = more[i] if more else []
            started = subprocess.Popen(
                [*EVALUATE, *options, *own, *(join if processes > 1 else [])],
                env=environment(8 // processes) | {"XDG_CACHE_HOME": str(self.cache)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            self.started.append(started)

    def finish(self) -> list[str]:
        """What each process printed; all must end well."""
        outputs = []
        for process in self.started:
            out, err = process.communicate(timeout=300)
            assert process.returncode == 0, err[-4000:]
            outputs.append(out)
        return outputs

    def kill(self, victim: int, out: Path, more_than: int) -> str:
        """SIGKILL once there are new records; what the other process said of it."""
        began = time.monotonic()
        while len(records(out)) <= more_than:
            assert time.monotonic() - began < 200, "no record came"
            assert all(process.poll() is None for process in self.started)
            time.sleep(0.05)
        self.started[victim].send_signal(signal.SIGKILL)
        died = time.monotonic()
        _, err = self.started[1 - victim].communicate(timeout=BOUND)
        assert time.monotonic() - died < BOUND
        assert self.started[1 - victim].returncode not in (0, None)
        self.started[victim].communicate()
        return err


def records(out: Path) -> list[bytes]:
    """The records of a run, sorted."""
    files = records_files(out) if out.exists() else {}
    return sorted(line for path in files for line in path.read_bytes().splitlines())


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory):
    """Compiled programs are kept from one run to the next."""
    found = Evaluation(tmp_path_factory.mktemp("cache"))
    yield found
    for process in found.started:
        process.kill()


@pytest.fixture(scope="module")
def whole(evaluation, tmp_path_factory) -> list[bytes]:
    """The records of one process with eight devices."""
    out = tmp_path_factory.mktemp("whole") / "run"
    evaluation.start(out, 1)
    evaluation.finish()
    found = records(out)
    assert len(found) == PROBLEMS * SAMPLES
    return found


@pytest.mark.mesh
def test_processes_that_are_killed_go_on_as_one(evaluation, whole, tmp_path):
    """The other process would wait for ever, or end as if all was well; or the run
    could not go on; or two processes of four devices would answer otherwise than one of
    eight, by a single bit of a log-probability."""
    out, kept = tmp_path / "run", 0
    for victim in (1, 0):
        evaluation.start(out, 2)
        message = evaluation.kill(victim, out, kept)
        assert f"process {victim} has died" in message
        kept = len(records(out))
        assert kept < len(whole), "it was killed too late to show anything"
    evaluation.start(out, 2)
    first, second = evaluation.finish()
    assert "accuracy" in first and not second
    assert records(out) == whole


def test_four_processes_give_the_answers_of_one(evaluation, whole, tmp_path):
    """Two devices a process: rows and heads would be lost between hosts."""
    out = tmp_path / "run"
    evaluation.start(out, 4, problems=6)
    evaluation.finish()
    found = records(out)
    assert len(found) == 6 * SAMPLES and set(found) <= set(whole)


@pytest.mark.mesh
def test_processes_that_disagree_are_stopped(evaluation, tmp_path):
    """Processes started with other options would wait for each other for ever."""
    evaluation.start(tmp_path / "run", 2, ["--seed", "1"], ["--seed", "2"])
    for process in evaluation.started:
        _, err = process.communicate(timeout=120)
        assert process.returncode == 2
        assert "expected the same options and questions in all 2 processes" in err


@pytest.mark.mesh
def test_a_process_that_fails_alone_stops_the_others(evaluation, tmp_path):
    """An error in one process, as of a file that its host lacks, would leave the others
    waiting, or end them with a crash of the runtime that says nothing of it."""
    lacking = ["--task", "exact", "--data", str(tmp_path / "missing.jsonl")]
    began = time.monotonic()
    evaluation.start(tmp_path / "run", 2, [], lacking)
    codes, errors = [], []
    for process in evaluation.started:
        errors.append(process.communicate(timeout=BOUND)[1])
        codes.append(process.returncode)
    assert time.monotonic() - began < BOUND
    assert codes == [70, 2]
    assert "process 1 has failed" in errors[0] and "missing.jsonl" in errors[1]
