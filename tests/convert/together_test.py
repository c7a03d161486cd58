"""Several processes, one checkpoint: the same bytes as one process makes."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from convert import ConversionError, convert, destination, together, workers
from convert.__main__ import main
from convert.to_jaxmoe import check
from convert.together import convert_share
from convert.workers import Worker
from jaxmoe.checkpoints import store

ROOT = Path(__file__).resolve().parents[2]
STAMPED = {"params/_CHECKPOINT_METADATA", "params/commit_success.txt"}
"""Files in which Orbax notes the time."""


def command(before: str, *args) -> dict:
    """How to run the command in a process of its own, after the code `before`."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    code = f"import sys\nfrom convert.__main__ import main\n{before}\n"
    code += "sys.exit(main(sys.argv[1:]))"
    return {"args": [sys.executable, "-c", code, *map(str, args)], "env": env}


def assert_same(trees, path: Path, other: Path):
    """Compares every file."""
    found, expected = trees(path), trees(other)
    assert found.keys() == expected.keys()
    for name in expected.keys() - STAMPED:
        assert found[name] == expected[name], name


def names(path: Path) -> list[str]:
    """What is in a directory."""
    return sorted(p.name for p in path.iterdir())


@pytest.mark.parametrize("count", [1, 2, 3, 7, 40])
def test_shares(make, count):
    """A parameter would be written by nobody, or by two; or one would do it all."""
    fills = check(make()).plan.fills
    parts = [Worker(i, count).share(fills) for i in range(count)]
    assert sorted(n for part in parts for n in part) == sorted(fills)
    loads = [sum(fill.nbytes for fill in part.values()) for part in parts]
    largest = max(fill.nbytes for fill in fills.values())
    assert max(loads) - min(loads) <= largest


@pytest.mark.parametrize("text", ["3/3", "-1/2", "1", "1/0", "a/b", "1/2/3", ""])
def test_workers_that_are_none(text):
    """A misspelt number would convert another part."""
    with pytest.raises(ConversionError, match="a worker is I/M with 0 <= I < M"):
        Worker.parse(text)
    assert Worker.parse("2/4") == Worker(2, 4)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [None, "float32"])
def test_three_at_once(make, tmp_path, trees, dtype):
    """Workers would disturb one another, or nobody would commit, or two."""
    source = make(shards=2)
    convert(source, tmp_path / "one", dtype=dtype)
    start, outcomes = threading.Barrier(3), {}

    def work(i: int):
        start.wait()
        out = tmp_path / "three"
        outcomes[i] = convert_share(source, out, Worker(i, 3), dtype=dtype, verify=True)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == [0, 1, 2]
    assert any(outcome.missing == 0 for outcome in outcomes.values())
    assert names(tmp_path) == ["one", "source", "three"]
    assert_same(trees, tmp_path / "three", tmp_path / "one")


SLOW = """
import time
from jaxmoe.checkpoints import store
write = store.write_array
def slow(path, spec, read):
    written = write(path, spec, read)
    time.sleep(0.05)
    return written
store.write_array = slow
"""


@pytest.mark.slow
def test_a_killed_worker_goes_on(make, tmp_path, trees):
    """What a killed worker had finished would be written again, or what it had begun
    would stay; or the others would commit without it."""
    source, out, partial = make(), tmp_path / "ckpt", tmp_path / "ckpt.partial"
    own = Worker(1, 3).share(check(source).plan.fills)

    def finished() -> list[str]:
        kept = (partial / "receipts").glob("*.json")
        return [path.stem for path in kept if path.stem in own]

    args = (source, out, "--worker", "1/3", "--jobs", "1")
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(**command(SLOW, *args), **quiet) as process:
        end = time.monotonic() + 60
        while len(finished()) < 2:
            assert process.poll() is None, "ended before it could be killed"
            assert time.monotonic() < end
            time.sleep(0.01)
        assert convert_share(source, out, Worker(0, 3)).missing > 0
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    before = finished()
    assert len(before) < len(own)
    assert convert_share(source, out, Worker(2, 3)).missing == len(own) - len(before)
    assert not out.exists()
    with pytest.MonkeyPatch.context() as patch:
        written, write = [], store.write_array

        def note(path, spec, read):
            written.append(path.name)
            return write(path, spec, read)

        patch.setattr(store, "write_array", note)
        assert convert_share(source, out, Worker(1, 3)).missing == 0
    assert sorted(written) == sorted(own.keys() - set(before))
    convert(source, tmp_path / "one")
    assert_same(trees, out, tmp_path / "one")


