"""Sampling on 8 devices; run by eight_devices_test.py in a process of its own."""

import jax
import numpy as np
import pytest

import jaxmoe
from jaxmoe import AdaptiveHead, Biased, Dropout, ExpertSample, TokenSampler, TopK
from jaxmoe.decode.inputs import check_slots
from tests.mesh.cases import (
    KEY,
    MESHES,
    MODEL,
    PROMPTS,
    check_answers,
    draw,
    on_mesh,
    same_bits,
)

pytestmark = pytest.mark.optimised  # equal bits


@pytest.fixture(scope="module")
def alone() -> list[jaxmoe.Samples]:
    """Five answers to each prompt, on one device."""
    return draw(MODEL, PROMPTS, n=5)


@pytest.fixture(scope="module")
def mixed() -> jaxmoe.Model:
    """Samples over 2, heads and vocabulary over 4, experts over 8."""
    return on_mesh(MODEL, (2, 4))


# (4, 2) is among the slow ones of options_cases.py.
@pytest.mark.parametrize("shape", MESHES[:3], ids=str)
def test_the_mesh_does_not_change_answers(alone, shape):
    """A promise would be broken: another mesh, other tokens or other experts; or two
    runs on one mesh would differ."""
    check_answers(alone, on_mesh(MODEL, shape))


def test_an_answer_does_not_hang_on_its_neighbours(mixed):
    """On a mesh a sample's bits would change with n, the order, the other prompts, or
    the device that its slot is on."""
    both = draw(mixed, PROMPTS, n=5)
    keys = [jaxmoe.keys.prompt_key(KEY, j) for j in range(2)]
    for j in (0, 1):
        # Three prompts in both calls, so that the compiled shapes are equal.
        turned = [PROMPTS[j], PROMPTS[2], PROMPTS[1 - j]]
        swapped = draw(mixed, turned, samples=[4, 2], key=[keys[j]] * 3)[0]
        for row, i in enumerate((4, 2)):
            count = both[j].lengths[i]
            assert swapped.lengths[row] == count
            for name in ("tokens", "logprobs", "routes"):
                one, other = (getattr(s, name) for s in (both[j], swapped))
                assert np.array_equal(one[i, :count], other[row, :count]), name


def test_a_step_is_the_same_in_every_slot(mixed):
    """An all-reduce would add up each row in an order of its own: the same sample
    seated in another slot would differ in its last bits."""
    results = draw(mixed, [PROMPTS[0]] * 3, key=[KEY] * 3, samples=[6])
    assert all(same_bits(results[0], other) for other in results[1:])


def test_degenerate_policies_are_exact(mixed):
    """Expert-Sample without a tail, or without noise, would not be top-k to the bit."""
    best = draw(mixed, PROMPTS, n=4, policy=TopK())
    for policy in (ExpertSample(k_keep=4), ExpertSample(tau=0.0)):
        out = draw(mixed, PROMPTS, n=4, policy=policy)
        assert all(same_bits(a, b) for a, b in zip(best, out, strict=True))


def test_slots_that_devices_cannot_share_are_refused(mixed):
    """A shape error from within would say nothing of slots."""
    with pytest.raises(ValueError, match=r"multiple of the 2 devices.*pass 4"):
        jaxmoe.sample(mixed, PROMPTS[0], key=KEY, n=2, slots=3)
    assert [check_slots(mixed, n, None) for n in (1, 2, 3)] == [2, 2, 4]


def test_one_compile(mixed):
    """On a mesh another key, temperature, n or prompt would compile anew."""
    prompts = list(PROMPTS)
    warm, cool = TokenSampler(0.9), TokenSampler(0.4)
    draw(mixed, prompts, n=4, sampler=warm, policy=ExpertSample(tau=0.9))
    names: list[str] = []

    def listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
        names.append(event)

    prompts[0] = prompts[0][::-1].copy()
    options = {"key": jax.random.key(8), "policy": ExpertSample(tau=0.3)}
    jax.monitoring.register_event_duration_secs_listener(listen)
    draw(mixed, prompts, n=3, sampler=cool, **options)
    assert not [name for name in names if "backend_compile" in name]


def test_requests_of_their_own_rules(mixed):
    """Rules would lie on another device than the slot, or requests be told apart."""
    biased = Biased(Dropout(0.3), np.where(np.arange(16) == 5, -np.inf, 0.1))
    policies = [TopK(), ExpertSample(tau=3.0), biased, AdaptiveHead(0.5)]
    samplers = [
        TokenSampler(0),
        TokenSampler(0.8, top_k=5),
        TokenSampler(1.0, top_p=0.9),
    ]
    found: list[dict[int, list[int]]] = []
    for model in (MODEL, mixed):
        tokens: dict[int, list[int]] = {}
        with jaxmoe.Engine(model, slots=8, segment=4) as engine:
            tickets = [
                engine.submit(
                    PROMPTS[j % 3],
                    key=jax.random.key(j),
                    samples=[j, j + 50],
                    policy=policies[j % 4],
                    sampler=samplers[j % 3],
                    max_new_tokens=3 + j,
                )
                for j in range(12)
            ]
            for delta in engine.step(2):
                tokens.setdefault(delta.sample, []).extend(delta.tokens.tolist())
            engine.cancel(tickets[11])  # it waits
            while engine.busy:
                for delta in engine.step():
                    tokens.setdefault(delta.sample, []).extend(delta.tokens.tolist())
        found.append(tokens)
    assert len(found[0]) == 22
    assert found[0] == found[1]


def test_the_mesh_does_not_change_likelihoods(mixed):
    """Scores would be those of the devices' own vocabulary, or slots mixed up."""
    after = [PROMPTS[0][:1], PROMPTS[0][:4], np.tile(PROMPTS[0], 9)[:40]]
    pairs = [(prompt, ids) for prompt in PROMPTS for ids in after]
    options = {"policy": ExpertSample(), "key": KEY, "top_logprobs": 3}
    alone = jaxmoe.loglikelihood(MODEL, pairs, **options)
    for one, other in zip(
        alone, jaxmoe.loglikelihood(mixed, pairs, **options), strict=True
    ):
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-3)
        np.testing.assert_array_equal(one.top_ids[0], other.top_ids[0])
