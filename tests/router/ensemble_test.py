"""Several routes a token: what is refused; `tests/decode/ensemble_test.py` draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoe
from jaxmoe.router.ensemble import RouteEnsemble
from jaxmoe.router.modifiers import Biased, Gated
from jaxmoe.router.per_slot import PerSlot
from jaxmoe.router.policies import ExpertSample, GumbelTopK, TopK, for_model
from tests.tiny import CHOSEN, EXPERTS, tiny_config, tiny_model

FIT = {"k": CHOSEN, "num_experts": EXPERTS, "num_layers": 2}


def test_places_are_those_of_all_routes():
    """A record would hold some of the routes, or a group's limit refuse them all."""
    policy = RouteEnsemble(ExpertSample(), 9)
    found = for_model(policy, tiny_config(), several=True)
    assert found.width == 9 * CHOSEN > EXPERTS
    assert found.of_pass.width == CHOSEN
    assert found.noisy and not RouteEnsemble(TopK(), 2).noisy
    again = found.resolve(**FIT)
    assert jax.tree.structure(again) == jax.tree.structure(found)
    taus = found.at_layer(1).of_pass.tau
    np.testing.assert_array_equal(taus, 1)


@pytest.mark.parametrize("routes", [0, 65, 1.5])
def test_routes_that_do_not_fit_are_refused(routes, untyped):
    """Rows of a step would be none, or fill the memory."""
    with pytest.raises(ValueError, match=rf"1..64, found {routes}"):
        RouteEnsemble(TopK(), routes).resolve(**FIT)


def test_where_one_pass_is_asked_for_it_is_refused():
    """One route would stand for all of them."""
    several, model = RouteEnsemble(GumbelTopK(), 2), tiny_model()
    match = "takes policies of one pass a token, found RouteEnsemble of GumbelTopK"
    with pytest.raises(ValueError, match=match):
        jaxmoe.forward(model, [9], policy=several, key=0)
    with pytest.raises(ValueError, match=match):
        jaxmoe.loglikelihood(model, [([9], [10])], policy=several, key=0)
    with pytest.raises(ValueError, match=f"noisy_prefill {match}"):
        jaxmoe.sample(model, [9], key=0, policy=several, noisy_prefill=True)
    for outer in (
        Biased(several, np.zeros(EXPERTS)),
        Gated(several, threshold=1.0),
        RouteEnsemble(several, 2),
    ):
        with pytest.raises(ValueError, match=f"{type(outer).__name__} {match}"):
            outer.resolve(**FIT)
    with pytest.raises(NotImplementedError):
        several.choose(jnp.zeros(EXPERTS), None)


def test_no_slot_holds_it():
    """A list, or a server's batch, has one pass for all its answers."""
    slots = PerSlot.empty(2, **FIT)
    with pytest.raises(ValueError, match=r"RouteEnsemble .*Engine\(model, policy="):
        slots.numbers_of(RouteEnsemble(TopK(), 2).resolve(**FIT), EXPERTS)
    with pytest.raises(ValueError, match="RouteEnsemble has no numbers"):
        jaxmoe.sample(tiny_model(), [9], key=0, policy=[RouteEnsemble(TopK(), 2)])
