"""Costs: tokens counted, and hours that follow from a step's time."""

import pytest

from jaxmoe.decode.sampler import TokenSampler
from jaxmoe.evals.draw import Draw
from jaxmoe.evals.replication.costs import cost_of, hours_on
from jaxmoe.planning import CHIPS, Load, plan_for, step_time
from jaxmoe.planning.models import config_of
from jaxmoe.router.policies import TopK


def test_tokens_are_counted():
    """A bill would be of another number of answers."""
    draws = [Draw(TopK(), TokenSampler(), n, 100) for n in (1, 4)]
    cost = cost_of(draws, 10)
    assert (cost.answers, cost.tokens, cost.most) == (50, 5000, 5000)
    cost = cost_of(draws, 10, 30.0)
    assert (cost.tokens, cost.most) == (1500, 5000)
    assert cost_of(draws, 10, 300.0).tokens == 5000


def test_hours_are_steps_of_the_plan():
    """Hours would not be those that `jaxmoe plan` stands for."""
    config = config_of("30b")
    options = {"slots": 16, "prompt": 512, "answer": 3584, "places": [("h200", 1)]}
    (found,) = hours_on(config, 10**6, **options).values()
    plan = plan_for(config, (1, 1), Load(16, 4096, 512))
    seconds = step_time(plan, CHIPS["h200"]).total
    assert found.slots == 16 and found.mesh == "1x1"
    assert found.ms == pytest.approx(1e3 * seconds)
    assert found.hours == pytest.approx(10**6 / 16 * seconds / 3600)
    # Fewer side by side where more do not fit, and none where not one does.
    many = hours_on(config, 10**6, **options | {"slots": 4096})
    (found,) = many.values()
    assert 16 < found.slots < 4096
    assert [*hours_on(config_of("235b"), 1, **options).values()] == [None]
