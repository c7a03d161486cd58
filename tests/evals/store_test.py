"""Run directories: what is kept through kills, full disks and other processes."""

import errno
import fcntl
import json
import multiprocessing
import os
import random
import resource
import signal
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from jaxmoe.evals import store
from jaxmoe.evals.records import Record
from jaxmoe.evals.shards import WHOLE, Shard, read_lines, records_files
from jaxmoe.evals.store import RunDirectory, RunWriteError

PROBLEMS, N = 60, 5
MANIFEST = {
    "problems": [f"p{j}" for j in range(PROBLEMS)],
    "n": N,
    "sampler": {"temperature": 0.7, "top_p": 0.8},
    "data": {"sha256": "12ab"},
}
WHOLE_FILE = "records-0-of-1.jsonl"
# All that some function or other takes for the end of a line, and half a pair.
STRANGE = "a\nb\rc\x0bd\x0ce\x1cf\x1eg\x85h\u2028i\u2029j\x00k\x7fl\ufeffm🎲\ud83d"


def record(j: int, sample: int = 0, **changes) -> Record:
    """A made-up record; some are far longer than others."""
    size = random.Random(f"{j}, {sample}").choice([1, 20, 300, 20_000])
    text = f"ünï\u2028{j}:{sample} " * size
    made = Record(
        f"p{j}", sample, (0, j, sample), text, "stop", str(j), j % 3 == 0, size,
        -0.5 * size, -0.5, tokens=(j, sample),
    )  # fmt: skip
    return replace(made, **changes)


def draw(
    path: Path,
    shard: Shard = WHOLE,
    limit: int | None = None,
    torn: float | None = None,
    manifest: dict = MANIFEST,
) -> None:
    """Adds what is missing, as a process of its own.

    limit: records after which it waits to be killed. torn: instead, the share of the
    next record's bytes that are written before it kills itself.
    """
    try:
        with RunDirectory(path, manifest, shard) as run:
            added = 0
            for j in filter(shard.of, range(PROBLEMS)):
                for sample in range(N):
                    if (f"p{j}", sample) in run.done:
                        continue
                    if added == limit:
                        _end(torn)
                    run.add(record(j, sample))
                    added += 1
    except ValueError as error:
        print(error, file=sys.stderr)
        sys.exit(3)


def _end(torn: float | None) -> None:
    if torn is None:
        signal.pause()
        return
    write = os.write

    def half(descriptor, line):
        write(descriptor, line[: int(torn * len(line))])
        os.kill(os.getpid(), signal.SIGKILL)

    os.write = half


@pytest.fixture
def start():
    """A function that starts `draw` in a process; none outlives the test.

    The processes are forked from one that has imported this file, which takes
    seconds.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    started = []

    def begin(*arguments, **options):
        process = context.Process(target=draw, args=arguments, kwargs=options)
        process.start()
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.join()


@pytest.fixture
def path(tmp_path):
    """Where the run is kept."""
    return tmp_path / "runs" / "out"


@pytest.fixture
def unsynced(monkeypatch):
    """Nothing waits for the disk, in tests that open a folder hundreds of times."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


def await_size(file: Path, size: int) -> None:
    """Waits until a file has grown to so many bytes."""
    end = time.monotonic() + 100
    while not file.exists() or file.stat().st_size < size:
        assert time.monotonic() < end, f"{file} did not grow"
        time.sleep(0.001)


def lines(folder: Path) -> list[bytes]:
    """All lines of all records files, in order; none is cut off."""
    files = sorted(folder.glob("records-*"))
    text = b"".join(file.read_bytes() for file in files)
    assert text.endswith(b"\n")
    return sorted(text[:-1].split(b"\n"))


def unbroken() -> list[bytes]:
    """The lines of a run that nothing disturbs."""
    made = [record(j, i).line() for j in range(PROBLEMS) for i in range(N)]
    return sorted(line.encode()[:-1] for line in made)


def fill(path: Path, *records: Record, shard: Shard = WHOLE, manifest=MANIFEST) -> None:
    """A run directory with these records added."""
    with RunDirectory(path, manifest, shard) as run:
        for each in records:
            run.add(each)


