"""Where the output goes: nothing is lost, mixed, or left half done."""

import errno
import fcntl
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import namedtuple
from pathlib import Path

import numpy as np
import pytest

from convert import ConversionError, convert, destination, export
from convert.__main__ import main
from jaxmoe.checkpoints import store

ROOT = Path(__file__).resolve().parents[2]


def command(before: str, *args) -> dict:
    """How to run the command in a process of its own, after the code `before`."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
    code = f"import sys\nfrom convert.__main__ import main\n{before}\n"
    code += "sys.exit(main(sys.argv[1:]))"
    return {"args": [sys.executable, "-c", code, *map(str, args)], "env": env}


def run(before: str, *args) -> subprocess.CompletedProcess:
    """Runs it to its end."""
    options = {"capture_output": True, "text": True, "check": False}
    return subprocess.run(**command(before, *args), **options)


def names(path: Path) -> list[str]:
    """What is in a directory."""
    return sorted(p.name for p in path.iterdir())


def test_exists(make, tmp_path, trees):
    """An earlier conversion would be overwritten."""
    source = make()
    convert(source, tmp_path / "ckpt")
    before = trees(tmp_path / "ckpt")
    with pytest.raises(ConversionError, match="exists; .* --force"):
        convert(source, tmp_path / "ckpt", dtype="float32")
    assert trees(tmp_path / "ckpt") == before


def test_force_replaces_when_complete(make, tmp_path, monkeypatch, trees):
    """--force would remove the old one before there is a new one."""
    source = make()
    convert(source, tmp_path / "ckpt")
    before = trees(tmp_path / "ckpt")
    with monkeypatch.context() as patch:
        patch.setattr(store, "finish", _fail(RuntimeError("power cut")))
        with pytest.raises(RuntimeError, match="power cut"):
            convert(source, tmp_path / "ckpt", dtype="float32", force=True)
    assert trees(tmp_path / "ckpt") == before
    convert(source, tmp_path / "ckpt", dtype="float32", force=True)
    params = store.read_manifest(tmp_path / "ckpt").params
    assert {spec.dtype for spec in params.values()} == {"float32"}
    assert names(tmp_path) == ["ckpt", "source"]
    export(tmp_path / "ckpt", tmp_path / "again")
    export(tmp_path / "ckpt", tmp_path / "again", force=True)
    assert names(tmp_path) == ["again", "ckpt", "source"]


def _fail(error):
    def fail(*_, **__):
        raise error

    return fail


def test_force_spares_other_directories(make, tmp_path):
    """--force with a slip of the finger would remove a home directory."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.txt").write_text("years")
    with pytest.raises(ConversionError, match="replaces only what this command wrote"):
        convert(make(), home, force=True)
    assert names(home) == ["thesis.txt"]


def test_empty_directory(make, tmp_path):
    """An empty directory made beforehand would be refused."""
    (tmp_path / "ckpt").mkdir()
    convert(make(), tmp_path / "ckpt")
    assert (tmp_path / "ckpt" / store.MANIFEST).exists()
    assert names(tmp_path) == ["ckpt", "source"]


@pytest.mark.parametrize("force", [False, True])
def test_spares_what_is_named_old(make, tmp_path, trees, force):
    """A user's own `ckpt.old` would be removed, or stop the command at its end."""
    source = make()
    convert(source, tmp_path / "ckpt.old")
    before = trees(tmp_path / "ckpt.old")
    if force:
        convert(source, tmp_path / "ckpt")
    convert(source, tmp_path / "ckpt", force=force)
    (tmp_path / "again.old").mkdir()
    (tmp_path / "again.old" / "thesis.txt").write_text("years")
    export(tmp_path / "ckpt", tmp_path / "again")
    export(tmp_path / "ckpt", tmp_path / "again", force=True)
    assert trees(tmp_path / "ckpt.old") == before
    assert names(tmp_path / "again.old") == ["thesis.txt"]
    assert names(tmp_path) == ["again", "again.old", "ckpt", "ckpt.old", "source"]


