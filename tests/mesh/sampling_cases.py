"""Sampling on 8 devices; run by eight_devices_test.py in a process of its own."""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoe
from jaxmoe import ExpertSample, TokenSampler, TopK
from jaxmoe.widen import hold_for
from tests.mesh.cases import (
    KEY,
    MESHES,
    SLOTS,
    divisible_model,
    on_mesh,
    same,
    same_bits,
)
from tests.tiny import prompt_of

MODEL = divisible_model()
PROMPTS = [prompt_of(length, length) % 96 for length in (9, 20, 5)]
OPTIONS = {"max_new_tokens": 40, "slots": SLOTS, "return_routes": True}


def draw(model: jaxmoe.Model, prompt: Any, **options: Any) -> Any:
    """`jaxmoe.sample` with the options that all tests share."""
    merged: dict[str, Any] = {"key": KEY} | OPTIONS | options
    return jaxmoe.sample(model, prompt, **merged)


@pytest.fixture(scope="module")
def alone() -> list[jaxmoe.Samples]:
    """Five answers to each prompt, on one device."""
    return draw(MODEL, PROMPTS, n=5)


@pytest.fixture(scope="module")
def mixed() -> jaxmoe.Model:
    """Samples over 2, heads and vocabulary over 4, experts over 8."""
    return on_mesh(MODEL, (2, 4))


CASES = [(shape, "auto") for shape in MESHES]
CASES += [((2, 4), "data"), ((2, 4), "tensor"), ((2, 4), "expert"), ((8, 1), "expert")]


@pytest.mark.parametrize(("shape", "rules"), CASES, ids=str)
def test_the_mesh_does_not_change_answers(alone, shape, rules):
    """A promise would be broken: another mesh, other tokens or other experts; or two
    runs on one mesh would differ."""
    model = on_mesh(MODEL, shape, rules)
    once, again = (draw(model, PROMPTS, n=5) for _ in range(2))
    for one, other, repeated in zip(alone, once, again, strict=True):
        assert same(one, other)
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-4)
        assert same_bits(other, repeated)


def test_an_answer_does_not_hang_on_its_neighbours(mixed):
    """On a mesh a sample's bits would change with n, the order, the other prompts, or
    the device that its slot is on."""
    both = draw(mixed, PROMPTS[:2], n=5)
    keys = [jaxmoe.keys.prompt_key(KEY, j) for j in range(2)]
    for j in (0, 1):
        # Two prompts in both calls, so that the compiled shapes are equal.
        pair = [PROMPTS[j], PROMPTS[1 - j]]
        swapped = draw(mixed, pair, samples=[4, 2], key=[keys[j], keys[j]])[0]
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
    prompt = PROMPTS[0]
    best = draw(mixed, prompt, n=4, policy=TopK())
    for policy in (ExpertSample(k_keep=4), ExpertSample(tau=0.0)):
        out = draw(mixed, prompt, n=4, policy=policy)
        assert same_bits(best, out)


def test_nothing_is_dropped_however_skewed():
    """All rows want four experts that lie on two devices of eight; a capacity, as
    Switch Transformers have one, would drop most of them."""
    routes = np.full((8, 40, 2, 4), -1, np.int16)
    routes[:, :, 1] = np.arange(4)
    one, other = (
        draw(model, PROMPTS[0], n=8, policy=TopK(), routes=routes)
        for model in (MODEL, on_mesh(MODEL, (4, 2)))
    )
    assert same(one, other)
    for answer, length in zip(one.routes, one.lengths, strict=True):
        assert (answer[1:length, 1] == np.arange(4)).all()


@pytest.mark.parametrize(
    "options",
    [
        {"noisy_prefill": True},
        {"sampler": TokenSampler(0.7, top_k=20, top_p=0.8), "return_certainty": True},
        {"sampler": TokenSampler(0.0), "slots": 2},
    ],
    ids=lambda options: "+".join(options),
)
def test_options_work_on_a_mesh(mixed, options):
    """An option would be lost, or refused, where the model is divided."""
    one, other = (draw(m, PROMPTS[1], n=3, **options) for m in (MODEL, mixed))
    assert same(one, other)
    if one.certainties is not None:
        np.testing.assert_allclose(one.certainties, other.certainties, atol=1e-4)