def contents(folder: Path) -> dict[str, bytes]:
    """All files of a folder."""
    return {file.name: file.read_bytes() for file in folder.iterdir()}


# -- shards --------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 7])
def test_shards_take_every_problem_once(count):
    """A problem would be drawn twice, or never."""
    shards = [Shard.parse(f"{index}/{count}") for index in range(count)]
    for problem in range(20):
        assert [shard.of(problem) for shard in shards].count(True) == 1
        assert shards[problem % count].of(problem)


@pytest.mark.parametrize(
    "text", ["", "1", "2/2", "-1/2", "0/0", "a/b", "1/2/3", "1 /2", "0.5/2", "٠/١"]
)
def test_nonsense_is_no_shard(text):
    """A slip would draw nothing, or what another process draws."""
    with pytest.raises(ValueError, match=r"0 <= I < M, found .*0/2 and 1/2"):
        Shard.parse(text)


@pytest.mark.parametrize("index, count", [(2, 2), (-1, 2), (0, 0)])
def test_shards_count_from_0(index, count):
    """Shard 2 of 2 would wait for problems that never come."""
    with pytest.raises(ValueError, match=f"found {index}/{count}"):
        Shard(index, count)


@pytest.mark.parametrize(
    "name", ["records-2-of-2.jsonl", "records-00-of-1.jsonl", "records-old.jsonl"]
)
def test_records_files_have_no_other_names(path, name):
    """Records would be passed over in silence, and drawn again."""
    fill(path, record(0))
    (path / name).write_text("")
    with pytest.raises(ValueError, match=f"{name}; rename it"):
        fill(path)


# -- going on ------------------------------------------------------------------------


def test_a_run_goes_on(path):
    """Records would be lost, changed, or drawn again."""
    fill(path, record(0), record(1, 2))
    before = contents(path)
    assert set(before) == {"manifest.json", WHOLE_FILE}
    assert json.loads(before["manifest.json"]) == MANIFEST
    assert before[WHOLE_FILE] == (record(0).line() + record(1, 2).line()).encode()
    with RunDirectory(path, MANIFEST) as run:
        assert run.done == {("p0", 0), ("p1", 2)}
        run.add(record(1, 0))
        assert run.done == {("p0", 0), ("p1", 2), ("p1", 0)}
    after = contents(path)
    assert after[WHOLE_FILE] == before[WHOLE_FILE] + record(1, 0).line().encode()
    assert after["manifest.json"] == before["manifest.json"]


def test_ten_kills_change_nothing(path, start):
    """A killed run would lose records, repeat some, or not go on at all."""
    generator, file = random.Random(0), path / WHOLE_FILE
    limit = PROBLEMS * N // 11
    for kill in range(10):
        size = file.stat().st_size if file.exists() else 0
        if kill % 2:
            process = start(path, limit=limit, torn=generator.random())
        else:
            process = start(path, limit=limit)
            # Every line has more than 100 bytes, so it comes that far.
            await_size(file, size + generator.randrange(1, 100 * limit))
            time.sleep(generator.random() * 0.003)
            process.kill()
        process.join(100)
        assert process.exitcode == -signal.SIGKILL
    process = start(path)
    process.join(100)
    assert process.exitcode == 0
    assert lines(path) == unbroken()
    assert set(contents(path)) == {"manifest.json", WHOLE_FILE}


def test_a_line_cut_anywhere_is_drawn_again(path, unsynced):
    """A kill while writing would leave a run that cannot be read, or a wrong answer."""
    last = record(2, text=STRANGE[:-1], details={"strict": False})
    fill(path, record(0, text="one"), record(1, text="two"), last)
    whole = contents(path)[WHOLE_FILE]
    size = len(last.line().encode())
    for cut in range(1, size + 1):
        (path / WHOLE_FILE).write_bytes(whole[:-cut])
        with RunDirectory(path, MANIFEST) as run:
            assert run.done == {("p0", 0), ("p1", 0)}
            assert contents(path)[WHOLE_FILE] == whole[:-size]
            run.add(last)
        assert contents(path)[WHOLE_FILE] == whole