def test_filled_in_the_meantime(make, tmp_path, monkeypatch):
    """Files put into the empty destination while it is written would be removed."""
    source, out, finish = make(), tmp_path / "ckpt", store.finish

    def fill(*args):
        out.mkdir()
        (out / "thesis.txt").write_text("years")
        finish(*args)

    with monkeypatch.context() as patch:
        patch.setattr(store, "finish", fill)
        with pytest.raises(ConversionError, match="filled by something else"):
            convert(source, out)
    out = out.rename(tmp_path / "moved")
    assert names(out) == ["thesis.txt"]
    monkeypatch.setattr(store, "write_array", _fail(AssertionError("again")))
    convert(source, tmp_path / "ckpt")


def test_the_old_one_comes_back(make, tmp_path, monkeypatch, trees):
    """A rename that fails would leave nothing under the destination's name."""
    source, out, rename = make(), tmp_path / "ckpt", Path.rename
    convert(source, out)
    before = trees(out)

    def refuse(path, target):
        if path.name == "ckpt.partial":
            raise PermissionError("no")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(PermissionError):
        convert(source, out, force=True)
    assert trees(out) == before
    assert names(tmp_path) == ["ckpt", "ckpt.partial", "source"]


@pytest.mark.thorough
@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    "kind",
    ["directory", "file", "link", "other record", "linked record", "fifo for a record"],
)
def test_spares_what_is_named_partial(make, tmp_path, force, kind):
    """A user's own `ckpt.partial` would be removed, or written into."""
    convert(make(), tmp_path / "ckpt")
    home = tmp_path / ("home" if kind == "link" else "new.partial")
    if kind == "file":
        home.write_text("years")
    else:
        home.mkdir()
    if kind in ("directory", "link", "other record"):
        (home / "thesis.txt").write_text("years")
    if kind == "linked record":
        (tmp_path / "thesis.txt").write_text("years")
        (home / destination.RECORD).symlink_to(tmp_path / "thesis.txt")
    if kind == "fifo for a record":
        os.mkfifo(home / destination.RECORD)
    if kind == "link":
        (tmp_path / "new.partial").symlink_to(home)
    if kind == "other record":
        (home / destination.RECORD).write_text("[]")
    before = names(tmp_path), home.is_dir() and names(home)
    match = r"new.partial: expected none, .* found something else; move it away"
    with pytest.raises(ConversionError, match=match):
        convert(tmp_path / "source", tmp_path / "new", force=force)
    with pytest.raises(ConversionError, match=match):
        export(tmp_path / "ckpt", tmp_path / "new", force=force)
    with pytest.raises(FileExistsError, match=match):
        store.save(tmp_path / "new", {}, family="f", files={})
    assert (names(tmp_path), home.is_dir() and names(home)) == before
    if kind == "linked record":
        assert (tmp_path / "thesis.txt").read_text() == "years"


def test_where_nothing_can_be_made(make):
    """The system's words would say nothing of what to do."""
    with pytest.raises(ConversionError, match="cannot be made .* another destination"):
        convert(make(), "/proc/ckpt")


@pytest.mark.parametrize("force", [False, True])
def test_is_a_file(make, tmp_path, force):
    """A file would be replaced by a directory."""
    (tmp_path / "ckpt").write_text("a")
    with pytest.raises(ConversionError, match="found a file"):
        convert(make(), tmp_path / "ckpt", force=force)
    assert (tmp_path / "ckpt").read_text() == "a"


@pytest.mark.parametrize("out", ["source", "source/ckpt", "."])
def test_overlaps_the_source(make, tmp_path, out):
    """--force would remove the source."""
    source = make()
    with pytest.raises(ConversionError, match="lie in one another"):
        convert(source, tmp_path / out, force=True)
    assert names(tmp_path) == ["source"]


def test_no_parent(make, tmp_path):
    """A misspelt path would be made."""
    with pytest.raises(ConversionError, match="create it first"):
        convert(make(), tmp_path / "no" / "ckpt")


# -- a full disk -------------------------------------------------------------------


