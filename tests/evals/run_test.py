"""Runs as arrays, merged shards and packed routes, from made-up records."""

import base64
import errno
import json
import os
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from jaxmoe.evals.records import Record
from jaxmoe.evals.run import merge, pack_routes, read_run, routes_of, shared
from jaxmoe.evals.shards import WHOLE, Shard
from jaxmoe.evals.store import RunDirectory

IDS = ["b", "a", "d", "c", "e"]  # in no order of their own
N = 3
MANIFEST = {
    "task": "maths",
    "data": {"sha256": "12ab"},
    "problems": IDS,
    "groups": ["g1", "g1", "g2", "g3", "g3"],
    "n": N,
}


def record(j: int, i: int, **changes) -> Record:
    """Answer i to problem j, unlike all others."""
    made = Record(
        IDS[j], i, (0, j, i), f"\u2028{j}.{i}" * (1 + j), "length" if i else "stop",
        None if j == i else f"{j + i}", (j + i) % 2 == 0, 10 * j + i, -float(j),
        -i / 4, self_certainty=j + i / 8,
    )  # fmt: skip
    return replace(made, **changes)


RECORDS = [record(j, i) for j in range(len(IDS)) for i in range(N)]


def keep(path: Path, records, shard=WHOLE, manifest=MANIFEST) -> Path:
    """A run directory with these records."""
    with RunDirectory(path, manifest, shard) as run:
        for each in records:
            run.add(each)
    return path


def of_shard(shard: Shard) -> list[Record]:
    """The records that the shard draws."""
    return [each for each in RECORDS if shard.of(each.key[1])]


@pytest.fixture
def whole(tmp_path):
    """A whole run, drawn in the order of a loop over samples."""
    return keep(tmp_path / "whole", sorted(RECORDS, key=lambda each: each.sample))


# -- arrays --------------------------------------------------------------------------


def test_a_run_is_arrays_by_problem_and_sample(whole):
    """Answers would go to another problem, or be those of another sample."""
    run = read_run(whole)
    assert (run.name, run.n, run.ids) == ("whole", N, tuple(IDS))
    assert run.manifest == MANIFEST
    assert [each for row in run.records for each in row] == RECORDS
    j, i = np.indices((len(IDS), N))
    for found, expected, dtype in [
        (run.correct, (j + i) % 2 == 0, np.bool_),
        (run.lengths, 10 * j + i, np.int64),
        (run.logprob_sum, -j, np.float64),
        (run.logprob_mean, -i / 4, np.float64),
        (run.self_certainty, j + i / 8, np.float64),
    ]:
        assert found.dtype == dtype
        np.testing.assert_array_equal(found, expected)
    assert run.answers[1] == ["1", None, "3"]
    assert run.finish == [["stop", "length", "length"]] * len(IDS)
    assert run.groups == ("g1", "g1", "g2", "g3", "g3")


@pytest.mark.parametrize("name", ["logprob_sum", "logprob_mean", "self_certainty"])
def test_what_is_not_there_is_nan(tmp_path, name):
    """A missing number would be 0, the best log-probability of all."""
    records = [record(0, 0), record(0, 1, **{name: None}), record(0, 2)]
    run = read_run(keep(tmp_path / "out", records), partial=True)
    assert np.isnan(getattr(run, name)).tolist() == [[False, True, False]]


def test_some_problems_of_a_run(whole):
    """Rows would be another problem's, or groups those of the whole run."""
    run = read_run(whole, problems=["c", "b"])
    assert run.ids == ("b", "c")
    assert run.groups == ("g1", "g3")
    assert run.lengths.tolist() == [[0, 1, 2], [30, 31, 32]]
    with pytest.raises(ValueError, match="expected ids of problems .* found 'z'"):
        read_run(whole, problems=["c", "z"])


def test_incomplete_runs_are_told(tmp_path):
    """A table would be made of the problems that happened to be drawn first."""
    path = keep(tmp_path / "out", [*RECORDS[:4], *RECORDS[6:9]])
    message = "expected 15 records in .*, found 7, .* 2 of 5 .* same command .*partial"
    with pytest.raises(ValueError, match=message):
        read_run(path)
    run = read_run(path, partial=True)
    assert run.ids == ("b", "d")
    assert run.groups == ("g1", "g2")
    assert [each for row in run.records for each in row] == RECORDS[:3] + RECORDS[6:9]
    assert read_run(path, problems=["d", "b"]).ids == ("b", "d")
    with pytest.raises(ValueError, match="expected 6 records in .*, found 4"):
        read_run(path, problems=["a", "b"])


@pytest.mark.parametrize("partial", [False, True])
def test_a_run_without_a_whole_problem_is_told(tmp_path, partial):
    """The mean over no problems would be nan, or an error about an empty array."""
    path = keep(tmp_path / "out", RECORDS[:2])
    with pytest.raises(ValueError, match="found 2, which make 0 of 5") as caught:
        read_run(path, partial=partial)
    assert "partial" not in str(caught.value)