@pytest.mark.parametrize("step", ["finish", "write_manifest"])
def test_a_commit_cut_short(make, tmp_path, trees, monkeypatch, step):
    """Workers that start after a kill in the commit would write all again, or fail."""
    source, out = make(), tmp_path / "ckpt"
    convert_share(source, out, Worker(0, 2))

    def stop(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        # Before anything is moved, and when Orbax has all of it.
        patch.setattr(store, step, stop)
        with pytest.raises(KeyboardInterrupt):
            convert_share(source, out, Worker(1, 2))
    assert not out.exists()

    def refuse(*_):
        raise AssertionError("written again")

    with monkeypatch.context() as patch:
        patch.setattr(store, "write_array", refuse)
        assert convert_share(source, out, Worker(0, 2)).missing == 0
    convert(source, tmp_path / "one")
    assert_same(trees, out, tmp_path / "one")


def test_other_workers_and_options_are_refused(make, tmp_path):
    """Parts of two divisions, or of two types, would be mixed."""
    source, out = make(), tmp_path / "ckpt"
    convert_share(source, out, Worker(0, 3))
    with pytest.raises(
        ConversionError, match="begun by 3 workers, expected 4; go on wi"
    ):
        convert_share(source, out, Worker(0, 4))
    with pytest.raises(ConversionError, match="begun by 3 workers, expected 1"):
        convert(source, out)
    with pytest.raises(ConversionError, match="of another source or of other options"):
        convert_share(source, out, Worker(1, 3), dtype="float32")
    other = make(lambda t: t["model.norm.weight"].fill(3), name="other")
    with pytest.raises(ConversionError, match="of another source or of other options"):
        convert_share(other, out, Worker(1, 3))
    convert_share(source, out, Worker(0, 2), force=True)
    convert_share(source, out, Worker(1, 2))
    assert names(tmp_path) == ["ckpt", "other", "source"]


def test_while_others_write(make, tmp_path, monkeypatch):
    """One would begin anew, or finish, under the hands of another."""
    source, out = make(), tmp_path / "ckpt"
    monkeypatch.setattr(workers, "PATIENCE", 0.2)
    inside, leave = threading.Event(), threading.Event()
    write = store.write_array

    def wait(*args):
        inside.set()
        leave.wait(30)
        return write(*args)

    with monkeypatch.context() as patch:
        patch.setattr(store, "write_array", wait)
        thread = threading.Thread(
            target=convert_share, args=(source, out, Worker(0, 2))
        )
        thread.start()
        assert inside.wait(30)
    try:
        with pytest.raises(ConversionError, match="another process is writing"):
            convert(source, out, force=True)
        with pytest.raises(ConversionError, match="another process is writing"):
            convert_share(source, out, Worker(0, 3), force=True)
        with pytest.raises(ConversionError, match="another process is worker 0 of 2"):
            convert_share(source, out, Worker(0, 2))
        assert convert_share(source, out, Worker(1, 2)).missing > 0
    finally:
        leave.set()
        thread.join()
    assert names(tmp_path) == ["ckpt", "source"]


def test_complete_in_the_meantime(make, tmp_path, trees):
    """A worker that comes late would fail, or begin anew what is complete."""
    source, out = make(), tmp_path / "ckpt"
    convert_share(source, out, Worker(0, 2))
    convert_share(source, out, Worker(1, 2))
    before = trees(out)
    assert convert_share(source, out, Worker(0, 2)).missing == 0
    assert trees(out) == before
    assert names(tmp_path) == ["ckpt", "source"]
    other = make(lambda t: t["model.norm.weight"].fill(3), name="other")
    with pytest.raises(ConversionError, match="exists"):
        convert_share(other, out, Worker(0, 2))
    with pytest.raises(ConversionError, match="exists"):
        convert_share(source, out, Worker(0, 2), dtype="float32")


@pytest.mark.parametrize("late", [1, 2])
def test_completed_while_it_is_locked(make, tmp_path, trees, monkeypatch, late):
    """A directory begun in the moment when others complete would stay behind."""
    source, out = make(), tmp_path / "ckpt"
    is_converted, calls = together.is_converted, []

    def complete(*args):
        calls.append(args)
        if len(calls) == 1:
            found = is_converted(*args)
            convert(source, out)
            return found
        return is_converted(*args)

    monkeypatch.setattr(together, "is_converted", complete)
    if late == 2:  # after the destination was looked at
        check_out = destination.check

        def first(*args, **options):
            if not calls or out.exists():
                return None
            return check_out(*args, **options)

        monkeypatch.setattr(destination, "check", first)
    assert convert_share(source, out, Worker(0, 2)).missing == 0
    assert names(tmp_path) == ["ckpt", "source"]


@pytest.mark.slow
def test_command_line(make, tmp_path, trees, capfd):
    """The documented commands would fail, or report less than they did."""
    source, out = str(make()), tmp_path / "ckpt"
    assert main([source, str(out), "--worker", "0/2"]) == 0
    assert "are left to the others" in capfd.readouterr().out
    assert main([source, str(out), "--worker", "2/2"]) == 1
    assert "a worker is I/M" in capfd.readouterr().err
    assert main([source, str(out), "--worker", "1/2", "--verify"]) == 0
    assert "complete; " in capfd.readouterr().out
    assert main([source, str(tmp_path / "two"), "--processes", "2"]) == 0
    captured = capfd.readouterr()
    assert "by 2 processes in" in captured.out.splitlines()[-1]
    for i in range(2):
        assert f"worker {i}/2: {tmp_path / 'two'}: " in captured.err
    assert_same(trees, tmp_path / "two", out)


@pytest.mark.slow
def test_a_failing_process(make, tmp_path, capfd):
    """One of several would fail, and the command say that all is well."""
    source, out = make(), tmp_path / "ckpt"
    convert_share(source, out, Worker(0, 3))
    assert main([str(source), str(out), "--processes", "2"]) == 1
    error = capfd.readouterr().err
    assert "worker 1/2: error: " in error and "begun by 3 workers" in error
    assert "workers 0, 1 of 2 ended with an error" in error.splitlines()[-1]


@pytest.mark.parametrize(
    "options",
    [
        ["--worker", "0/2", "--processes", "2"],
        ["--processes", "0"],
        ["--export", "--worker", "0/2"],
    ],
)
def test_options_that_do_not_go_together(options, capsys):
    """They would be ignored."""
    with pytest.raises(SystemExit):
        main(["a", "b", *options])
    assert "--processes" in capsys.readouterr().err