def test_too_little_space(make, tmp_path, monkeypatch):
    """The disk would be filled before anyone is told."""
    usage = namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(1000))
    with pytest.raises(ConversionError, match="needs 0.00 GB, 0.00 GB are free"):
        convert(make(), tmp_path / "ckpt")
    assert names(tmp_path) == ["source"]
    monkeypatch.undo()
    convert(tmp_path / "source", tmp_path / "ckpt", dtype="float32")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk(make, tmp_path, monkeypatch, code):
    """A full disk would stay full of what is of no use."""
    error = OSError(code, os.strerror(code))
    monkeypatch.setattr(store, "sync", _fail(error))
    with pytest.raises(ConversionError, match="no room left"):
        convert(make(), tmp_path / "ckpt")
    assert names(tmp_path) == ["source"]


def test_full_disk_during_export(make, tmp_path, monkeypatch):
    """A full disk would stay full of what is of no use."""
    convert(make(), tmp_path / "ckpt")
    error = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    monkeypatch.setattr(destination, "carry", _fail(error))
    monkeypatch.setattr("convert.to_hf.destination.carry", _fail(error))
    with pytest.raises(ConversionError, match="no room left"):
        export(tmp_path / "ckpt", tmp_path / "again")
    assert names(tmp_path) == ["ckpt", "source"]


@pytest.mark.thorough
@pytest.mark.skipif(not hasattr(resource, "RLIMIT_FSIZE"), reason="no such limit here")
def test_write_fails_in_the_system(make, tmp_path):
    """The system's own error would surface as a traceback."""

    limit = "import resource as r; r.setrlimit(r.RLIMIT_FSIZE, (1000, 1000))"
    done = run(limit, make(), tmp_path / "ckpt")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: no room left while writing"), done.stderr
    assert "Traceback" not in done.stderr
    assert names(tmp_path) == ["source"]


# -- interrupted -------------------------------------------------------------------

SLOW_WRITE = """
import time
from jaxmoe.checkpoints import store
write = store.write_array
def slow(path, spec, read):
    written = write(path, spec, read)
    time.sleep(0.05)
    return written
store.write_array = slow
"""
SLOW_END = """
import time
from jaxmoe.checkpoints import store
manifest = store.write_manifest
store.write_manifest = lambda *args: time.sleep(60)
"""