@pytest.mark.parametrize("size", [0, 1, 65_535, 65_536, 65_537, 200_000])
def test_half_lines_of_any_size_are_cut_off(path, size):
    """The last newline would be looked for in the last block alone."""
    fill(path, record(0))
    whole = contents(path)[WHOLE_FILE]
    (path / WHOLE_FILE).write_bytes(whole + b"x" * size)
    fill(path)
    assert contents(path)[WHOLE_FILE] == whole
    (path / WHOLE_FILE).write_bytes(b"x" * size)
    fill(path, record(0))
    assert contents(path)[WHOLE_FILE] == whole


@pytest.mark.parametrize("part", [0.0, 0.5, 1.0])
def test_an_interrupt_leaves_whole_lines(path, monkeypatch, part):
    """Ctrl-C would leave half a record, or one that is there and not in `done`."""
    write = os.write

    def interrupted(descriptor, line):
        write(descriptor, line[: int(part * len(line))])
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), RunDirectory(path, MANIFEST) as run:
        run.add(record(0))
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(os, "write", interrupted)
            run.add(record(1))
        assert run.done == {("p0", 0)}
        run.add(record(1))
        raise KeyboardInterrupt
    assert lines(path) == [record(j).line().encode()[:-1] for j in (0, 1)]


def test_strange_texts_stay_on_their_line(path):
    """A text with a line separator of Unicode would be read as two broken records."""
    strange = record(0, text=STRANGE, answer=STRANGE, details={STRANGE: STRANGE})
    fill(path, strange, record(1))
    with RunDirectory(path, MANIFEST) as run:
        assert run.done == {("p0", 0), ("p1", 0)}
    found = [line.record for line in read_lines(records_files(path))]
    assert found == [strange, record(1)]


def test_what_is_there_is_not_added(path):
    """An answer would count twice."""
    with RunDirectory(path, MANIFEST) as run:
        run.add(record(0))
        with pytest.raises(ValueError, match=r"answer 0 to problem 'p0' .* already"):
            run.add(record(0))
    with RunDirectory(path, MANIFEST) as run, pytest.raises(ValueError):
        run.add(record(0, text="another"))
    assert lines(path) == [record(0).line().encode()[:-1]]


def test_records_are_added_to_open_folders_only(path):
    """A record would be written into whatever file has the old descriptor."""
    run = RunDirectory(path, MANIFEST)
    with pytest.raises(ValueError, match=r"found it closed.*`with`"):
        run.add(record(0))
    assert not path.exists()
    with run:
        run.add(record(0))
    with pytest.raises(ValueError, match="found it closed"):
        run.add(record(1))


# -- broken files --------------------------------------------------------------------

BROKEN = {
    "no JSON": b'{"problem": "p1", "sam\n',
    "no record": b'{"problem": "p1"}\n',
    "no object": b"17\n",
    "no UTF-8": record(1).line().encode("utf-16-le") + b"\n",
    "no key": record(1).line().encode().replace(b"[0, 1, 0]", b"0"),
    "no line": b"\n",
    "two in one": record(1).line().encode()[:-1] + record(2).line().encode(),
}


@pytest.mark.parametrize("shard", [WHOLE, Shard(1, 2)], ids=["own", "of another"])
@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("name", BROKEN)
def test_broken_lines_are_told(path, unsynced, name, place, shard):
    """Records would be drawn again in silence, or nobody know which line to look at."""
    fill(path, record(0), record(3), shard=shard)
    file = path / shard.file_name
    good = [record(j).line().encode() for j in (0, 3)]
    file.write_bytes(b"".join([*good[:place], BROKEN[name], *good[place:]]))
    before = file.read_bytes()
    with pytest.raises(
        ValueError, match=f"{file}, line {place + 1}: expected a record, found "
    ) as caught:
        fill(path)
    assert "remove the line" in str(caught.value)
    assert len(str(caught.value)) < 1000
    assert file.read_bytes() == before


def test_a_failed_start_frees_the_folder(path):
    """After an error in a notebook its folder would stay locked."""
    fill(path, record(0))
    before = contents(path)[WHOLE_FILE]
    (path / WHOLE_FILE).write_bytes(before + b"broken\n")
    with pytest.raises(ValueError, match="line 2"):
        fill(path)
    (path / WHOLE_FILE).write_bytes(before)
    fill(path, record(1))