def test_routes_can_be_replayed(mixed):
    """Recorded experts would not reach the devices that hold them."""
    once = draw(mixed, PROMPTS[0], n=4)
    again = draw(mixed, PROMPTS[0], n=4, policy=TopK(), routes=once.routes)
    assert np.array_equal(once.routes, again.routes)
    assert np.array_equal(once.tokens, again.tokens)


def test_forward_gives_whole_logits(mixed):
    """Logits would be those of a part of the vocabulary, or of a part of the model."""
    for prompt in (PROMPTS[0], prompt_of(300, 1) % 96):
        one, routes = jaxmoe.forward(MODEL, prompt, return_routes=True)
        other, taken = jaxmoe.forward(mixed, prompt, return_routes=True)
        assert other.shape == (len(prompt), 96)
        np.testing.assert_allclose(one, other, atol=1e-4 * float(abs(one).max()))
        assert np.array_equal(routes, taken)


@pytest.mark.parametrize("implementation", ["reference", "ragged", "batched"])
def test_every_implementation_of_experts_can_be_divided(mixed, implementation):
    """One of them would take an expert that lies elsewhere for one of its own."""
    one = jaxmoe.forward(MODEL, PROMPTS[0], implementation="reference")
    other = jaxmoe.forward(mixed, PROMPTS[0], implementation=implementation)
    atol = 1e-4 * float(np.abs(np.asarray(one)).max())
    np.testing.assert_allclose(one, other, atol=atol)


def test_generate_works_inside_jit(mixed):
    """The public device function would only work through the host's engine."""
    keys = jaxmoe.keys.sample_keys(KEY, 4)

    def run(model: jaxmoe.Model) -> jax.Array:
        @jax.jit
        def inner(params):
            drawn = jaxmoe.generate(
                model.config,
                params,
                jnp.asarray(PROMPTS[0], jnp.int32),
                len(PROMPTS[0]),
                keys,
                policy=ExpertSample(),
                sampler=TokenSampler(1.0),
                max_new_tokens=12,
                stop_ids=(),
                layout=model.layout,
            )
            return drawn.tokens

        return inner(model.params)

    assert np.array_equal(run(MODEL), run(mixed))


def test_bfloat16_weights_as_bits(mixed):
    """On CPU weights are bits of bfloat16; divided ones would be read as numbers."""
    rounded = {k: v.astype(jnp.bfloat16) for k, v in MODEL.params.items()}
    held = {k: hold_for("cpu", v) for k, v in rounded.items()}
    bits = replace(MODEL, params=held)
    one = draw(bits, PROMPTS[0], n=4)
    assert same(one, draw(on_mesh(bits, (2, 4)), PROMPTS[0], n=4))


def test_slots_that_devices_cannot_share_are_refused(mixed):
    """A shape error from within would say nothing of slots."""
    with pytest.raises(ValueError, match=r"multiple of the 2 devices.*pass 4"):
        jaxmoe.sample(mixed, PROMPTS[0], key=KEY, n=2, slots=3)
    out = draw(mixed, PROMPTS[0], n=1, max_new_tokens=3, slots=None)
    assert out.tokens.shape[0] == 1


def test_one_compile(mixed):
    """On a mesh another key, temperature, n or prompt would compile anew."""
    prompts = [PROMPTS[0], PROMPTS[2]]
    warm, cool = TokenSampler(0.9), TokenSampler(0.4)
    draw(mixed, prompts, n=4, sampler=warm, policy=ExpertSample(tau=0.9))
    names: list[str] = []

    def listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
        names.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)
    prompts[0] = prompts[0][::-1].copy()
    options = {"key": jax.random.key(8), "policy": ExpertSample(tau=0.3)}
    draw(mixed, prompts, n=3, sampler=cool, **options)
    assert not [name for name in names if "backend_compile" in name]
