"""Costs: tokens counted, and hours that follow from a step's time."""

from dataclasses import replace

import pytest

from jaxmoe.decode.sampler import TokenSampler
from jaxmoe.evals.draw import Draw
from jaxmoe.evals.replication import costs
from jaxmoe.evals.replication.costs import cost_of, hours_on
from jaxmoe.planning import CHIPS, Load, plan_for, step_time
from jaxmoe.planning.models import config_of
from jaxmoe.planning.scaling import plans_of, shapes_of
from jaxmoe.router.ensemble import RouteEnsemble
from jaxmoe.router.policies import GumbelTopK, TopK


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
    (found,) = hours_on(config, {1: 10**6}, **options).values()
    plan = plan_for(config, (1, 1), Load(16, 4096, 512))
    seconds = step_time(plan, CHIPS["h200"]).total
    assert found.slots == 16 and found.mesh == "1x1"
    assert found.ms == pytest.approx(1e3 * seconds)
    assert found.hours == pytest.approx(10**6 / 16 * seconds / 3600)
    # Fewer side by side where more do not fit, and none where not one does.
    many = hours_on(config, {1: 10**6}, **options | {"slots": 4096})
    (found,) = many.values()
    assert 16 < found.slots < 4096
    assert [*hours_on(config_of("235b"), {1: 1}, **options).values()] == [None]


def test_passes_are_counted():
    """An ensemble of 8 routes would be billed as one pass, at a ninth of its cost."""
    one = Draw(TopK(), TokenSampler(), 4, 100)
    many = Draw(RouteEnsemble(GumbelTopK(), 8), TokenSampler(), 2, 100)
    cost = cost_of([one, many], 10)
    assert cost.by_passes == {1: 4000, 9: 2000}
    assert (cost.tokens, cost.passes) == (6000, 4000 + 9 * 2000)
    # Policies of single answers have a share each.
    mixed = replace(one, policy=(TopK(), TopK(4), TopK(), RouteEnsemble(TopK(), 2)))
    assert cost_of([mixed], 10).by_passes == {1: 3000, 3: 1000}


def test_passes_take_longer():
    """Hours would be those of answers of one pass."""
    config = config_of("30b")
    options = {"slots": 16, "prompt": 512, "answer": 3584, "places": [("h200", 1)]}
    (one,) = hours_on(config, {1: 10**6}, **options).values()
    (five,) = hours_on(config, {5: 10**6}, **options).values()
    (both,) = hours_on(config, {1: 10**6, 5: 10**6}, **options).values()
    assert both.hours == pytest.approx(one.hours + five.hours)
    assert both.ms == pytest.approx((one.ms + five.ms) / 2)
    plan = plan_for(config, (1, 1), Load(16, 4096, 512, passes=5))
    rows = plan_for(config, (1, 1), Load(80, 4096, 512))
    assert plan.caches == plan_for(config, (1, 1), Load(16, 4096, 512)).caches
    assert one.ms < five.ms == pytest.approx(1e3 * step_time(plan, CHIPS["h200"]).total)
    # As many rows as of 80 samples are computed, and fewer caches read.
    assert five.ms < 1e3 * step_time(rows, CHIPS["h200"]).total
    short = [plan_for(config, (1, 1), Load(16, 4096, 1, passes=p)) for p in (1, 5)]
    assert short[0].buffers < short[1].buffers


def test_a_mesh_without_a_plan_for_all_tokens_is_left_out(monkeypatch):
    """The hours of a part would be said to be those of all."""
    config = config_of("30b")
    options = {"slots": 16, "prompt": 512, "answer": 3584, "places": [("v5e", 16)]}
    tokens = {1: 10**6, 5: 10**6}

    def without(*refused):
        def plans(config, devices, load):
            for mesh, plan in plans_of(config, devices, load):
                yield mesh, "none" if (mesh, load.passes) in refused else plan

        monkeypatch.setattr(costs, "plans_of", plans)
        (found,) = hours_on(config, tokens, **options).values()
        return found

    whole = without()
    d, m = map(int, whole.mesh.split("x"))
    assert whole.hours < without(((d, m), 1)).hours == without(((d, m), 5)).hours
    meshes = shapes_of(16)
    assert without(*((mesh, 5) for mesh in meshes)) is None
    assert without(*((mesh, 1) for mesh in meshes)) is None
