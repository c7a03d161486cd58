"""Training the demo model: the loss, the optimiser, one step.

The loss is the cross entropy of the answer's tokens plus the balancing loss of Switch
Transformers (arXiv 2101.03961, equation 4, averaged over layers).
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, PartitionSpec

from jaxmoe.config import ModelConfig
from jaxmoe.demo.chains import Chains, is_new
from jaxmoe.demo.encoding import ANSWER_LENGTH, PROMPT_LENGTH, encode_chains, learnt
from jaxmoe.demo.network import first_params, logits_of
from jaxmoe.demo.recipe import Recipe
from jaxmoe.ops.experts import Implementation
from jaxmoe.random.keys import as_key, prompt_key, sample_keys
from jaxmoe.router.policies import POLICIES, Policy, TopK
from jaxmoe.sharding.layout import BATCH
from jaxmoe.typing import Array, Float, Int, Integer, Params


def optimiser(recipe: Recipe) -> optax.GradientTransformation:
    """AdamW behind a clip of the gradient's norm."""
    rate = optax.schedules.join_schedules(
        [
            optax.linear_schedule(0.0, recipe.learning_rate, recipe.warm_up),
            optax.linear_schedule(
                recipe.learning_rate, 0.0, recipe.steps - recipe.warm_up
            ),
        ],
        [recipe.warm_up],
    )
    return optax.chain(
        optax.clip_by_global_norm(recipe.clip),
        optax.adamw(rate, b1=0.9, b2=0.98, weight_decay=recipe.weight_decay),
    )


class State(NamedTuple):
    """What training carries from step to step."""

    params: Params
    moments: Any


class Losses(NamedTuple):
    """Means over a batch: cross entropy (nats a token), balance, accuracy of tokens."""

    entropy: Array
    balance: Array
    accuracy: Array


def first_state(
    config: ModelConfig, recipe: Recipe, params: Params | None = None
) -> State:
    """Where training begins: from a copy of these weights, None for the seed's.

    A copy, as a step takes its state's memory.
    """
    if params is None:
        params = first_params(config, recipe.seed)
    else:
        params = {name: jnp.array(value) for name, value in params.items()}
    return State(params, optimiser(recipe).init(params))


NEAR = 0.05
"""Half of the tries that failed are within this share of their set's answers, which are
in the order of their targets, from the problem's own: they miss by little."""


class Batches:
    """The batches of a run; batch number t is a function of the seed and t alone.

    A problem is drawn first, then one of its answers, so that problems with many
    answers are not seen more often. Where answers have several tries, all of a batch
    have equally many; those before the answer are answers to other targets of the same
    numbers, half of them near the one asked.
    """

    def __init__(self, chains: Chains, recipe: Recipe):
        self._chains, self._recipe = chains, recipe
        problems = np.concatenate([chains.numbers, chains.target[:, None]], 1)
        self._problems = _runs(problems)
        self._sets = _runs(chains.numbers)
        targets = np.unique(problems, axis=0)[:, :-1]
        if recipe.tries > 1 and _runs(targets)[1].min() < 2:
            raise ValueError(
                "expected at least two targets of each set of numbers, to have tries "
                "that fail, found one; train on more answers, or with one try"
            )

    def batch(self, step: int) -> np.ndarray:
        """Problems, tries and ends as tokens, int32 [B, 10 + 18 T]."""
        random = np.random.default_rng((self._recipe.seed, step))
        starts, counts = self._problems
        problem = random.integers(len(starts), size=self._recipe.batch)
        place = (random.random(problem.size) * counts[problem]).astype(int)
        answer = starts[problem] + place
        failed = random.integers(self._recipe.tries) if self._recipe.tries > 1 else 0
        tries = [self._failed(random, problem) for _ in range(failed)]
        return encode_chains(self._chains, np.stack([*tries, answer], axis=1))

    def _failed(self, random: np.random.Generator, problem: np.ndarray) -> np.ndarray:
        """A row for each problem that has its numbers and another target."""
        starts, counts = (values[problem] for values in self._problems)
        sets, sizes = self._sets
        own = np.searchsorted(sets, starts, side="right") - 1
        first, others = sets[own], sizes[own] - counts
        # Rows of a set are in the order of their targets.
        away = NEAR * random.standard_cauchy(problem.size) * others
        place = (starts - first + away).astype(np.int64) % others
        return first + place + np.where(place < starts - first, 0, counts)