def kill_when(ready, slow: str, *args) -> None:
    """Runs the command slowed down, and kills it (SIGKILL) when `ready`."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(**command(slow, *args), **quiet) as process:
        end = time.monotonic() + 60
        while not ready():
            assert process.poll() is None, "ended before it could be killed"
            assert time.monotonic() < end
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL


def kill_half_way(tmp_path, *args) -> list[Path]:
    """Kills a conversion when some parameters are finished; their receipts."""
    receipts = tmp_path / "ckpt.partial" / "receipts"
    kill_when(lambda: len(list(receipts.glob("*.json"))) > 3, SLOW_WRITE, *args)
    assert not (tmp_path / "ckpt").exists()
    return list(receipts.glob("*.json"))


def test_goes_on_after_a_kill(make, tmp_path, trees, monkeypatch):
    """A killed conversion would begin anew, or its half-written parts would stay."""
    source = make(shards=2)
    finished = kill_half_way(tmp_path, source, tmp_path / "ckpt")
    assert 3 < len(finished) < 25
    written, write = [], store.write_array

    def note(path, spec, read):
        written.append(path.name)
        return write(path, spec, read)

    monkeypatch.setattr(store, "write_array", note)
    convert(source, tmp_path / "ckpt", verify=True)
    assert not {path.stem for path in finished} & set(written)
    assert names(tmp_path) == ["ckpt", "source"]
    convert(source, tmp_path / "fresh")
    resumed, fresh = trees(tmp_path / "ckpt"), trees(tmp_path / "fresh")
    assert resumed.keys() == fresh.keys()
    stamped = {"params/_CHECKPOINT_METADATA", "params/commit_success.txt"}
    for name in fresh.keys() - stamped:
        assert resumed[name] == fresh[name], name


def _flip(directory, what):
    """Damages an array: a bit of its values, its type, its receipt, or it is lost."""
    name = directory.name
    chunk = next(p for p in directory.iterdir() if p.name != ".zarray")
    receipt = directory.parents[1] / "receipts" / f"{name}.json"
    if what == "bit":
        raw = bytearray(chunk.read_bytes())
        raw[len(raw) // 2] ^= 0x40
        chunk.write_bytes(raw)
    elif what == "short":
        chunk.write_bytes(chunk.read_bytes()[:-1])
    elif what == "lost":
        chunk.unlink()
    elif what == "type":
        file = directory / ".zarray"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"dtype": "<f2"}))
    elif what == "receipt":
        receipt.write_text(receipt.read_text()[:-9])
    else:
        receipt.write_text(receipt.read_text().replace("bfloat16", "float16"))


@pytest.mark.thorough
def test_nothing_left_over_is_trusted(make, tmp_path, trees):
    """Damage between a kill and the next run would become part of the output."""
    source = make(shards=2)
    kill_half_way(tmp_path, source, tmp_path / "ckpt")
    partial = tmp_path / "ckpt.partial"
    finished = sorted(path.stem for path in (partial / "receipts").glob("*.json"))
    kinds = ["bit", "short", "lost", "type", "receipt", "other receipt"]
    for name, what in zip(finished, kinds, strict=False):
        _flip(partial / "arrays" / name, what)
    # Left by an earlier attempt to commit.
    (partial / "source").mkdir()
    (partial / "source" / "stale.header").write_text("{}")
    (partial / "chat_template.jinja").write_text("stale")
    (source / "chat_template.jinja").unlink()
    with pytest.raises(ConversionError, match="is damaged") as caught:
        convert(source, tmp_path / "ckpt")
    # One whose receipt cannot be read is simply written again.
    assert all(n in str(caught.value) for n in [*finished[:4], *finished[5:6]])
    convert(source, tmp_path / "ckpt")
    convert(source, tmp_path / "fresh")
    resumed, fresh = trees(tmp_path / "ckpt"), trees(tmp_path / "fresh")
    assert resumed.keys() == fresh.keys()
    stamped = {"params/_CHECKPOINT_METADATA", "params/commit_success.txt"}
    for name in fresh.keys() - stamped:
        assert resumed[name] == fresh[name], name


@pytest.mark.slow
def test_goes_on_after_a_kill_at_the_end(make, tmp_path, load, monkeypatch):
    """Arrays that Orbax had committed would be written again, or lost."""
    source, done = make(), tmp_path / "ckpt.partial/params/_METADATA"
    kill_when(done.exists, SLOW_END, source, tmp_path / "ckpt")
    write = _fail(AssertionError("written again"))
    with monkeypatch.context() as patch:
        patch.setattr(store, "write_array", write)
        convert(source, tmp_path / "ckpt", verify=True)
    assert len(load(tmp_path / "ckpt")) > 20


@pytest.mark.thorough
def test_export_begins_anew(make, tmp_path, trees):
    """What a killed export left would stop the next one, or stay in its output."""
    source = make()
    convert(source, tmp_path / "ckpt")
    slow = "import time\nfrom convert import destination\n"
    slow += "destination.carry = lambda *args: time.sleep(60)"
    written = tmp_path / "again.partial" / "model.safetensors"
    args = ("--export", tmp_path / "ckpt", tmp_path / "again")
    kill_when(written.exists, slow, *args)
    (written.parent / "model-00007.safetensors").write_text("of another layout")
    with pytest.raises(FileExistsError, match="unfinished output of 'export'"):
        store.save(tmp_path / "again", {}, family="f", files={})
    with pytest.raises(ConversionError, match="unfinished output of another"):
        convert(source, tmp_path / "again")
    export(tmp_path / "ckpt", tmp_path / "again")
    assert trees(tmp_path / "again") == trees(source)


PATHS = ["../{}", "./a/../{}", "with space/{}", "\u00e9\u4f60/{}", "link/{}", "{}/"]
PATHS += ["back\\slash/{}", "..\\{}"]


@pytest.mark.thorough
@pytest.mark.parametrize("path", PATHS)
def test_any_path(make, tmp_path, monkeypatch, load, path):
    """A path that the shell takes would end in an error of TensorStore's."""
    source = make()
    here = tmp_path / "here"
    for name in ("a", "with space", "\u00e9\u4f60", "real", "back\\slash"):
        (here / name).mkdir(parents=True)
    (here / "link").symlink_to(here / "real")
    monkeypatch.chdir(here)
    out = path.format("ckpt")
    assert main([str(source), out]) == 0
    assert main(["--export", out, path.format("back")]) == 0
    weights = [Path(p) / "model.safetensors" for p in (source, path.format("back"))]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert len(load(Path(out))) > 20


