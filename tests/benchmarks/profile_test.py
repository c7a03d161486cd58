"""The parts of a step: together they read its weights, and none is left out."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.benchmarks import begun, profile, work
from jaxmoe.benchmarks.subject import Subject
from jaxmoe.families.config_json import from_hf
from jaxmoe.families.registry import FAMILIES
from jaxmoe.nn.decoder import bind, products
from tests.tiny import CONTEXT, tiny_params

pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def subject():
    """The smallest preset."""
    return Subject.random("tiny")


@pytest.fixture(scope="module")
def routes(subject):
    """Experts of two rows in three steps: 2, 3 and 4 distinct ones in each layer."""
    layers, k = subject.config.num_layers, subject.config.experts_per_token
    base = np.arange(k, dtype=np.int32)
    shifted = [np.stack([base, base + step]) for step in range(3)]
    steps = np.stack(shifted, axis=1)[:, :, None]
    return jnp.asarray(np.repeat(steps, layers, axis=2))


def rows_of(config) -> jax.Array:
    """Two rows of random numbers."""
    values = np.random.default_rng(0).normal(size=(2, config.d_model))
    return jnp.asarray(values, jnp.float32)


def test_parts_read_the_weights_of_a_step(subject, routes):
    """A part's floor would be of other bytes than the step's."""
    config, value = subject.config, subject.params["embed.weight"].dtype.itemsize
    distinct = begun.distinct_experts(np.asarray(routes), config.moe_layers)
    size = work.sizes(config)
    parts = profile._parts(subject, routes)
    read = sum(part.nbytes for part in parts.values())
    twice = parts["choosing experts, ExpertSample"].nbytes
    assert read - twice == (size.matrices + distinct * size.expert) * value


def test_every_part_depends_on_its_rows(subject, routes):
    """XLA would drop, or take out of the loop, what the next turn does not need."""
    decoder = bind(subject.config, subject.params, profile._context(subject))
    rows = rows_of(subject.config)
    for name, part in profile._parts(subject, routes).items():
        turn = jax.jit(partial(part.run, decoder))
        first = np.asarray(turn(rows, jnp.int32(0)))
        second = np.asarray(turn(2 * rows + 1, jnp.int32(0)))
        assert first.shape == rows.shape and np.isfinite(first).all(), name
        added = (first - rows) != (second - (2 * rows + 1))
        assert added.any(), name


@pytest.mark.parametrize(
    ("name", "number"),
    [("olmoe", 0), ("deepseek_v2", 1), ("qwen3_next", 1), ("qwen3_5_moe", 0)],
)
def test_every_projection_is_timed(name, number):
    """A mixer's part would leave out some of the weights that its floor counts."""
    config = from_hf(dict(FAMILIES[name].test_configs[number]))
    rows = rows_of(config)

    @jax.jit
    @jax.grad
    def moved(params):
        decoder = bind(config, params, CONTEXT)
        return (profile._project(CONTEXT, decoder, rows, jnp.int32(3)) ** 2).sum()

    names = {f"layers.{i}.{name}" for name in products(config) for i in range(4)}
    for weight, gradient in moved(tiny_params(config)).items():
        if ".mixer." in weight and weight in names:
            assert jnp.isfinite(gradient).all() and (gradient != 0).any(), weight
