"""Rules and options on 8 devices; run by eight_devices_test.py in its own process."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoe
from jaxmoe import ExpertSample, GumbelTopK, RouteEnsemble, TokenSampler, TopK
from jaxmoe.ops.bf16_bits import hold_for
from tests.mesh.cases import KEY, MODEL, PROMPTS, check_answers, draw, on_mesh, same
from tests.tiny import prompt_of


@pytest.fixture(scope="module")
def alone() -> list[jaxmoe.Samples]:
    """Five answers to each prompt, on one device."""
    return draw(MODEL, PROMPTS, n=5)


@pytest.fixture(scope="module")
def mixed() -> jaxmoe.Model:
    """Samples over 2, heads and vocabulary over 4, experts over 8."""
    return on_mesh(MODEL, (2, 4))


@pytest.mark.parametrize(
    ("shape", "rules"),
    [
        ((4, 2), "auto"),
        ((2, 4), "data"),
        ((2, 4), "tensor"),
        ((2, 4), "expert"),
        ((8, 1), "expert"),
    ],
)
def test_rules_do_not_change_answers(alone, shape, rules):
    """Another way to divide the model would give other tokens or other experts."""
    check_answers(alone, on_mesh(MODEL, shape, rules))


@pytest.mark.parametrize("shape", [(2, 4), (1, 8)], ids=str)
def test_several_routes_do_not_depend_on_the_mesh(shape):
    """A token would be drawn from the routes of other slots, or of one of its own."""
    policy = RouteEnsemble(GumbelTopK(2.0), 3)
    one, other = (
        draw(model, PROMPTS[0], n=5, policy=policy, top_logprobs=2)
        for model in (MODEL, on_mesh(MODEL, shape))
    )
    assert same(one, other)
    np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-4)


def test_nothing_is_dropped_however_skewed():
    """All rows want four experts that lie on two devices of eight; a capacity, as
    Switch Transformers have one, would drop most of them."""
    routes = np.full((8, 12, 2, 4), -1, np.int16)
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
        {
            "sampler": TokenSampler(
                0.8,
                frequency_penalty=1.0,
                repetition_penalty=1.3,
                logit_bias={40: 2.0, 95: 3.0},
                bad_words=[[40, 95], [7]],
            ),
            "ignore_eos": True,
        },
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


@pytest.mark.parametrize("implementation", ["ragged", "batched"])
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
                execution=model.execution,
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
