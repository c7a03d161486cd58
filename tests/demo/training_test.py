"""Training: the pass it differentiates is the model's own, and a killed run goes on."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import jaxmoe
from jaxmoe.demo.chains import all_chains, chains_of
from jaxmoe.demo.encoding import (
    ANSWER_LENGTH,
    PROMPT_LENGTH,
    VOCAB,
    decode,
    encode_chains,
    learnt,
)
from jaxmoe.demo.network import demo_config, first_params, logits_of
from jaxmoe.demo.numbers_game import Problem, error_in, is_right
from jaxmoe.demo.training import (
    Batches,
    Recipe,
    balance_loss,
    first_state,
    loss_of,
    make_step,
    noise_keys,
)
from jaxmoe.demo.training_state import load_state, save_state
from jaxmoe.random.keys import as_key, prompt_key, sample_keys
from jaxmoe.router.policies import ExpertSample
from jaxmoe.sharding.layout import batch_mesh
from tests.chi_square import excess

pytestmark = pytest.mark.thorough

ATTRIBUTES = {
    "hidden_size": 32,
    "head_dim": 8,
    "num_hidden_layers": 2,
    "num_experts": 8,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 16,
    "vocab_size": len(VOCAB),
    "eos_token_id": 0,
    "pad_token_id": 0,
}
CONFIG = demo_config(ATTRIBUTES)
RECIPE = Recipe(steps=40, batch=8, learning_rate=1e-2, warm_up=4)
ABOUT = RECIPE.describe() | {"config": repr(CONFIG)}
SETS = [(1, 2, 3, 4), (2, 5, 8, 12), (13, 13, 13, 13)]

DEVICES = jax.devices()[:1]
EVERYWHERE = NamedSharding(Mesh(np.array(DEVICES), ("batch",)), PartitionSpec())

_logits_of = jax.jit(
    partial(logits_of, CONFIG),
    static_argnames=("implementation", "policy", "noise_from"),
)
_balance = jax.jit(balance_loss)


@pytest.fixture(scope="module")
def chains():
    """All answers to the problems of a few sets."""
    return all_chains(SETS)


@pytest.fixture(scope="module")
def batches(chains):
    """What the tiny model is trained on."""
    return Batches(chains, RECIPE)


@pytest.fixture(scope="module")
def step():
    """One compiled step for all tests. It takes its state's memory."""
    return make_step(CONFIG, RECIPE, batch_mesh(DEVICES))


def _start():
    """A new run's state, placed as every step returns it: one compilation is enough."""
    return jax.device_put(first_state(CONFIG, RECIPE), EVERYWHERE)


# -- the pass ------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("implementation", ["batched", "ragged"])
def test_the_pass_is_that_of_inference(batches, implementation):
    """A model would be trained that nobody runs."""
    params = first_params(CONFIG, 3)
    tokens = batches.batch(0)[:, :-1]
    found, rankings, chosen = _logits_of(params, tokens, implementation=implementation)
    routes = np.asarray(chosen).reshape(2, *tokens.shape, 2)
    assert rankings.shape == (2, tokens.size, 8)
    model = jaxmoe.Model(CONFIG, params, None)
    for index in range(2):
        expected, experts = jaxmoe.forward(model, tokens[index], return_routes=True)
        error = jnp.abs(found[index] - expected).max() / jnp.abs(expected).max()
        assert error < 1e-4
        np.testing.assert_array_equal(routes[:, index].swapaxes(0, 1), experts)


def test_rankings_are_the_logits_that_chose(batches):
    """Balance would be asked of other experts than those that are chosen."""
    params, tokens = first_params(CONFIG, 3), batches.batch(0)[:, :-1]
    _, rankings, chosen = _logits_of(params, tokens, implementation="batched")
    np.testing.assert_array_equal(jax.lax.top_k(rankings, 2)[1], chosen)


def test_first_params_are_a_function_of_the_seed():
    """A run could not be repeated."""
    one, same, other = (first_params(CONFIG, seed) for seed in (1, 1, 2))
    jax.tree.map(np.testing.assert_array_equal, one, same)
    assert (one["embed.weight"] != other["embed.weight"]).any()
    assert {leaf.dtype for leaf in one.values()} == {jnp.dtype(jnp.float32)}


# -- noise ---------------------------------------------------------------------------