def test_a_run_can_be_read_while_it_is_drawn(tmp_path):
    """A look at a run would fail, wait, or cut the line that is being written."""
    with RunDirectory(tmp_path / "out", MANIFEST) as run:
        for each in RECORDS[:5]:
            run.add(each)
        file = tmp_path / "out" / WHOLE.file_name
        with file.open("ab") as half:
            half.write(RECORDS[5].line().encode()[:-1])
        before = file.read_bytes()
        assert read_run(tmp_path / "out", partial=True).ids == ("b",)
        assert file.read_bytes() == before


@pytest.mark.parametrize(
    "change", [{"problem": "z"}, {"sample": N}, {"sample": -1}], ids=str
)
def test_records_of_another_run_are_told(tmp_path, change):
    """Answer -1 would be taken for the last one."""
    path = keep(tmp_path / "out", [*RECORDS, record(0, 0, **change)])
    with pytest.raises(ValueError, match=r"expected answers 0 to 2 .*0-of-1\.jsonl"):
        read_run(path)


@pytest.mark.parametrize(
    "change",
    [{"n": "3"}, {"n": None}, {"problems": [*IDS[:4], "a"]}, {"groups": ["g"]}],
    ids=str,
)
def test_manifests_must_name_problems_and_n(tmp_path, change):
    """Problems that are there twice would share their answers."""
    path = keep(tmp_path / "out", [], manifest=MANIFEST | change)
    with pytest.raises(ValueError, match="expected `problems`, each once"):
        read_run(path)


def test_a_folder_without_a_run_is_told(tmp_path):
    """A slip in a path would be called a run without records."""
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(ValueError, match=f"found none in {path}; give the --out"):
            read_run(path)


# -- runs side by side ---------------------------------------------------------------


def test_runs_are_cut_to_what_they_share(tmp_path, whole):
    """Differences would be taken between different problems."""
    b = MANIFEST | {"problems": ["c", "z", "b"], "groups": ["g3", "g9", "g1"], "n": 1}
    records = [record(3, 0), record(0, 0, problem="z"), record(0, 0)]
    other = read_run(keep(tmp_path / "b", records, manifest=b))
    for runs, ids in [
        ([read_run(whole), other], ("b", "c")),
        ([other, read_run(whole)], ("c", "b")),
    ]:
        for cut, run in zip(shared(runs), runs, strict=True):
            assert (cut.name, cut.manifest) == (run.name, run.manifest)
            assert cut.ids == ids
            assert cut.lengths[:, 0].tolist() == [30 * (id == "c") for id in ids]
            assert cut.groups == tuple({"b": "g1", "c": "g3"}[id] for id in ids)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"task": "code"}, "one task, found 'maths' in whole and 'code' in other"),
        ({"data": {"sha256": "f"}}, "one data file, found '12ab' in whole and 'f' in"),
        ({"problems": list("vwxyz")}, "found none in whole, other"),
    ],
)
def test_runs_of_different_problems_are_not_compared(tmp_path, whole, change, message):
    """Ids such as "0" are in every file, and mean something else in each."""
    manifest = MANIFEST | change
    records = [
        replace(each, problem=manifest["problems"][each.key[1]]) for each in RECORDS
    ]
    other = read_run(keep(tmp_path / "other", records, manifest=manifest))
    with pytest.raises(ValueError, match=message):
        shared([read_run(whole), other])


def test_no_runs_share_nothing():
    """It would end in an IndexError."""
    with pytest.raises(ValueError, match="one or more runs, found none"):
        shared([])


# -- merging -------------------------------------------------------------------------


@pytest.mark.parametrize("together", [True, False], ids=["one folder", "folders"])
@pytest.mark.parametrize("count", [1, 2, 7])
def test_merged_shards_are_the_merged_run(tmp_path, whole, count, together):
    """What a run says would depend on how many machines drew it."""
    paths = []
    for index in range(count):
        shard = Shard(index, count)
        path = tmp_path / ("shards" if together else f"host{index}")
        # In another order than they are wanted in.
        paths.append(keep(path, of_shard(shard)[::-1], shard))
    paths = list(dict.fromkeys(paths))
    assert merge(paths, tmp_path / "new" / "a") == len(RECORDS)
    assert merge([whole], tmp_path / "new" / "b") == len(RECORDS)
    for name in ("manifest.json", WHOLE.file_name):
        a, b = (tmp_path / "new" / folder / name for folder in "ab")
        assert a.read_bytes() == b.read_bytes()
    merged = (tmp_path / "new" / "a" / WHOLE.file_name).read_bytes()
    assert merged == "".join(each.line() for each in RECORDS).encode()
    names = {file.name for file in (tmp_path / "new").rglob("*")}
    assert names == {"a", "b", "manifest.json", WHOLE.file_name}
    assert read_run(tmp_path / "new" / "a").records == read_run(whole).records


def test_a_merged_run_goes_on(tmp_path):
    """Shards that were not finished could not be finished together."""
    shards = [Shard(index, 2) for index in (0, 1)]
    paths = [keep(tmp_path / f"{s.index}", of_shard(s)[:4], s) for s in shards]
    merge(paths, tmp_path / "out")
    with RunDirectory(tmp_path / "out", MANIFEST) as run:
        assert len(run.done) == 8
        for each in RECORDS:
            if (each.problem, each.sample) not in run.done:
                run.add(each)
    assert [e for row in read_run(tmp_path / "out").records for e in row] == RECORDS


