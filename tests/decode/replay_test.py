"""Log-probabilities under given routes, and their gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoe
from jaxmoe.decode.replay import score
from jaxmoe.nn.decoder import stack_params
from tests.tiny import (
    CHOSEN,
    EXPERTS,
    prompt_of,
    tiny_config,
    tiny_params,
)

pytestmark = pytest.mark.thorough

LENGTH, SHORT = 9, 6


@pytest.fixture(scope="module")
def model():
    """Two mixtures, one loop over both."""
    moe = tiny_config().layers[1]
    config = tiny_config(layers=(moe, moe))
    return jaxmoe.Model(config, stack_params(config, tiny_params(config)))


@pytest.fixture(scope="module")
def given():
    """Two sequences, the second one short, and experts of a random choice."""
    random = np.random.default_rng(0)
    tokens = np.stack([prompt_of(LENGTH, seed) for seed in range(2)]).astype(np.int32)
    every = np.tile(np.arange(EXPERTS, dtype=np.int16), (2, LENGTH, 2, 1))
    routes = random.permuted(every, axis=-1)[..., :CHOSEN]
    routes[0, :3] = -1  # the prompt's
    return tokens, routes, np.array([LENGTH, SHORT], np.int32)


@pytest.fixture(scope="module")
def differentiated(model, given):
    """A program: params -> log-probabilities, and the gradient of a weighted sum."""
    tokens, routes, lengths = given
    weights = np.random.default_rng(1).normal(size=(2, LENGTH - 1))

    def total(params, routes):
        found = score(model.config, params, tokens, routes, lengths=lengths)
        return (found * weights).sum(), found

    return jax.jit(jax.value_and_grad(total, has_aux=True))


def test_it_is_what_forward_says_of_the_same_routes(model, given, differentiated):
    """A token would be scored at another place, or by experts of its own choice."""
    tokens, routes, lengths = given
    (_, found), _ = differentiated(model.params, routes)
    for row, length in enumerate(lengths):
        of = tokens[row, :length], routes[row, :length]
        logits = jaxmoe.forward(model, of[0], routes=of[1])
        log_p = np.asarray(jax.nn.log_softmax(logits[:-1], axis=-1))
        expected = log_p[np.arange(length - 1), of[0][1:]]
        np.testing.assert_allclose(found[row, : length - 1], expected, atol=2e-5)
        assert (np.asarray(found[row, length - 1 :]) == 0).all()


def test_gradients_are_those_of_finite_differences(model, given, differentiated):
    """A weight would be trained into another direction, or not at all."""
    # All given: a step might change what is chosen, and that has no gradient.
    routes = np.where(given[1] < 0, given[1][1, :1], given[1])
    _, gradient = differentiated(model.params, routes)
    for name, slope in gradient.items():
        size = float(jnp.sqrt((slope**2).sum()))
        assert size > 0, name
        step = 0.02 / size  # along the slope: as far as changes the sum by 0.04
        values = [
            differentiated(
                model.params | {name: model.params[name] + sign * step * slope / size},
                routes,
            )[0][0]
            for sign in (1, -1)
        ]
        measured = float(values[0] - values[1]) / (2 * step)
        assert measured == pytest.approx(size, rel=0.02), name


def test_experts_that_were_not_taken_have_no_gradient(model, given, differentiated):
    """Gradients would go to experts by the choice, which has none."""
    _, routes, _ = given
    fixed = np.broadcast_to(np.arange(CHOSEN, dtype=np.int16), routes.shape)
    _, gradient = differentiated(model.params, np.ascontiguousarray(fixed))
    for name, slope in gradient.items():
        if "feed_forward" in name:
            assert (np.asarray(slope)[:, CHOSEN:] == 0).all(), name
            assert (np.asarray(slope)[:, :CHOSEN] != 0).any(), name


def test_routes_may_be_wider_than_the_models(model, given, differentiated):
    """Experts of a policy that takes more would be a broadcast out of the middle."""
    tokens, routes, lengths = given
    (_, alike), _ = differentiated(model.params, routes)
    wider = np.pad(routes, ((0, 0),) * 3 + ((0, 2),), constant_values=-1)
    found = score(model.config, model.params, tokens, wider, lengths=lengths)
    np.testing.assert_allclose(found, alike, atol=2e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"routes": np.s_[..., :-1]}, r"routes must be \[2, 9, 2, K\].*K 4 or more"),
        ({"routes": np.s_[:, :-1]}, r"routes must be.*found \(2, 8, 2, 4\)"),
        ({"routes": np.s_[:, :, :1]}, "routes must be"),
        ({"lengths": np.s_[:1]}, r"lengths must be \[2\]"),
        ({"tokens": np.s_[:, :8], "routes": np.s_[:, :8]}, "at most 8.*found 9"),
    ],
)
@pytest.mark.usefixtures("untyped")
def test_what_does_not_fit_is_refused(model, given, change, message):
    """Tokens would be scored by other tokens' experts, or by none."""
    named = dict(zip(("tokens", "routes", "lengths"), given, strict=True))
    named |= {name: named[name][part] for name, part in change.items()}
    with pytest.raises(ValueError, match=message):
        score(model.config, model.params, **named)


def test_weights_without_gradients_are_refused(model, given):
    """The gradient of bits would be an error out of the middle of JAX."""
    params = model.params | {"head.weight": np.zeros((97, 32), np.uint16)}
    with pytest.raises(ValueError, match=r"found \['head.weight'\] as uint16"):
        score(model.config, params, jnp.asarray(given[0]))
