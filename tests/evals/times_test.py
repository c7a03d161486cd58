"""How long a run took: noted by each go, and never in the way of the run."""

from dataclasses import replace

import pytest

from jaxmoe.evals.shards import Shard
from jaxmoe.evals.summary import SECONDS, SPEED, numbers_of
from jaxmoe.evals.times import Go, add_go, read_goes
from tests.evals.compare_test import BASE

HALVES = Shard(0, 2), Shard(1, 2)


def test_goes_of_all_shards_are_read(tmp_path):
    """The time of a run that was stopped, or split, would be that of a part."""
    goes = [Go(1.5, 3, 40), Go(0.5, 1, 8), Go(2.0, 4, 50)]
    assert read_goes(tmp_path) == ()
    for go, shard in zip(goes, (HALVES[0], HALVES[0], HALVES[1]), strict=True):
        add_go(tmp_path, shard, go)
    with (tmp_path / "times-1-of-2.jsonl").open("a") as file:
        file.write('{"seconds": 3')  # a kill cut the line off
    assert read_goes(tmp_path) == tuple(goes)


def test_time_is_told_of_whole_runs_only():
    """A run that was killed would look faster than it was."""
    whole = numbers_of(replace(BASE, goes=(Go(2.0, 8, 30), Go(1.0, 4, 18))))
    assert whole[SECONDS] == 3
    assert whole[SPEED] == pytest.approx(16)
    part = numbers_of(replace(BASE, goes=(Go(2.0, 8, 30),)))
    assert SECONDS not in part and part[SPEED] == 15
    assert not {SECONDS, SPEED} & set(numbers_of(BASE))
    assert whole["tokens in all"] == 48