def _runs(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each run of equal rows begins, and how long it is."""
    starts = np.flatnonzero(is_new(rows))
    return starts, np.diff(np.append(starts, len(rows)))


def balance_loss(
    logits: Float[Array, "L N E"], experts: Int[Array, "L N K"]
) -> Float[Array, ""]:
    """E * sum over e of (share of choices) * (mean probability), mean over layers."""
    num_experts = logits.shape[-1]
    probability = jax.nn.softmax(logits, axis=-1).mean(axis=1)
    chosen = jax.nn.one_hot(experts, num_experts, dtype=jnp.float32)
    share = chosen.mean(axis=(1, 2))
    return num_experts * (share * probability).sum(axis=-1).mean()


def loss_of(
    config: ModelConfig,
    params: Params,
    tokens: Int[Array, "B T"],
    balance: float,
    implementation: Implementation,
    *,
    policy: Policy = TopK(),  # noqa: B008  frozen
    keys: Integer[Array, "B 2"] | None = None,
) -> tuple[Array, Losses]:
    """The loss of a batch, and its parts.

    Problems are routed without noise, as prompts are. Of tries that failed only a part
    of the tokens is learnt (`jaxmoe.demo.encoding.learnt`).

    keys: as of `logits_of`.
    """
    logits, ranking, experts = logits_of(
        config,
        params,
        tokens[:, :-1],
        implementation,
        policy=policy,
        keys=keys,
        noise_from=PROMPT_LENGTH,
    )
    logits, wanted = logits[:, PROMPT_LENGTH - 1 :], tokens[:, PROMPT_LENGTH:]
    if (tries := wanted.shape[1] // ANSWER_LENGTH) > 1:
        places = np.flatnonzero(learnt(tries))
        logits, wanted = logits[:, places], wanted[:, places]
    entropy = optax.softmax_cross_entropy_with_integer_labels(logits, wanted).mean()
    right = (logits.argmax(axis=-1) == wanted).mean()
    even = balance_loss(ranking, experts)
    return entropy + balance * even, Losses(entropy, even, right)


Step = Callable[[State, Any, int], tuple[State, Losses]]
"""(state, tokens [B, T], number of the update) -> (state, losses)."""


def noise_keys(seed: int, update: Int[Array, ""], rows: int) -> Integer[Array, "B 2"]:
    """Data of the keys of an update's rows: row i as sample i of prompt `update`."""
    key = prompt_key(as_key(seed), update)
    return jax.random.key_data(sample_keys(key, rows))


def make_step(config: ModelConfig, recipe: Recipe, mesh: Mesh) -> Step:
    """The jitted step, over all devices of a mesh with the one axis `BATCH`.

    Each device takes its part of the batch, and balances its part.
    """
    on_cpu = mesh.devices.flat[0].platform == "cpu"
    implementation = "batched" if on_cpu else "ragged"
    rule, policy = optimiser(recipe), POLICIES[recipe.policy]()
    shared, parted = PartitionSpec(), PartitionSpec(BATCH)
    given = (shared, parted, parted)

    @partial(jax.shard_map, mesh=mesh, in_specs=given, out_specs=shared)
    def gradients(params, tokens, keys):
        def mean_loss(params):
            loss, parts = loss_of(
                config,
                params,
                tokens,
                recipe.balance,
                implementation,
                policy=policy,
                keys=keys,
            )
            return jax.lax.pmean(loss, BATCH), jax.lax.pmean(parts, BATCH)

        return jax.grad(mean_loss, has_aux=True)(params)

    @partial(jax.jit, donate_argnums=0)
    def step(state: State, tokens: Array, update: Array) -> tuple[State, Losses]:
        keys = noise_keys(recipe.seed, update, tokens.shape[0])
        grads, losses = gradients(state.params, tokens, keys)
        updates, moments = rule.update(grads, state.moments, state.params)
        params: Any = optax.apply_updates(state.params, updates)
        return State(params, moments), losses

    return step
