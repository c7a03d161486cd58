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
    halves = ("0-of-2", "0-of-2", "1-of-2")
    assert read_goes(tmp_path) == ()
    for go, shard in zip(goes, (HALVES[0], HALVES[0], HALVES[1]), strict=True):
        add_go(tmp_path, shard, go)
    with (tmp_path / "times-1-of-2.jsonl").open("a") as file:
        file.write('{"seconds": 3')  # a kill cut the line off
    goes = tuple(replace(go, shard=s) for go, s in zip(goes, halves, strict=True))
    assert read_goes(tmp_path) == goes
    # As a merged run has them.
    (tmp_path / "merged").mkdir()
    for go in goes:
        add_go(tmp_path / "merged", Shard(0, 1), go)
    assert read_goes(tmp_path / "merged") == goes


@pytest.mark.parametrize(
    "line",
    [
        '{"seconds": "x", "answers": 3, "tokens": 4}',
        '{"seconds": NaN, "answers": 3, "tokens": 4}',
        '{"seconds": 1, "answers": -3, "tokens": 4}',
        '{"seconds": 1, "answers": 3}',
        '{"seconds": 1, "answers": 3, "tokens": 4, "more": 5}',
        '{"seconds": 1, "answers": 3, "tokens": 4, "shard": 5}',
        "[1, 3, 4]",
    ],
)
def test_a_line_that_is_no_go_is_named(tmp_path, line):
    """A comparison would end in a TypeError, far from the file."""
    add_go(tmp_path, HALVES[0], Go(1.5, 3, 40))
    with (tmp_path / "times-0-of-2.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(ValueError, match=r"times-0-of-2\.jsonl, line 2.*remove"):
        read_goes(tmp_path)


def test_time_is_told_of_whole_runs_only():
    """A run that was killed would look faster than it was."""
    whole = numbers_of(replace(BASE, goes=(Go(2.0, 8, 30), Go(1.0, 4, 18))))
    assert whole[SECONDS] == 3
    assert whole[SPEED] == pytest.approx(16)
    # Two machines at once; each has the run's problems of half the time.
    goes = (Go(2.0, 6, 30, "0-of-2"), Go(1.5, 3, 9, "1-of-2"), Go(1.0, 3, 9, "1-of-2"))
    apart = numbers_of(replace(BASE, goes=goes))
    assert (apart[SECONDS], apart[SPEED]) == (2.5, pytest.approx(48 / 2.5))
    part = numbers_of(replace(BASE, goes=(Go(2.0, 8, 30),)))
    assert SECONDS not in part and part[SPEED] == 15
    assert not {SECONDS, SPEED} & set(numbers_of(BASE))
    assert whole["tokens in all"] == 48
