"""Statistics by rank against examples worked by hand."""

import json
import math

import ml_dtypes
import numpy as np
import pytest

from jaxmoe.analysis.router_scores import (
    load_share,
    normalised_entropy,
    rank_curve,
    to_json,
)


@pytest.fixture
def two_rows():
    """Logits of two tokens with known probabilities, in no order and not centred."""
    p = np.array([[0.125, 0.5, 0.25, 0.125], [0.1, 0.1, 0.1, 0.7]])
    return np.log(p) + np.array([[3.0], [-40.0]])


def test_rank_curve_of_two_rows(two_rows):
    """Rows would be averaged before they are sorted, or ranks mixed up."""
    curve = rank_curve(two_rows, head=2, tail=4)
    mean = [0.6, 0.175, 0.1125, 0.1125]
    np.testing.assert_allclose(curve.mean, mean, rtol=1e-12)
    np.testing.assert_allclose(curve.middle, mean, rtol=1e-12)  # of two, as the mean
    np.testing.assert_allclose(curve.cumulative, [0.6, 0.775, 0.8875, 1], rtol=1e-12)
    assert curve.gap_head == pytest.approx((math.log(2) + math.log(7)) / 2)
    assert curve.gap_tail == pytest.approx((math.log(2) + math.log(1)) / 2)
    assert curve.mean.dtype == np.float64


def test_gaps_per_rank_are_over_the_ranks_crossed():
    """Head and tail cross different numbers of ranks, and would not compare."""
    steps = np.r_[np.full(4, 0.5), np.full(27, 0.01), np.full(8, 3.0)]
    logits = -np.append(0.0, np.cumsum(steps))
    shuffled = np.random.default_rng(0).permuted(np.tile(logits, (6, 1)), axis=1)
    curve = rank_curve(shuffled)
    assert (curve.head, curve.tail) == (5, 32)
    assert curve.gap_head == pytest.approx(4 * 0.5)
    assert curve.gap_tail == pytest.approx(27 * 0.01)
    assert curve.gap_head_per_rank == pytest.approx(0.5)
    assert curve.gap_tail_per_rank == pytest.approx(0.01)


def test_quantiles_are_over_rows():
    """Of 11 rows the 10 %, 50 % and 90 % quantiles are the 2nd, 6th and 10th."""
    best = 0.5 + 0.04 * np.arange(11)
    p = np.stack([best, 0.6 * (1 - best), 0.4 * (1 - best)], axis=1)
    p = np.random.default_rng(0).permuted(p, axis=1)
    curve = rank_curve(np.log(p), head=2, tail=3)
    for found, place in ((curve.low, 1), (curve.middle, 5), (curve.high, 9)):
        assert found[0] == pytest.approx(best[place])
        # The other ranks fall where the best rises, so their quantiles come reversed.
        others = 1 - best[10 - place]
        np.testing.assert_allclose(found[1:], [0.6 * others, 0.4 * others])


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_rank_curve_is_a_distribution(dtype):
    """Sums in the dtype of the logits would not reach 1."""
    logits = np.random.default_rng(0).normal(size=(500, 128), scale=4).astype(dtype)
    curve = rank_curve(logits)
    assert curve.cumulative[-1] == pytest.approx(1, abs=1e-12)
    np.testing.assert_allclose(np.diff(curve.cumulative), curve.mean[1:])
    for values in (curve.mean, curve.low, curve.middle, curve.high):
        assert (np.diff(values) <= 0).all()
    assert (curve.low <= curve.middle).all()
    assert (curve.middle <= curve.high).all()


def test_rank_curve_bears_extreme_logits():
    """exp(1000) overflows, and the log of a probability that underflowed is -inf."""
    curve = rank_curve(np.array([[1000.0, 0.0, -1000.0]]), head=2, tail=3)
    np.testing.assert_array_equal(curve.mean, [1, 0, 0])
    assert curve.gap_head == curve.gap_tail == 1000


