import time

import pytest

from jaxmoe.benchmarks.peer import contenders, fastest, quickest, sides_of
from jaxmoe.benchmarks.timing import Side, Spread


def _fail():
    raise RuntimeError("no such kernel")


def test_only_slow_ways_are_left_out():
    """A peer would be measured by a way that one slow moment made look best."""
    sides = {
        "quick": Side(lambda: time.sleep(0.02)),
        "near": Side(lambda: time.sleep(0.025)),
        "slow": Side(lambda: time.sleep(0.2)),
        "broken": Side(_fail),
    }
    tasks = contenders(sides, steps=4)
    assert [task.how for task in tasks] == ["quick", "near"]
    assert quickest(sides) == "quick"
    assert list(sides_of("peer", tasks)) == ["peer: quick", "peer: near"]
    slow, quick = Spread((2.0, 4.0, 4.0)), Spread((3.0, 9.0, 3.0))
    found = {"peer: near": slow, "peer: quick": quick, "other: near": Spread((1.0,))}
    assert fastest("peer", tasks, found) == (tasks[0], quick)


def test_a_peer_that_cannot_run():
    """The comparison would be with nothing."""
    with pytest.raises(RuntimeError, match="broken: no such kernel"):
        contenders({"broken": Side(_fail)}, steps=4)