NOISY = ExpertSample(k_keep=1, r=8)
UPDATE = 5


def test_noise_is_that_of_drawing_answers(batches):
    """A model would be trained with other routes than its answers are drawn with."""
    params, tokens = first_params(CONFIG, 3), batches.batch(0)[:2, :-1]
    options = {"implementation": "batched", "policy": NOISY}
    options["noise_from"] = PROMPT_LENGTH
    keys = noise_keys(1, UPDATE, 2)
    found, _, chosen = _logits_of(params, tokens, **options, keys=keys)
    _, _, plain = _logits_of(params, tokens, **options)
    routes, without = (
        np.asarray(c).reshape(2, *tokens.shape, 2) for c in (chosen, plain)
    )
    moved = np.sort(routes) != np.sort(without)
    assert not moved[:, :, :PROMPT_LENGTH].any() and moved.any(axis=(2, 3)).all()
    model = jaxmoe.Model(CONFIG, params, None)
    for row, key in enumerate(sample_keys(prompt_key(as_key(1), UPDATE), 2)):
        expected, experts = jaxmoe.forward(
            model,
            tokens[row],
            policy=NOISY,
            key=key,
            noise_from=PROMPT_LENGTH,
            return_routes=True,
        )
        error = jnp.abs(found[row] - expected).max() / jnp.abs(expected).max()
        assert error < 1e-4
        np.testing.assert_array_equal(routes[:, row].swapaxes(0, 1), experts)


def test_noise_is_a_function_of_seed_update_and_row():
    """A run that went on after a kill would see other routes, or rows share theirs."""
    data = [np.asarray(noise_keys(s, u, 4)) for s in (0, 1) for u in (0, 1)]
    every = np.concatenate(data)
    assert len(np.unique(every, axis=0)) == len(every)
    np.testing.assert_array_equal(noise_keys(1, 1, 2), data[-1][:2])


def test_noisy_updates_repeat(batches):
    """Noise would be of the moment, or the update's number be ignored."""
    recipe = replace(RECIPE, policy="expert-sample")
    config = demo_config(ATTRIBUTES | {"num_experts_per_tok": 4})
    noisy_step = make_step(config, recipe, batch_mesh(DEVICES))

    def entropy(update):
        state = jax.device_put(first_state(config, recipe), EVERYWHERE)
        return float(noisy_step(state, batches.batch(0), update)[1].entropy)

    one, other = entropy(0), entropy(1)
    assert entropy(0) == one != other


# -- the loss ------------------------------------------------------------------------


def test_losses_are_those_of_the_answers_tokens(batches, step):
    """The model would learn to write problems, or be one token late."""
    tokens, state = batches.batch(0), _start()
    logits, rankings, chosen = _logits_of(
        state.params, tokens[:, :-1], implementation="batched"
    )
    _, losses = step(state, tokens, 0)
    wanted = tokens[:, PROMPT_LENGTH:]
    assert wanted.shape == (RECIPE.batch, ANSWER_LENGTH)
    # The logits at a token are of the next one.
    made = np.asarray(logits, np.float64)[:, PROMPT_LENGTH - 1 :]
    chances = np.exp(made) / np.exp(made).sum(axis=-1, keepdims=True)
    of_wanted = np.take_along_axis(chances, wanted[..., None], axis=-1)
    np.testing.assert_allclose(losses.entropy, -np.log(of_wanted).mean(), rtol=1e-5)
    right = (made.argmax(axis=-1) == wanted).mean()
    np.testing.assert_allclose(losses.accuracy, right, rtol=1e-6)
    np.testing.assert_allclose(losses.balance, _balance(rankings, chosen), rtol=1e-5)


def test_a_step_takes_a_copy_of_the_given_weights(batches, step):
    """A second run from the same model would end in a deleted array."""
    params = jax.device_put(first_params(CONFIG, 3), EVERYWHERE)
    before = jax.tree.map(np.array, params)
    state = jax.device_put(first_state(CONFIG, RECIPE, params), EVERYWHERE)
    jax.tree.map(np.testing.assert_array_equal, before, state.params)
    step(state, batches.batch(0), 0)
    jax.tree.map(np.testing.assert_array_equal, before, params)