def test_equal_answers_are_merged_into_one(tmp_path, whole):
    """Folders that overlap could not be merged, or answers would count twice."""
    again = keep(tmp_path / "again", RECORDS[3:8])
    assert merge([whole, again, whole], tmp_path / "out") == len(RECORDS)
    contradicting = keep(tmp_path / "not", [record(1, 2, correct=False, text="")])
    with pytest.raises(ValueError, match=f"answer 2 to problem 'a'.*{contradicting}"):
        merge([whole, contradicting], tmp_path / "out2")
    assert not (tmp_path / "out2").exists()


def test_folders_of_other_configurations_are_not_merged(tmp_path, whole):
    """A run would be of two models."""
    other = keep(tmp_path / "other", [], manifest=MANIFEST | {"model": "x"})
    message = 'model: absent in the first, "x" in the second'
    with pytest.raises(ValueError, match=f"{whole} and {other} .{message}"):
        merge([whole, other], tmp_path / "out")
    with pytest.raises(ValueError, match="found none"):
        merge([], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_merging_spares_what_is_there(tmp_path, whole):
    """A slip would replace a run by another."""
    before = (whole / WHOLE.file_name).read_bytes()
    with pytest.raises(ValueError, match=f"new folder .*{whole} that is there"):
        merge([whole], whole)
    assert (whole / WHOLE.file_name).read_bytes() == before
    (tmp_path / "out.partial").mkdir()
    with pytest.raises(ValueError, match=r"out\.partial that a killed merge has left"):
        merge([whole], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_merge_that_fails_leaves_nothing(tmp_path, whole, monkeypatch):
    """Half of a run would look like one that was interrupted."""

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = sorted(tmp_path.rglob("*"))
    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(os, "fsync", full)
        merge([whole], tmp_path / "out")
    assert sorted(tmp_path.rglob("*")) == before
    merge([whole], tmp_path / "out")


# -- routes --------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(7, 5, 3), (1, 1, 1), (0, 4, 2), (6, 0, 2)])
@pytest.mark.parametrize("dtype", [np.int16, np.int32, ">i2"])
def test_routes_come_back(shape, dtype):
    """Axes, signs or bytes would be mixed up between writing and reading."""
    routes = np.random.default_rng(0).integers(-1, 300, shape).astype(dtype)
    kept = record(0, 0, length=shape[0], routes=pack_routes(routes))
    found = routes_of(Record.parse(kept.line()))
    assert found.dtype == np.int16
    assert found.dtype.isnative
    np.testing.assert_array_equal(found, routes)
    found += 1  # it is the caller's own


def test_routes_are_packed_as_documented():
    """Other programs could not read them, nor later versions of this one."""
    routes = np.arange(-1, 23, dtype=np.int16).reshape(2, 3, 4)
    shape, text = pack_routes(routes.transpose(0, 2, 1)).split(":")
    values = zlib.decompress(base64.b64decode(text))
    assert shape == "2x4x3"
    assert values[:6] == b"\xff\xff\x03\x00\x07\x00"
    assert len(values) == 2 * 24


@pytest.mark.parametrize("wrong", [-32_769, 32_768])
def test_routes_that_do_not_fit_are_refused(wrong):
    """Expert 65535 would come back as -1, no expert at all."""
    with pytest.raises(ValueError, match=f"-1..32767, found .*{wrong}"):
        pack_routes(np.array([[[0, wrong]]]))


ROUTES = pack_routes(np.ones((4, 2, 2), np.int16))


@pytest.mark.parametrize(
    "routes, message",
    [
        (None, "found none kept for answer 2 to problem 'a'"),
        (ROUTES[:-4], "something else for answer 2 to problem 'a'"),
        (ROUTES.replace("4x2x2", "4x2x3"), "something else"),
        (ROUTES.replace("4x2x2", "4x2"), "something else"),
        (ROUTES.replace("4x2x2", "4x4"), r"routes \[4, L, K\], found \[4, 4\]"),
        (ROUTES.replace("4x2x2", "2x4x2"), r"routes \[4, L, K\], found \[2, 4, 2\]"),
        (ROUTES.split(":")[1], "something else"),
        ("4x2x2:" + "é", "something else"),
        ("", "something else"),
    ],
)
def test_broken_routes_are_told(routes, message):
    """Experts would be counted for other tokens, or an error speak of zlib alone."""
    with pytest.raises(ValueError, match=message):
        routes_of(record(1, 2, length=4, routes=routes))


def test_a_manifest_is_copied_as_it_is(tmp_path, whole):
    """A merged run could not go on with the command of its shards."""
    merge([whole], tmp_path / "out")
    text = (tmp_path / "out" / "manifest.json").read_bytes()
    assert text == (whole / "manifest.json").read_bytes()
    assert json.loads(text) == MANIFEST
