import pytest

from jaxmoe.benchmarks.timing import Side, Spread, take_turns


def test_a_spread_is_told_by_its_median_and_ends():
    """One slow round would count as much as all others."""
    spread = Spread((3.0, 1.0, 100.0, 2.0, 4.0))
    assert (spread.median, spread.least, spread.most) == (3, 1, 100)
    assert spread.quartiles == (2, 4)
    assert Spread((7.0,)).quartiles == (7, 7)


def test_ratios_are_taken_round_by_round():
    """A machine that slows down would favour the side measured first."""
    ours, theirs = Spread((1.0, 2.0, 4.0)), Spread((3.0, 6.0, 12.0))
    assert theirs.over(ours).values == (3, 3, 3)
    assert ours.times(1e3).values == (1000, 2000, 4000)
    assert ours.into(8).values == (8, 4, 2)
    with pytest.raises(ValueError, match="shorter"):
        theirs.over(Spread((1.0,)))


def test_sides_take_turns_and_warm_up():
    """The first run, which compiles, would be counted."""
    order: list[str] = []

    def side(name: str) -> Side:
        return Side(lambda: order.append(name), lambda: order.append(f"before {name}"))

    found = take_turns({"a": side("a"), "b": side("b")}, 2, warmup=1)
    assert order == ["before a", "a", "before b", "b"] * 3
    assert [len(found[name].values) for name in "ab"] == [2, 2]


def test_preparing_is_not_timed():
    """Copies that a run needs would count as its work."""
    clock = iter(range(100))
    side = Side(lambda: None, lambda: [next(clock) for _ in range(10)])
    (found,) = take_turns({"a": side}, 1)["a"].values
    assert found < 1e-2