def test_the_line_another_shard_is_writing_is_left_alone(path):
    """Two shards could not start while a third is writing, or would cut its line."""
    fill(path, record(0), record(2), shard=Shard(0, 2))
    file = path / Shard(0, 2).file_name
    file.write_bytes(half := file.read_bytes()[:-20])
    with RunDirectory(path, MANIFEST, Shard(1, 2)) as run:
        assert run.done == {("p0", 0)}
    assert file.read_bytes() == half


def test_one_answer_may_not_be_two(path):
    """Which of two texts counts would depend on the order of files."""
    fill(path, record(0), shard=Shard(0, 2))
    with RunDirectory(path, MANIFEST, Shard(1, 2)) as run:
        run.done.clear()
        run.add(record(0))
    with RunDirectory(path, MANIFEST) as run:
        assert run.done == {("p0", 0)}
    (path / Shard(1, 2).file_name).write_text(record(0, correct=False).line())
    with pytest.raises(ValueError, match=r"answer 0 to problem 'p0', found two"):
        fill(path)


# -- what cannot be written ----------------------------------------------------------


@contextmanager
def file_limit(size: int):
    """No file can grow beyond so many bytes, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("room", [0, 1, 3000])
def test_a_full_disk_costs_one_record(path, room):
    """Half a record would stay, the run end, or the user not know what is kept."""
    long = record(2, text="x" * 5000)
    with RunDirectory(path, MANIFEST) as run:
        run.add(record(0))
        run.add(record(1))
        before = contents(path)[WHOLE_FILE]
        full = file_limit(len(before) + room)
        with full, pytest.raises(RunWriteError, match="2 records are safely") as caught:
            run.add(long)
        assert "the same command goes on from there" in str(caught.value)
        assert isinstance(caught.value.__cause__, OSError)
        assert contents(path)[WHOLE_FILE] == before
        assert run.done == {("p0", 0), ("p1", 0)}
        run.add(long)
    assert contents(path)[WHOLE_FILE] == before + long.line().encode()


def full_disk(descriptor, line):
    """`os.write` that takes a part, and then has no room."""
    if len(line) < 100:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return WRITE(descriptor, line[:-50])


def refused(*_):
    """`os.ftruncate` or `os.fsync` of a disk that is gone."""
    raise OSError(errno.EIO, os.strerror(errno.EIO))


WRITE = os.write


@pytest.mark.parametrize("again", [True, False], ids=["same run", "next run"])
def test_half_a_record_that_cannot_be_cut_off_is_cut_off_later(
    path, monkeypatch, again
):
    """The next record would be joined to half of this one, and both be lost."""
    with RunDirectory(path, MANIFEST) as run:
        run.add(record(0))
        with monkeypatch.context() as patch, pytest.raises(RunWriteError):
            patch.setattr(os, "write", full_disk)
            patch.setattr(os, "ftruncate", refused)
            run.add(record(1))
        assert not contents(path)[WHOLE_FILE].endswith(b"\n")
        if again:
            run.add(record(1))
    if not again:
        fill(path, record(1))
    assert lines(path) == [record(j).line().encode()[:-1] for j in (0, 1)]


def test_a_disk_that_loses_data_is_told(path, monkeypatch):
    """Records that never reached the disk would be called safe."""
    clock = iter(range(0, 100, 2))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    run = RunDirectory(path, MANIFEST)
    with monkeypatch.context() as patch, pytest.raises(RunWriteError) as caught, run:
        run.add(record(0))
        patch.setattr(os, "fsync", refused)
        run.add(record(1))
    assert "; 1 records are safely kept" in str(caught.value)
    fill(path)


def test_no_room_for_a_manifest(path):
    """Half a manifest would stay, and the next start refuse the folder."""
    with file_limit(20), pytest.raises(RunWriteError, match=f"{path} cannot be used"):
        fill(path)
    assert not (path / "manifest.json").exists()
    fill(path, record(0))
    assert set(contents(path)) == {"manifest.json", WHOLE_FILE}


def test_a_file_is_no_folder(path):
    """A slip in --out would end in a traceback about names of functions."""
    path.parent.mkdir()
    path.write_text("mine")
    for out in (path, path / "deeper"):
        with pytest.raises(
            RunWriteError, match=f"{out} cannot be used .*another --out"
        ):
            fill(out)
    assert path.read_text() == "mine"


def test_records_are_written_at_once_and_synced_now_and_then(path, monkeypatch):
    """A record would come in parts, or 10^5 of them wait for the disk each."""
    now, writes, syncs = [0.0], [], []
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    with RunDirectory(path, MANIFEST) as run:
        fsync = os.fsync
        monkeypatch.setattr(os, "write", lambda *a: writes.append(a) or WRITE(*a))
        monkeypatch.setattr(os, "fsync", lambda fd: syncs.append(now[0]) or fsync(fd))
        for j in range(40):
            run.add(record(j))
            assert contents(path)[WHOLE_FILE].count(b"\n") == len(writes) == j + 1
            now[0] += 0.125
        assert syncs == [1.0, 2.0, 3.0, 4.0]
    assert syncs == [1.0, 2.0, 3.0, 4.0, 5.0]


# -- other processes -----------------------------------------------------------------


def test_two_processes_do_not_draw_one_shard(path, start):
    """Two would draw the same answers, and mix their lines."""
    other = start(path, limit=3)
    await_size(path / WHOLE_FILE, len(record(0).line()))
    for shard, message in [
        (WHOLE, r"another process draws shard 0/1 .*wait for it"),
        (Shard(0, 2), r"draws shard 0/1 into .*overlaps with 0/2"),
    ]:
        began = time.monotonic()
        with pytest.raises(ValueError, match=message):
            fill(path, shard=shard)
        assert time.monotonic() - began < 10
    other.kill()
    other.join(100)
    with RunDirectory(path, MANIFEST) as run:
        assert 1 <= len(run.done) <= 3


def test_a_file_system_without_locks_is_told(path, monkeypatch):
    """Two processes could then mix their lines, and nobody would know."""
    fill(path)

    def unlockable(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", unlockable)
    with pytest.raises(RunWriteError, match="cannot be locked .* system with locks"):
        fill(path)


def test_shards_draw_into_one_folder_at_a_time(path, start):
    """Shards would stand in each other's way, or leave something out."""
    both = [start(path, Shard(index, 2)) for index in (0, 1)]
    for process in both:
        process.join(100)
        assert process.exitcode == 0
    assert lines(path) == unbroken()
    names = {Shard(index, 2).file_name for index in (0, 1)}
    assert set(contents(path)) == {"manifest.json"} | names
    with RunDirectory(path, MANIFEST) as run:  # in one part now: all is there
        assert len(run.done) == PROBLEMS * N


