"""Runs in a bucket: what a process has kept, the next one goes on with.

One process of its own does all (`tests.fake_gcs`): what a kill leaves behind is there a
run directory that is never closed.
"""

import contextlib
import sys
from pathlib import Path

import pytest

from jaxmoe.checkpoints import gcs
from jaxmoe.evals import store
from jaxmoe.evals.bucket import run_folder
from jaxmoe.evals.store import RunDirectory, RunWriteError
from jaxmoe.evals.times import Go, add_go
from tests.evals.store_test import MANIFEST, contents, record
from tests.fake_gcs import Bucket, end, serve, start

RUN = "gs://bucket/runs/a"


@pytest.mark.thorough
def test_runs_in_a_bucket(tmp_path):
    """A preempted machine would take its answers with it, or leave others than a run
    that was never stopped; two would overwrite each other; another configuration would
    go on with answers that were drawn otherwise; a refusal would be a traceback."""
    bucket = Bucket(tmp_path / "bucket")
    bucket.folder.mkdir()
    code = "from tests.evals.bucket_test import everything; everything()"
    with serve(bucket):
        end(start(bucket, code, bucket.folder / "runs" / "a", tmp_path / "local"))


def everything():
    """What the process does; its arguments are the served folder and another."""
    served, local = map(Path, sys.argv[1:])
    store.BUCKET_SECONDS = 0.0
    kills_and_ends(served, local)
    two_at_once()
    with pytest.raises(ValueError, match="n: 5 there"):
        RunDirectory(RUN, MANIFEST | {"n": 6}).__enter__()
    with pytest.raises(RunWriteError, match="gs://secret/runs/a.*login"):
        RunDirectory("gs://secret/runs/a", MANIFEST).__enter__()
    with pytest.raises(ValueError, match="gcloud"):
        store.read_manifest(Path(RUN))
    lost = next(iter(sorted((served / "records-0-of-1.jsonl.parts").iterdir())))
    lost.unlink()
    (served / "records-0-of-1.jsonl").unlink()
    with pytest.raises(OSError, match="part is missing"):
        run_folder(RUN)


def add(run: RunDirectory, samples: range):
    """Answers to the first problem."""
    for sample in samples:
        run.add(record(0, sample))


def kills_and_ends(served: Path, local: Path):
    """Five goes, three of them killed, and one that was never stopped."""
    for first, last, killed in ((0, 2, 1), (2, 3, 1), (3, 4, 0), (4, 5, 1), (5, 6, 0)):
        run = RunDirectory(RUN, MANIFEST)
        with contextlib.ExitStack() as stack:
            stack.enter_context(run)
            assert len(run.done) == first
            add(run, range(first, last))
            if killed:
                stack.pop_all()
            else:
                add_go(run.path, run.shard, Go(1.0, last - first, 7))
    with RunDirectory(local, MANIFEST) as run:
        add(run, range(6))
        for _ in range(2):
            add_go(run.path, run.shard, Go(1.0, 1, 7))
    assert contents(run_folder(RUN)) == contents(local)
    # A copy of it is a run directory too, beside its parts.
    for name, content in contents(local).items():
        assert (served / name).read_bytes() == content


def two_at_once():
    """The second to write is refused, and what the first has written stays."""
    with RunDirectory(RUN, MANIFEST) as first, contextlib.ExitStack() as stack:
        second = stack.enter_context(RunDirectory(RUN, MANIFEST))
        first.add(record(1))
        before = gcs.names(RUN)
        with pytest.raises(ValueError, match="another process draws this shard"):
            second.add(record(2))
        assert gcs.names(RUN) == before
        with pytest.raises(ValueError, match="another process draws this shard"):
            stack.close()
    assert (("p2", 0) in RunDirectory(RUN, MANIFEST).__enter__().done) is False
