"""A whole training run: batches, steps, measurements, and states on disk."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from jaxmoe.config import ModelConfig
from jaxmoe.decode.sampler import TokenSampler
from jaxmoe.demo.chains import training_chains
from jaxmoe.demo.encoding import decode, encode
from jaxmoe.demo.game_runs import room_for
from jaxmoe.demo.numbers_game import Problem, is_right
from jaxmoe.demo.training import Batches, Losses, Recipe, first_state, make_step
from jaxmoe.demo.training_start import Start
from jaxmoe.demo.training_state import load_state, save_state
from jaxmoe.model import Model
from jaxmoe.router.policies import TopK
from jaxmoe.sampling import sample
from jaxmoe.sharding.layout import batch_mesh
from jaxmoe.typing import Params


@dataclass(frozen=True)
class Record:
    """What is known after `step` updates.

    entropy (nats a token), balance, accuracy (of tokens): means over the updates since
    the last record. seconds: since the run began or went on. pass_rate: the share of
    validation problems that the model solves greedily; None where not measured.
    """

    step: int
    entropy: float
    balance: float
    accuracy: float
    seconds: float
    pass_rate: float | None = None


@dataclass(frozen=True)
class Rhythm:
    """After how many updates a run reports, measures its pass rate, and is saved."""

    report: int = 50
    measure: int = 1000
    save: int = 100


def train(
    config: ModelConfig,
    recipe: Recipe,
    directory: Path,
    validation: Sequence[Problem],
    *,
    start: Start = Start(),  # noqa: B008  frozen
    rhythm: Rhythm = Rhythm(),  # noqa: B008  frozen
) -> Iterator[Record | dict[str, np.ndarray]]:
    """Trains, or goes on with, the run in `directory`; yields records.

    The last thing yielded are the finished weights, float32 on the host.

    start: from which weights, and on which answers.

    Raises:
      ValueError: the directory holds a run with another recipe, model or number of
        devices, or the loss is no number any more.
    """
    devices = _devices_for(recipe.batch)
    # Each device balances its own part of a batch, so that their number counts.
    about = {"config": repr(config), "devices": len(devices)}
    about |= recipe.describe() | start.describe()
    state = first_state(config, recipe, start.params)
    state, done = load_state(directory, state, about) or (state, 0)
    mesh = batch_mesh(devices)
    state = jax.device_put(state, NamedSharding(mesh, PartitionSpec()))
    step = make_step(config, recipe, mesh)
    batches = Batches(start.chains or training_chains(), recipe)
    began = time.perf_counter()
    losses: list[Losses] = []
    for index in range(done, recipe.steps):
        state, parts = step(state, batches.batch(index), index)
        losses.append(parts)
        now = index + 1
        last = now == recipe.steps
        if now % rhythm.report == 0 or last:
            rate = None
            if now % rhythm.measure == 0 or last:
                rate = pass_rate(config, state.params, validation, recipe.tries)
            yield _record(now, losses, time.perf_counter() - began, rate)
            losses = []
        # After the report: a kill between the two repeats a report and loses none.
        if now % rhythm.save == 0 or last:
            save_state(directory, state, now, about)
    yield {name: np.asarray(value) for name, value in state.params.items()}


def _devices_for(batch: int) -> list[Any]:
    """As many of the devices as share a batch evenly."""
    devices = jax.devices()
    return devices[: max(n for n in range(1, len(devices) + 1) if batch % n == 0)]


def _record(
    step: int, losses: list[Losses], seconds: float, rate: float | None
) -> Record:
    entropy, balance, accuracy = (
        float(np.mean([np.asarray(value) for value in part]))
        for part in zip(*losses, strict=True)
    )
    if not np.isfinite(entropy):
        raise ValueError(
            f"the loss is {entropy} after {step} updates, expected a number; begin "
            "anew in another directory with a lower learning rate"
        )
    return Record(step, entropy, balance, accuracy, seconds, rate)


def pass_rate(
    config: ModelConfig, params: Params, problems: Sequence[Problem], tries: int
) -> float:
    """The share of problems whose greedy answer is right, with top-k routing.

    Weights are rounded to bfloat16, as they will be written.

    tries: the most that an answer may have.
    """
    device = jax.devices()[0]
    rounded = {n: v.astype(jnp.bfloat16).astype(v.dtype) for n, v in params.items()}
    here = {name: jax.device_put(value, device) for name, value in rounded.items()}
    outs: Any = sample(
        Model(config, here),
        [encode(problem.prompt) for problem in problems],
        key=jax.random.key(0, impl="threefry2x32"),
        policy=TopK(),
        sampler=TokenSampler(0.0),
        max_new_tokens=room_for(tries),
    )
    right = [
        is_right(problem, decode(out.tokens[0, : out.lengths[0]]))
        for problem, out in zip(problems, outs, strict=True)
    ]
    return float(np.mean(right))