def test_the_loss_falls(batches, step):
    """Gradients that do not reach the weights, or point uphill, would go unseen."""
    tokens, state = batches.batch(0), _start()
    before = jax.tree.map(np.array, state.params)
    entropies = []
    for _ in range(30):
        state, losses = step(state, tokens, 0)
        entropies.append(float(losses.entropy))
    assert entropies[-1] < entropies[0] / 3, entropies[::5]
    for name, start in before.items():
        assert (np.asarray(state.params[name]) != start).any(), f"{name} stood still"


def test_even_routing_has_balance_loss_1():
    """Its weight would mean something else for another number of experts."""
    for experts, width in ((8, 2), (16, 4)):
        logits = np.zeros((3, 16, experts), np.float32)
        chosen = np.arange(3 * 16 * width).reshape(3, 16, width) % experts
        found = _balance(jnp.asarray(logits), jnp.asarray(chosen))
        np.testing.assert_allclose(found, 1.0, rtol=1e-6)


def test_skewed_routing_has_a_larger_balance_loss():
    """Worked by hand: E * sum of (share of choices) * (mean probability)."""
    likely = np.log([[[0.5, 0.3, 0.1, 0.1], [0.3, 0.3, 0.2, 0.2]], [[1.0] * 4] * 2])
    chosen = np.array([[[0, 1], [0, 1]], [[0, 1], [2, 3]]])
    # Shares 1/2, 1/2, 0, 0; mean probabilities 0.4, 0.3, 0.15, 0.15.
    skewed = 4 * (0.5 * 0.4 + 0.5 * 0.3)
    for layers, expected in ((slice(0, 1), skewed), (slice(0, 2), (skewed + 1) / 2)):
        logits = jnp.asarray(likely[layers], jnp.float32)
        found = _balance(logits, jnp.asarray(chosen[layers], jnp.int32))
        np.testing.assert_allclose(found, expected, rtol=1e-6)


# -- batches -------------------------------------------------------------------------


def test_a_batch_is_a_function_of_seed_and_number(chains, batches):
    """A run that went on after a kill would see other problems."""
    again = Batches(chains, RECIPE)
    for number in (5, 0, 5, 3):
        np.testing.assert_array_equal(again.batch(number), batches.batch(number))
    assert (batches.batch(0) != batches.batch(1)).any()
    other = Batches(chains, Recipe(batch=RECIPE.batch, seed=1))
    assert (other.batch(0) != batches.batch(0)).any()


def test_every_problem_is_as_likely_as_any_other(chains):
    """Problems with many answers, the easy ones, would crowd out the hard ones."""
    large = Batches(chains, Recipe(batch=20_000))
    tokens = np.concatenate([large.batch(number) for number in range(4)])
    problems, counts = np.unique(tokens[:, :PROMPT_LENGTH], axis=0, return_counts=True)
    rows = np.concatenate([chains.numbers, chains.target[:, None]], axis=1)
    _, answers = np.unique(rows, axis=0, return_counts=True)
    assert len(problems) == len(answers) and answers.max() > 20 * answers.min()
    assert excess(counts, np.full(len(counts), 1 / len(counts))) < 1
    # And an answer as any other answer of its problem.
    problem = np.repeat(np.arange(len(answers)), answers)
    _, counts = np.unique(tokens, axis=0, return_counts=True)
    assert len(counts) == len(problem), "an answer was never drawn"
    assert excess(counts, 1 / (len(answers) * answers[problem])) < 1


def test_failed_tries_have_other_targets_of_the_same_numbers(chains):
    """A model would be told to go on after a right try, or with other numbers."""
    tried = Batches(chains, replace(RECIPE, batch=500, tries=4))
    lengths = set()
    for number in range(12):
        tokens = tried.batch(number)
        np.testing.assert_array_equal(tokens, tried.batch(number))
        lengths.add(tokens.shape[1])
        for row in tokens[:50]:
            prompt, answer = decode(row[:PROMPT_LENGTH]), decode(row[PROMPT_LENGTH:])
            *failed, last = answer.split(":")
            problem = Problem.parse(prompt)
            assert is_right(problem, last)
            for one in failed:
                reached = one.rpartition("=")[2]
                assert error_in(problem, one) == f"{reached} is not {problem.target}"
    assert lengths == {PROMPT_LENGTH + ANSWER_LENGTH * t for t in (1, 2, 3, 4)}