def test_of_two_configurations_at_once_one_wins(path, start):
    """Both would draw, and the folder hold answers of two configurations."""
    other = MANIFEST | {"n": N + 1}
    both = [
        start(path, Shard(index, 2), manifest=manifest)
        for index, manifest in enumerate([MANIFEST, other])
    ]
    for process in both:
        process.join(100)
    assert sorted(process.exitcode for process in both) == [0, 3]
    assert len(lines(path)) == PROBLEMS * N / 2


def test_shards_overlap_only_with_other_splits(path):
    """Machines could not share a folder, or would draw the same answers twice."""
    with (
        RunDirectory(path, MANIFEST, Shard(0, 2)) as even,
        RunDirectory(path, MANIFEST, Shard(1, 2)) as odd,
    ):
        even.add(record(0))
        odd.add(record(1))
        for shard in (WHOLE, Shard(2, 3)):
            with pytest.raises(ValueError, match="split a run in one way at a time"):
                fill(path, shard=shard)
        even.add(record(2))
    with RunDirectory(path, MANIFEST, Shard(2, 3)) as run:
        assert run.done == {("p0", 0), ("p1", 0), ("p2", 0)}


@pytest.mark.parametrize("when", ["_refuse_other_files", "_create_manifest", "_lock"])
def test_a_manifest_may_appear_at_any_moment(path, monkeypatch, when):
    """The later of two would put its configuration over the first one's."""
    place, name = store, when
    if when == "_lock":
        place, name = fcntl, "flock"
    step = getattr(place, name)

    def overtaken(*arguments):
        monkeypatch.setattr(place, name, step)
        fill(path, record(0), shard=Shard(0, 2))
        return step(*arguments)

    monkeypatch.setattr(place, name, overtaken)
    with pytest.raises(ValueError, match=rf"\(n: {N} there, 7 here\)"):
        fill(path, shard=Shard(1, 2), manifest=MANIFEST | {"n": 7})
    assert json.loads(contents(path)["manifest.json"]) == MANIFEST
    assert set(contents(path)) == {"manifest.json", Shard(0, 2).file_name}


