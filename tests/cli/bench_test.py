"""`jaxmoe bench`: its options, its failures, and each benchmark on a tiny model."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from jaxmoe.benchmarks.presets import largest_for
from jaxmoe.benchmarks.report import Row, Target
from jaxmoe.cli import bench
from jaxmoe.cli.bench_measures import MEASURES
from jaxmoe.cli.bench_options import device_parts

ROOT = Path(__file__).resolve().parent.parent.parent

SMALL = {
    "kernels": [],
    "machine": [],
    "prefill": ["--n", "2"],
    "decode": [
        "--n",
        "2",
        "--steps",
        "4",
        "--experts",
        "blocks,lanes",
        "--weights",
        "int8",
    ],
    "profile": ["--n", "2", "--steps", "2"],
    "overhead": ["--n", "2", "--steps", "2"],
    "length": ["--n", "2", "--steps", "2"],
    "slots": ["--prompts", "3", "--samples", "4", "--n", "4", "--max-new-tokens", "40"],
    "compile": ["--n", "2"],
}


@pytest.fixture
def run(tmp_path):
    """Runs the command on the tiny preset: its status, and what it wrote."""

    def main(*arguments: str) -> tuple[int, dict]:
        out = tmp_path / "out.json"
        common = ["--preset", "tiny", "--rounds", "1", "--out", str(out)]
        status = bench.main([arguments[0], *common, *arguments[1:]])
        return status, json.loads(out.read_text("utf-8"))

    return main


@pytest.fixture
def measures(monkeypatch):
    """Benchmarks that measure nothing, to be replaced one by one."""
    for name in list(MEASURES):
        row = Row(name, "nothing", 1.0, "x")
        monkeypatch.setitem(MEASURES, name, lambda *_, row=row: iter([row]))
    return MEASURES


def test_all_goes_on_after_a_failure(run, measures, monkeypatch, capsys):
    """One benchmark would take the results of all others with it."""

    def fail(*_):
        yield Row("length", "before", 2.0, "ms")
        raise ValueError("no room")

    monkeypatch.setitem(measures, "length", fail)
    status, record = run("all")
    assert status == 1
    whats = [(row["benchmark"], row["what"]) for row in record["rows"]]
    at = whats.index(("length", "before"))
    assert whats[at + 1] == ("length", "failed")
    assert len(whats) == len(measures) + 1
    printed = capsys.readouterr()
    assert "ValueError no room" in printed.out.split("All rows:")[1]
    assert "Traceback" in printed.err


def test_missed_targets_are_no_failure(run, measures, monkeypatch):
    """A slower machine would look like a broken one."""
    row = Row("decode", "slow", 1.0, "x", Target("at least", 3.0))
    monkeypatch.setitem(measures, "decode", lambda *_: iter([row]))
    status, record = run("decode")
    assert (status, record["rows"][0]["met"]) == (0, False)


def test_the_record_says_where_it_is_from(run, measures):
    """Numbers could not be compared with those of another day."""
    _, record = run("slots")
    assert (record["preset"], record["backend"]) == ("tiny", "cpu")
    assert {"python", "jax", "jaxlib", "flax"} <= record["versions"].keys()
    assert record["hardware"]["cores"] >= 1
    assert record["command"].startswith("jaxmoe bench slots --preset tiny ")


def test_all_hands_its_options_on(run, measures, monkeypatch):
    """`all --rounds 1` would run for an hour."""
    seen = {}

    def see(_, args):
        seen[args.benchmark] = args
        yield Row(args.benchmark, "nothing", 1.0, "x")

    for name in measures:
        monkeypatch.setitem(measures, name, see)
    run("all", "--convert-gb", "2", "--jobs", "3")
    assert {args.rounds for args in seen.values()} == {1}
    assert (seen["convert"].gb, seen["convert"].jobs) == (2, 3)
    assert seen["decode"].n == (1, 2, 4, 8, 16, 32, 64, 128)
    assert seen["decode"].weights == "int8"


def test_a_peer_that_is_not_installed(run, monkeypatch, capsys):
    """The user would read a traceback, or wait for half of the benchmark first."""
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(SystemExit) as stopped:
        run("decode", "--peer", "transformers")
    assert stopped.value.code == 2
    assert 'pip install ".[parity]"' in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_each_benchmark_runs(run, name, untyped):
    """It would fail where it is first needed, on a large machine.

    Untyped, because `lower` rebuilds policies with descriptions in place of arrays.
    """
    status, record = run(name, *SMALL[name])
    failures = [row for row in record["rows"] if row["value"] is None]
    assert not status and not failures and record["rows"], failures


# -- device --------------------------------------------------------------------------

PARTS = {"kernels", "machine", "decode", "prefill", "overhead", "profile"}


def _device(tmp_path, preset: str, minutes: float) -> tuple[str, dict]:
    """What `bench device` prints, and what it wrote."""
    out = tmp_path / "device.json"
    options = ["--preset", preset, "--minutes", str(minutes), "--out", str(out)]
    command = [sys.executable, "-m", "jaxmoe", "bench", "device", *options]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr[-2000:]
    return ran.stdout, json.loads(out.read_text("utf-8"))


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["tiny", "small"])
def test_a_first_run_on_a_device(tmp_path, preset):
    """The only minutes on a machine that somebody rents would end in an error."""
    printed, record = _device(tmp_path, preset, 8)
    assert "Time is up" not in printed
    assert {row["benchmark"] for row in record["rows"]} == PARTS
    whats = [row["what"] for row in record["rows"]]
    for n in (1, 8, 32, 128):
        assert any(what.startswith(f"n = {n}, prompt") for what in whats)
        assert any(what.startswith(f"n = {n}: experts") for what in whats)


@pytest.mark.slow
def test_a_first_run_ends_in_time_with_what_it_has(tmp_path):
    """A machine that is taken away would keep the results."""
    printed, record = _device(tmp_path, "bench", 0.75)
    assert "Time is up" in printed and "All rows:" in printed
    assert record["rows"][0]["benchmark"] == "kernels"
    assert len(record["rows"]) < 40


def test_parts_of_a_first_run_are_benchmarks():
    """A part would fail for an option that has gone; correctness comes first."""
    parts = [bench.parser().parse_args(part) for part in device_parts()]
    assert parts[0].benchmark == "kernels"
    assert {part.benchmark for part in parts} == PARTS <= MEASURES.keys()
    assert parts[2].n == (1, 8, 32, 128) == parts[5].n


@pytest.mark.parametrize(
    ("gigabytes", "preset"),
    [(None, "30b"), (140, "30b"), (40, "30b-8"), (16, "30b-8"), (4, "bench")],
)
def test_a_device_gets_the_largest_model_that_it_has_room_for(gigabytes, preset):
    """Its first minutes would end out of memory."""
    memory = None if gigabytes is None else int(gigabytes * 1e9)
    assert largest_for("gpu", memory) == preset
    assert largest_for("cpu", memory) == "bench"


@pytest.mark.slow
@pytest.mark.parity
@pytest.mark.parametrize("name", ["prefill", "decode"])
def test_a_peer_runs(run, name):
    """There would be nothing to compare with."""
    pytest.importorskip("transformers")
    status, record = run(name, "--n", "2", "--peer", "transformers")
    assert status == 0
    assert any("times as fast" in row["what"] for row in record["rows"])
    assert {"torch", "transformers"} <= record["versions"].keys()