def test_failed_tries_are_mostly_near_the_target():
    """Tries that miss by little, as a model's own do, would not be seen."""
    chains = all_chains([(2, 5, 8, 12)])
    large = Batches(chains, replace(RECIPE, batch=2_000, tries=2))
    tokens = next(t for t in map(large.batch, range(9)) if t.shape[1] > 40)
    failed, right = ([decode([x]) for x in tokens[:, at]] for at in (26, 44))
    away = np.abs(np.array(failed, int) - np.array(right, int))
    assert away.min() == 1 and np.median(away) <= 10 and np.quantile(away, 0.9) > 20


def test_tries_need_another_target():
    """A try that fails would be of the next set's numbers."""
    chains = chains_of([(Problem((1, 2, 3, 4), 10), "2+1=3,3+3=6,6+4=10")])
    assert Batches(chains, RECIPE).batch(0).shape[1] == PROMPT_LENGTH + ANSWER_LENGTH
    with pytest.raises(ValueError, match="expected at least two targets of each set"):
        Batches(chains, replace(RECIPE, tries=2))


def test_only_what_is_learnt_counts(chains):
    """A model would learn to write tries that fail."""
    params = first_params(CONFIG, 3)
    tokens = encode_chains(chains, np.array([[40, 9], [7, 0]]))
    loss = lambda some: loss_of(CONFIG, params, some, 0.0, "batched")[1]  # noqa: E731
    logits, _, _ = _logits_of(params, tokens[:, :-1], implementation="batched")
    logp = jax.nn.log_softmax(logits[:, PROMPT_LENGTH - 1 :])
    picked = jnp.take_along_axis(logp, tokens[:, PROMPT_LENGTH:, None], axis=-1)[..., 0]
    wanted = -picked[:, learnt(2)].mean()
    np.testing.assert_allclose(loss(tokens).entropy, wanted, rtol=1e-5)
    assert abs(wanted + picked.mean()) > 1e-3


# -- stopping and going on -----------------------------------------------------------


def test_a_loaded_run_goes_on_bit_for_bit(tmp_path, batches, step):
    """A killed run would end as another model than one left alone."""
    state = _start()
    for number in range(3):
        state, _ = step(state, batches.batch(number), number)
    save_state(tmp_path, state, 3, ABOUT)
    for number in range(3, 6):
        state, losses = step(state, batches.batch(number), number)

    loaded = load_state(tmp_path, first_state(CONFIG, RECIPE), ABOUT)
    assert loaded is not None and loaded[1] == 3
    again = jax.device_put(loaded[0], EVERYWHERE)
    for number in range(3, 6):
        again, losses_again = step(again, batches.batch(number), number)
    jax.tree.map(np.testing.assert_array_equal, (state, losses), (again, losses_again))


def _saved(tmp_path):
    state = first_state(CONFIG, RECIPE)
    save_state(tmp_path, state, 7, ABOUT)
    return state


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"learning_rate": 0.5}, "learning_rate"),
        ({"seed": 1}, "seed"),
        ({"config": "a larger one"}, "config"),
        ({"tokens": 28}, "tokens"),
        ({"tokens": None}, "tokens"),
    ],
)
def test_a_state_of_another_run_is_refused(tmp_path, change, name):
    """Half of the run would follow one recipe and half another, and not say so."""
    state = _saved(tmp_path)
    with pytest.raises(ValueError, match=f"other {name};.*remove it"):
        load_state(tmp_path, state, ABOUT | change)


def test_a_directory_without_a_state_has_none(tmp_path):
    """A new run would not begin."""
    assert load_state(tmp_path, first_state(CONFIG, RECIPE), ABOUT) is None


def test_a_save_that_was_cut_short_leaves_the_one_before(tmp_path, monkeypatch):
    """A kill while saving would cost the whole run."""
    state = _saved(tmp_path)

    def cut_short(file, **_):
        file.write(b"PK")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", cut_short)
        with pytest.raises(KeyboardInterrupt):
            save_state(tmp_path, state, 8, ABOUT)
    loaded = load_state(tmp_path, state, ABOUT)
    assert loaded is not None and loaded[1] == 7
    save_state(tmp_path, state, 9, ABOUT)
    loaded = load_state(tmp_path, state, ABOUT)
    assert loaded is not None and loaded[1] == 9