def test_a_name_that_is_too_long(make, tmp_path):
    """The unfinished output's would be longer still, and end in the system's words."""
    source, longest = make(), os.pathconf(tmp_path, "PC_NAME_MAX") - 13
    with pytest.raises(ConversionError, match=f"at most {longest} bytes"):
        convert(source, tmp_path / ("x" * (longest + 1)))
    convert(source, tmp_path / ("x" * longest))
    convert(source, tmp_path / ("x" * longest), force=True)


def test_a_path_that_is_no_text(make, tmp_path, capsys):
    """It would end in a riddle of a codec's."""
    assert main([str(make()), str(tmp_path / "\udcff")]) == 1
    assert "expected a path in UTF-8" in capsys.readouterr().err


@pytest.mark.thorough
def test_export_spares_an_unfinished_conversion(make, tmp_path):
    """Hours of conversion would be removed by an export to the same name."""
    convert(make(), tmp_path / "other")
    finished = kill_half_way(tmp_path, tmp_path / "source", tmp_path / "ckpt")
    with pytest.raises(ConversionError, match="unfinished output of another"):
        export(tmp_path / "other", tmp_path / "ckpt")
    assert all(path.exists() for path in finished)


@pytest.mark.parametrize("way", ["convert", "export"])
def test_says_what_an_interrupt_leaves(make, tmp_path, monkeypatch, capsys, way):
    """One would wait for an export to go on where it stopped."""
    monkeypatch.setattr(f"convert.__main__.{way}", _fail(KeyboardInterrupt()))
    options = ["--export"] if way == "export" else []
    assert main([*options, str(make()), str(tmp_path / "out")]) == 130
    said = {"convert": "goes on from here", "export": "begins anew"}[way]
    assert capsys.readouterr().err == f"interrupted; the same command {said}\n"


def test_save_begins_anew(make, tmp_path, monkeypatch):
    """What a killed `save` left would stop the next one."""
    with monkeypatch.context() as patch:
        patch.setattr(store, "finish", _fail(RuntimeError("power cut")))
        with pytest.raises(RuntimeError, match="power cut"):
            store.save(tmp_path / "ckpt", {}, family="f", files={})
    assert names(tmp_path) == ["ckpt.partial"]
    params = {"w": np.ones(3, np.float32)}
    store.save(tmp_path / "ckpt", params, family="f", files={"config.json": "{}"})
    assert names(tmp_path) == ["ckpt"]
    assert names(tmp_path / "ckpt") == ["config.json", "jaxmoe.json", "params"]


@pytest.mark.slow
def test_leftover_of_another_source(make, tmp_path, load):
    """Parameters of two models would be mixed."""
    source = make()
    kill_half_way(tmp_path, source, tmp_path / "ckpt")

    def change(tensors):
        tensors["model.norm.weight"][:] = 3

    other = make(change, name="other")
    for options in ({"dtype": "float32"}, {}):
        with pytest.raises(ConversionError, match="unfinished output of another"):
            convert(other, tmp_path / "ckpt", **options)
    convert(other, tmp_path / "ckpt", force=True, verify=True)
    assert (load(tmp_path / "ckpt")["final_norm.scale"] == 3).all()


def test_two_at_once(make, tmp_path):
    """Two processes would write the same files."""
    source = make()
    (tmp_path / "ckpt.partial").mkdir()
    with (tmp_path / "ckpt.partial" / destination.RECORD).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(ConversionError, match="another process"):
            convert(source, tmp_path / "ckpt")
    convert(source, tmp_path / "ckpt")
