"""A whole run: every update has its number, before a kill and after it."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from jaxmoe.demo import training_run
from jaxmoe.demo.chains import Chains, all_chains
from jaxmoe.demo.network import demo_config, first_params
from jaxmoe.demo.training import Batches, Recipe, State, first_state, make_step
from jaxmoe.demo.training_run import Record, Rhythm
from jaxmoe.demo.training_start import Start
from jaxmoe.sharding.layout import batch_mesh
from jaxmoe.typing import Params
from tests.demo.training_test import ATTRIBUTES, DEVICES, EVERYWHERE, SETS

pytestmark = pytest.mark.thorough

CONFIG = demo_config(ATTRIBUTES | {"num_experts_per_tok": 4})
RECIPE = Recipe(
    steps=4,
    batch=8,
    learning_rate=1e-2,
    warm_up=1,
    balance=0.0,
    policy="expert-sample",
)
RHYTHM = Rhythm(report=1, measure=100, save=2)


@pytest.fixture(scope="module")
def chains() -> Chains:
    """All answers to the problems of a few sets."""
    return all_chains(SETS)


@pytest.fixture(scope="module")
def step():
    """One compiled step for all runs."""
    return make_step(CONFIG, RECIPE, batch_mesh(DEVICES))


@pytest.fixture
def train(monkeypatch, step, chains):
    """`training_run.train` on one device, which asks no validation problems."""

    def made(config, recipe, mesh):
        assert (config, recipe, mesh) == (CONFIG, RECIPE, batch_mesh(DEVICES))
        return step

    monkeypatch.setattr(training_run, "_devices_for", lambda _: DEVICES)
    monkeypatch.setattr(training_run, "make_step", made)
    monkeypatch.setattr(training_run, "pass_rate", lambda *_: 0.5)

    def run(directory: Path, params: Params | None = None) -> Iterator:
        directory.mkdir(exist_ok=True)
        start = Start(params, chains=chains)
        return training_run.train(
            CONFIG, RECIPE, directory, [], start=start, rhythm=RHYTHM
        )

    return run


def losses_in(items: list) -> list[tuple[int, float]]:
    """The updates of a run's records, and their losses."""
    return [(item.step, item.entropy) for item in items if isinstance(item, Record)]


def first() -> State:
    """A new run's state, placed as every step returns it."""
    return jax.device_put(first_state(CONFIG, RECIPE), EVERYWHERE)


def test_a_killed_run_ends_as_one_left_alone(tmp_path, train, step, chains):
    """Noise and batches would be those of other updates, or those of the first again.

    Both runs are held against updates made one by one.
    """
    killed = list(islice(train(tmp_path / "killed"), 3))
    # The third update was reported and not saved.
    rest = list(train(tmp_path / "killed"))
    whole = list(train(tmp_path / "whole"))
    state, batches, losses = first(), Batches(chains, RECIPE), []
    for index in range(RECIPE.steps):
        state, parts = step(state, batches.batch(index), index)
        losses.append((index + 1, float(parts.entropy)))
    assert losses_in(whole) == losses
    assert (losses_in(killed), losses_in(rest)) == (losses[:3], losses[2:])
    for params in (whole[-1], rest[-1]):
        jax.tree.map(np.testing.assert_array_equal, params, dict(state.params))


@pytest.mark.parametrize("tries", [1, 3])
def test_validation_answers_have_room(tmp_path, monkeypatch, step, chains, tries):
    """Answers of several tries would be cut off, and the log say that few are right."""
    asked = []

    def rate(config, params, problems, tries):
        asked.append(tries)
        return 0.5

    monkeypatch.setattr(training_run, "_devices_for", lambda _: DEVICES)
    monkeypatch.setattr(training_run, "make_step", lambda *_: step)
    monkeypatch.setattr(training_run, "pass_rate", rate)
    recipe = replace(RECIPE, steps=1, tries=tries)
    start = Start(chains=chains)
    list(training_run.train(CONFIG, recipe, tmp_path, [], start=start, rhythm=RHYTHM))
    assert asked == [tries]


def test_noisy_routing_teaches_the_router(step, chains):
    """Routers would stay as they were: noise and the choice itself have no gradient.

    There is no balancing loss: only what the experts weigh leads to the routers.
    """
    state, _ = step(first(), Batches(chains, RECIPE).batch(0), 0)
    means = optax.tree_utils.tree_get(state.moments, "mu")
    routers = [value for name, value in means.items() if name.endswith("router.weight")]
    assert len(routers) == CONFIG.num_layers
    for gradient in map(np.asarray, routers):
        assert np.isfinite(gradient).all() and gradient.any()


def test_two_runs_from_the_same_weights(tmp_path, train):
    """The second would end in an error of a deleted array."""
    params = jax.device_put(first_params(CONFIG, 3), EVERYWHERE)
    one, other = (list(train(tmp_path / name, params)) for name in ("one", "other"))
    assert losses_in(one) == losses_in(other)
