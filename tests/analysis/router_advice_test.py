"""Advice on curves whose knee is known."""

import numpy as np
import pytest

from jaxmoe.analysis.router_advice import policy_of, suggest
from jaxmoe.router.policies import ExpertSample, for_model
from tests.tiny import CHOSEN, EXPERTS, tiny_config

K, WIDE = 8, 128


def _curve(head: int, high: float, low: float, experts: int = WIDE):
    """Gaps `high` up to rank `head`, `low` behind it, and the probabilities."""
    gaps = np.r_[np.full(head - 1, high), np.full(experts - head, low)]
    p = np.exp(-np.append(0.0, np.cumsum(gaps)))
    return gaps, p / p.sum()


@pytest.mark.parametrize("head", [2, 3, 5, 7])
@pytest.mark.parametrize("low", [0.0, 0.01, 0.04])
def test_finds_a_known_knee(head, low):
    """The head would end before the gaps do, or after."""
    advice = suggest(*_curve(head, 0.5, low), k=K)
    assert (advice.k_keep, advice.knee) == (head, head)
    assert advice.gap_head == pytest.approx(0.5)
    assert advice.gap_tail == pytest.approx(low)
    assert advice.reach == 4 * K


@pytest.mark.parametrize("seed", range(5))
def test_noise_moves_no_knee(seed):
    """Another hundred tokens would give another suggestion."""
    gaps, p = _curve(5, 0.5, 0.03)
    noise = np.random.default_rng(seed).normal(size=len(gaps))
    noisy = np.maximum(gaps + 0.03 * noise, 0)
    moved = np.exp(-np.append(0.0, np.cumsum(noisy)))
    assert suggest(noisy, moved / moved.sum(), k=K).k_keep == 5


def test_a_small_gap_within_the_head_does_not_end_it():
    """Two experts that are nearly equal at the top would be taken for the tail."""
    gaps, p = _curve(6, 0.5, 0.02)
    gaps[1] = 0.0
    assert suggest(gaps, p, k=K).k_keep == 6


def test_a_head_longer_than_k_leaves_one_to_draw():
    """All would be kept, and nothing drawn."""
    advice = suggest(*_curve(12, 0.5, 0.01), k=K)
    assert (advice.k_keep, advice.knee) == (K - 1, 12)


@pytest.mark.parametrize("gap", [0.0, 0.1])
def test_without_a_knee_the_default(gap):
    """A straight line would be said to bend somewhere."""
    advice = suggest(*_curve(1, gap, gap), k=K)
    assert advice.knee is None
    assert advice.k_keep == K // 2 + 1
    assert advice.gap_head == pytest.approx(advice.gap_tail)


@pytest.mark.parametrize("share, low", [(0.25, 0.05), (0.5, 0.05), (0.25, 0.001)])
def test_r_is_where_probability_falls_below_a_share(share, low):
    """The tail would hold experts that are hopeless, or leave good ones out."""
    gaps, p = _curve(5, 0.5, low)
    advice = suggest(gaps, p, k=K, tail_share=share)
    steps = np.floor(-np.log(share) / low)
    assert advice.r == min(K + steps, WIDE)
    assert advice.p_r >= share * advice.p_k
    assert advice.r == WIDE or p[advice.r] < share * advice.p_k


@pytest.mark.parametrize("k, k_keep", [(1, 1), (2, 1), (3, 2)])
def test_few_experts_a_token(k, k_keep):
    """k_keep would be 0, or as large as k."""
    advice = suggest(*_curve(2, 2.0, 0.01, 6), k=k)
    assert advice.k_keep == k_keep
    assert k <= advice.r <= 6


@pytest.mark.parametrize("k", [1, 4])
def test_all_experts_chosen(k):
    """The split would be looked for beyond the last expert."""
    advice = suggest(*_curve(1, 0.1, 0.1, k), k=k)
    assert advice.r == k
    assert advice.k_keep == max(1, k - 1)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"k": 0}, "k = 0"),
        ({"k": WIDE + 1}, "k = 129"),
        ({"gaps": np.zeros(5)}, "E - 1 gaps"),
        ({"gaps": np.full(WIDE - 1, np.nan)}, "must be finite"),
        ({"knee_ratio": 0.0}, "knee_ratio and tail_share"),
        ({"tail_share": 1.5}, "knee_ratio and tail_share"),
    ],
)
def test_refuses_what_is_no_curve(change, message):
    """A curve of another layer, or of nan, would give numbers that look right."""
    gaps, p = _curve(5, 0.5, 0.01)
    with pytest.raises(ValueError, match=message):
        suggest(**({"gaps": gaps, "probability": p, "k": K} | change))


def test_policy_has_the_numbers_of_each_layer():
    """A layer would be sampled with the numbers of another."""
    config = tiny_config()  # a dense layer, then a mixture
    advice = suggest(*_curve(2, 1.0, 0.1, EXPERTS), k=CHOSEN)
    policy = policy_of({1: advice}, config)
    resolved = for_model(policy, config)
    assert isinstance(resolved, ExpertSample)
    assert np.asarray(resolved.k_keep).tolist() == [advice.k_keep] * 2
    assert np.asarray(resolved.r).tolist() == [advice.r] * 2
    with pytest.raises(ValueError, match=r"found none for \[1\]"):
        policy_of({0: advice}, config)
    assert advice.json()["k_keep"] == advice.k_keep