@pytest.mark.parametrize(
    "head, tail", [(5, 17), (1, 16), (8, 8), (9, 8)], ids="{}".format
)
def test_rank_curve_refuses_ranks_that_are_not_there(head, tail):
    """A gap over no ranks would be divided by 0, or read past the last expert."""
    with pytest.raises(ValueError, match=rf"E = 16 .* head = {head}, tail = {tail}"):
        rank_curve(np.zeros((2, 16)), head=head, tail=tail)


@pytest.mark.parametrize("wrong", [np.nan, -np.inf])
def test_rank_curve_refuses_logits_that_are_not_finite(wrong):
    """One masked row would turn every statistic into nan."""
    logits = np.zeros((3, 40))
    logits[1, 7] = wrong
    with pytest.raises(ValueError, match="must be finite"):
        rank_curve(logits)


def test_rank_curve_refuses_no_rows():
    """The mean of nothing is nan, with a warning that says nothing."""
    with pytest.raises(ValueError, match="found no rows"):
        rank_curve(np.zeros((0, 40)))


def test_json_holds_everything(two_rows):
    """A saved curve would lack a field, or fail in json.dumps."""
    curve = rank_curve(two_rows, head=2, tail=4)
    read = json.loads(json.dumps(to_json(curve)))
    assert read["mean"] == [0.6, 0.175, 0.1125, 0.1125]
    assert read["cumulative"] == [0.6, 0.775, 0.8875, 1]
    assert (read["head"], read["tail"]) == (2, 4)
    assert read["gap_tail_per_rank"] == pytest.approx(math.log(2) / 4, rel=1e-5)
    names = {"mean", "low", "middle", "high", "cumulative", "head", "tail"}
    gaps = {f"gap_{end}{per}" for end in ("head", "tail") for per in ("", "_per_rank")}
    assert set(read) == names | gaps


def test_json_keeps_small_probabilities():
    """Rounded to 6 places, the tail would be 0 and vanish from a log scale."""
    curve = rank_curve(np.log([[1 - 1.2e-8, 1.1e-8, 1e-9]]), head=2, tail=3)
    assert to_json(curve)["mean"] == [1, 1.1e-8, 1e-9]


# -- load --------------------------------------------------------------------------


def test_load_share_counts_choices():
    """A place of no choice would count for the last expert, which -1 indexes."""
    experts = np.array([[0, 2], [2, -1], [-1, -1], [2, 0]], np.int32)
    np.testing.assert_array_equal(load_share(experts, 4), [0.4, 0, 0.6, 0])


@pytest.mark.parametrize("wrong", [-2, 4])
def test_load_share_refuses_unknown_experts(wrong):
    """The share would be longer than the experts, or -2 be taken for no choice."""
    with pytest.raises(ValueError, match=r"must be in -1\.\.3, found"):
        load_share(np.array([[0, wrong]]), 4)


@pytest.mark.parametrize("experts", [np.full((3, 2), -1), np.zeros((0, 2), np.int32)])
def test_load_share_refuses_no_choices(experts):
    """0 / 0 would be called a load."""
    with pytest.raises(ValueError, match="at least one choice"):
        load_share(experts, 4)


@pytest.mark.parametrize(
    "share, entropy",
    [
        ([0.25] * 4, 1),
        ([1 / 12] * 12, 1),
        ([0, 1, 0], 0),
        ([0.5, 0.5, 0, 0], 0.5),
        ([0.5, 0.25, 0.25], 1.5 * math.log(2) / math.log(3)),
        ([1], 1),
    ],
)
def test_normalised_entropy(share, entropy):
    """An unused expert would make it nan, and rounding would carry it past 1."""
    found = normalised_entropy(np.array(share, float))
    assert found == pytest.approx(entropy)
    assert 0 <= found <= 1
    assert math.copysign(1, found) == 1


@pytest.mark.parametrize("share", [[2.0, 2.0], [1.5, -0.5], [0.0, 0.0], []])
def test_normalised_entropy_refuses_counts(share):
    """Counts instead of shares would give a number of no meaning."""
    with pytest.raises(ValueError, match="sum to 1"):
        normalised_entropy(np.array(share))
