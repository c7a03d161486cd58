"""The host's table of how slots draw."""

import numpy as np
import pytest

from jaxmoe.decode.inputs import read_request
from jaxmoe.decode.request import Request
from jaxmoe.decode.rule_table import RuleTable
from jaxmoe.decode.sampler import TokenSampler
from jaxmoe.router.policies import ExpertSample, TopK
from tests.tiny import tiny_model


@pytest.fixture(scope="module")
def model():
    """One model."""
    return tiny_model()


def request_of(model, policy, *, tops: bool) -> Request:
    """A request for one answer."""
    return read_request(
        model,
        [1, 2],
        key_data=np.zeros(2, np.uint32),
        samples=(0,),
        policy=policy,
        sampler=TokenSampler(0),
        max_new_tokens=4,
        stop=(),
        stop_ids=None,
        ignore_eos=False,
        stop_when=None,
        noisy_prefill=False,
        routes=None,
        width=model.config.experts_per_token,
        tops=tops,
    )


def test_most_likely_tokens_are_looked_up_while_anybody_asks(model):
    """One request would lose them to another's, or all pay for one that is gone."""
    table = RuleTable(model.config, 2)
    asks, does_not = (request_of(model, TopK(), tops=tops) for tops in (True, False))
    assert not table.rules().tops
    table.admit(0, does_not, does_not.policies[0])
    assert not table.rules().tops
    table.admit(1, asks, asks.policies[0])
    assert table.rules().tops
    table.clear(0)
    assert table.rules().tops
    table.clear(1)
    assert not table.rules().tops
    alike = RuleTable(model.config, 2, policy=asks.policies[0])
    assert alike.rules().tops is None


def test_each_policy_has_its_own_numbers(model):
    """Numbers that are kept for one policy would be given to another."""
    table = RuleTable(model.config, 1)
    for tau in np.linspace(0.5, 2, 12):
        policy = request_of(model, ExpertSample(tau=float(tau)), tops=False).policies[0]
        for _ in range(2):
            assert table.numbers_of(policy).tau == pytest.approx(float(tau))