# -- other configurations ------------------------------------------------------------

CHANGES = {
    "n: 5 there, 4 here": {"n": 4},
    "seed: absent there, 1 here": {"seed": 1},
    "sampler.top_p: 0.8 there, 0.9 here": {
        "sampler": {"temperature": 0.7, "top_p": 0.9}
    },
    'data.sha256: "12ab" there, absent here; n: 5 there, 6 here': {"data": {}, "n": 6},
    'p57", "p58", "p59"] there, ...': {"problems": [f"p{j}" for j in range(58)]},
}


@pytest.mark.parametrize("told", CHANGES)
def test_other_configurations_are_refused(path, told):
    """Answers of two runs would be mixed, or nobody know which option is another."""
    fill(path, record(0))
    with (path / WHOLE_FILE).open("a") as file:
        file.write("half a li")
    before = contents(path)
    with pytest.raises(ValueError, match="another configuration") as caught:
        fill(path, manifest=MANIFEST | CHANGES[told])
    assert told in str(caught.value)
    assert str(caught.value).endswith("choose another --out, or remove it to draw anew")
    assert len(str(caught.value)) < 500
    assert contents(path) == before


def test_a_run_of_an_earlier_version_is_refused_in_a_sentence(path):
    """Nobody would find, among twenty differences, why it cannot go on."""
    earlier = MANIFEST | {"format": 1, "policy": "TopK()", "sampler": "TokenSampler()"}
    now = earlier | {"policy": {"kind": "TopK"}, "sampler": {"kind": "TokenSampler"}}
    fill(path, record(0), manifest=earlier)
    with pytest.raises(ValueError, match=r"earlier version .*choose another --out$"):
        fill(path, manifest=now)
    fill(path, manifest=earlier)


def test_a_manifest_is_compared_as_json_has_it(path):
    """A run with a tuple in its options could never go on."""
    fill(path, manifest={"key": (1, 2), "by": {3: None}, "text": STRANGE})
    fill(path, manifest={"text": STRANGE, "by": {"3": None}, "key": [1, 2]})


@pytest.mark.parametrize("name", ["notes.txt", WHOLE_FILE, ".hidden"])
def test_a_folder_with_other_things_is_spared(path, name):
    """A slip in --out would mix records into somebody's files."""
    path.mkdir(parents=True)
    (path / name).write_text("mine")
    with pytest.raises(ValueError, match=rf"{path} with {name} .*another --out"):
        fill(path)
    assert contents(path) == {name: b"mine"}


def test_other_files_may_come_later(path):
    """A report in its folder would keep a run from going on."""
    fill(path, record(0))
    (path / "report.html").write_text("mine")
    fill(path, record(1))
    assert len(lines(path)) == 2


def test_a_kill_within_the_manifest_leaves_an_empty_folder(path):
    """A run killed at its very start would need its folder removed by hand."""
    path.mkdir(parents=True)
    (path / "manifest.json.partial").write_text('{"problems": ["p0", "p1", ' * 1000)
    fill(path, record(0))
    assert set(contents(path)) == {"manifest.json", WHOLE_FILE}
    assert json.loads(contents(path)["manifest.json"]) == MANIFEST


@pytest.mark.parametrize("text", ["", "[]", '{"n": 3', "\udcff", "[" * 99_999])
def test_a_broken_manifest_is_told(path, text):
    """A file of another program would be taken for an empty configuration."""
    path.mkdir(parents=True)
    (path / "manifest.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    before = contents(path)
    with pytest.raises(ValueError, match=r"JSON object of a run in .*manifest\.json"):
        fill(path)
    assert contents(path) == before
