"""Utilities of other routes against `forward` with these routes, one by one."""

from dataclasses import replace

import jax
import numpy as np
import pytest

import jaxmoe
from jaxmoe import ExpertSample
from jaxmoe.analysis.counterfactual import (
    EDGES,
    _importance,
    _sets,
    _summed,
    ablate,
    alternatives,
    answer_positions,
    counterfactual,
)
from jaxmoe.analysis.counterfactual_pass import Found
from jaxmoe.analysis.router_pass import Passage
from jaxmoe.config import LayerConfig
from jaxmoe.families.config_json import from_hf
from jaxmoe.families.registry import FAMILIES
from jaxmoe.nn.decoder import stack_params
from tests.tiny import (
    CHOSEN,
    EXPERTS,
    prompt_of,
    tiny_config,
    tiny_model,
    tiny_params,
)

pytestmark = pytest.mark.thorough

PROMPT, LENGTH, DRAWS = 4, 12, 3
POSITIONS = [3, 5, 7, 10]
SETS = [1, 2, "all"]


@pytest.fixture(scope="module")
def model():
    """A dense layer, then two mixtures, one loop over both."""
    dense, moe = tiny_config().layers
    config = tiny_config(layers=(dense, moe, moe))
    return jaxmoe.Model(config, stack_params(config, tiny_params(config)))


@pytest.fixture(scope="module")
def answer() -> Passage:
    """A prompt and an answer, of which one more token is known."""
    tokens = prompt_of(LENGTH + 1).astype(np.int32)
    return Passage(tokens[:-1], PROMPT, following=int(tokens[-1]))


POLICY, FREE = ExpertSample(k_keep=1), np.full((LENGTH, 3, CHOSEN), -1, np.int16)


def _forward(model, answer, routes=FREE, *, key=0, noise_from=LENGTH):
    """Logits and routes; one program for all."""
    return jaxmoe.forward(
        model,
        answer.tokens,
        policy=POLICY,
        key=key,
        noise_from=noise_from,
        routes=routes,
        return_routes=True,
    )


def _try(model, answer, policy=POLICY, **options):
    options = {"reach": 1, "layers": SETS} | options
    return alternatives(
        model, answer, POSITIONS, policy=policy, key=3, draws=DRAWS, **options
    )


def _logprob(model, answer, routes, position, reach) -> float:
    """Of `reach` tokens from the one after `position` on, by `forward`."""
    tokens = np.append(answer.tokens, answer.following)
    logits = np.asarray(_forward(model, answer, routes)[0], np.float64)
    places = range(position, min(position + reach, LENGTH))
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return sum(log_p[p, tokens[p + 1]] for p in places)


def _check_replays(model, answer, found, *, reach, base):
    """Each alternative's routes, put into `base`, give its log-probability."""
    for w, position in enumerate(POSITIONS):
        own = _logprob(model, answer, base, position, reach)
        assert found.logprob[w] == pytest.approx(own, abs=2e-5)
        for g, m in ((0, 0), (1, DRAWS - 1), (2, 1)):
            routes = base.copy()
            routes[position] = found.others[w, g, m]
            other = _logprob(model, answer, routes, position, reach)
            assert found.utility[w, g, m] == pytest.approx(other - own, abs=4e-5)


def test_utilities_are_those_of_replayed_routes(model, answer):
    """A state of another position, slot or layer would be read, or another token."""
    _, own = _forward(model, answer)
    found = _try(model, answer)
    _check_replays(model, answer, found, reach=1, base=FREE)
    # Set 0 changes layer 1 alone, and later layers choose by what they then see.
    changed = (
        np.sort(found.others, axis=-1) != np.sort(own[POSITIONS], -1)[:, None, None]
    )
    assert not changed[:, 1, :, 1].any()  # of set 1, the layer before
    assert changed[:, 0, :, 1].any() and changed[:, 1, :, 2].any()
    # The same program, reach and what is held being its arguments.
    held = _try(model, answer, reach=3, hold=True)
    _check_replays(model, answer, held, reach=3, base=own)
    rest = _try(model, answer, reach=None)
    _check_replays(model, answer, rest, reach=LENGTH, base=FREE)
    assert (held.routes == own[POSITIONS]).all()
    # What is held does not follow a change; else the layer behind it does, somewhere.
    behind = np.sort(own[POSITIONS, 2], axis=-1)[:, None]
    assert (np.sort(held.others[:, 0, :, 2], axis=-1) == behind).all()
    assert (np.sort(found.others[:, 0, :, 2], axis=-1) != behind).any()


def test_routes_of_no_noise_have_no_utility(model, answer):
    """Rounding of another program or slot would pass for an effect of routes."""
    found = _try(model, answer, ExpertSample(k_keep=1, tau=0.0), reach=3)
    assert (found.utility == 0).all()
    assert (_try(model, answer, reach=3).utility != 0).any()


def test_alternatives_are_drawn_as_samples_are(model, answer):
    """What is found could not be drawn again from (key, sample, position, layer)."""
    found = _try(model, answer)
    for m in range(DRAWS):
        one = jaxmoe.keys.sample_key(jax.random.key(3), m)
        for w, position in enumerate(POSITIONS):
            _, drawn = _forward(model, answer, key=one, noise_from=position)
            np.testing.assert_array_equal(found.others[w, 2, m], drawn[position])


def test_recorded_routes_are_the_own(model, answer):
    """An answer that was drawn with noise would be compared with one that was not."""
    routes = np.full((LENGTH, 3, CHOSEN), -1, np.int16)
    routes[PROMPT - 1 :, 1:] = [[15, 3, 7, 1], [0, 2, 9, 4]]
    recorded = replace(answer, routes=routes)
    found = _try(model, recorded, reach=3)
    _check_replays(model, recorded, found, reach=3, base=routes)
    np.testing.assert_array_equal(found.routes, routes[POSITIONS])


@pytest.mark.slow
@pytest.mark.parametrize("family", ["qwen3_next", "deepseek_v2", "gpt_oss"])
def test_every_kind_of_mixer_is_replayed(family):
    """What is before a position would be read of a later one, or of none."""
    config = from_hf(dict(FAMILIES[family].test_configs[-1]))
    model = jaxmoe.Model(config, stack_params(config, tiny_params(config)))
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, 10)
    one, places = Passage(tokens.astype(np.int32), 1), [0, 6]
    asked = {"key": 1, "draws": 2, "layers": ["all"], "reach": 3}
    found = alternatives(model, one, places, policy=ExpertSample(k_keep=1), **asked)
    free = np.full((10, config.num_layers, config.experts_per_token), -1, np.int16)

    def logprob(routes, position):
        logits = jaxmoe.forward(model, one.tokens, routes=routes)
        log_p = np.asarray(jax.nn.log_softmax(logits, axis=-1))
        return sum(log_p[p, tokens[p + 1]] for p in range(position, position + 3))

    for w, position in enumerate(places):
        own = logprob(free, position)
        for m in range(2):
            routes = free.copy()
            routes[position] = found.others[w, 0, m]
            other = logprob(routes, position)
            assert found.utility[w, 0, m] == pytest.approx(other - own, abs=2e-4)
    quiet = ExpertSample(k_keep=1, tau=0.0)
    assert (alternatives(model, one, places, policy=quiet, **asked).utility == 0).all()
    assert (found.utility != 0).all()


# -- sums --------------------------------------------------------------------------


def _random_found(sets=2, draws=5, count=7) -> tuple[Found, np.ndarray]:
    random = np.random.default_rng(0)
    utility, score = random.normal(size=(2, count, sets, draws)).astype(np.float32)
    logprob = -random.exponential(size=count).astype(np.float32)
    entropy = np.array([0, 0.005, 0.05, 0.5, 0.3, 1, 9], np.float32)[:count]
    routes = random.permuted(
        np.tile(np.arange(EXPERTS, dtype=np.int16), (count, 3, 1)), axis=-1
    )[..., :draws]
    there = np.arange(count) != 4
    return Found(utility, logprob, entropy, score, routes, None), there


def test_sums_are_those_of_the_tokens_of_each_bin():
    """A position that is not there, or another bin's, would be counted."""
    found, there = _random_found()
    sums = jax.device_get(_summed(found, there))
    for at, (low, high) in enumerate(zip((0, *EDGES), (*EDGES, np.inf), strict=True)):
        of = there & (found.entropy >= low) & (found.entropy < high)
        u, s = found.utility[of], found.score[of]
        du, ds = u - u.mean(-1, keepdims=True), s - s.mean(-1, keepdims=True)
        expected = {
            "tokens": np.full(2, of.sum()),
            "utility": u.mean(-1).sum(0),
            "best": u.max(-1).sum(0),
            "better": (u > 0).mean(-1).sum(0),
            "found": (u.max(-1) > 0).sum(0),
            "mixed": np.log(np.exp(u).mean(-1)).sum(0),
            "logprob": np.full(2, found.logprob[of].sum()),
            "cross": (du * ds).sum((0, 2)),
            "of_score": (ds**2).sum((0, 2)),
            "of_utility": (du**2).sum((0, 2)),
        }
        for name, value in expected.items():
            np.testing.assert_allclose(
                getattr(sums, name)[:, at], value, rtol=1e-5, atol=1e-6, err_msg=name
            )


def test_importance_goes_to_the_expert_that_is_left_out():
    """A loss would be booked on the expert of another place, layer or token."""
    found, there = _random_found(sets=2, draws=CHOSEN)
    loss, count, by_rank, tokens = _importance(found, there, (1, 2), EXPERTS)
    expected = np.zeros((2, 2, EXPERTS))
    for w in np.flatnonzero(there):
        for x, layer in enumerate((1, 2)):
            for j, expert in enumerate(found.routes[w, layer]):
                expected[0, x, expert] -= found.utility[w, x, j]
                expected[1, x, expert] += 1
    np.testing.assert_allclose(loss, expected[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(count, expected[1])
    ranks = -found.utility[there].sum(axis=0)
    np.testing.assert_allclose(by_rank, ranks, rtol=1e-5, atol=1e-6)
    assert tokens == there.sum()


@pytest.mark.slow
def test_a_report_is_of_all_answers(model, answer):
    """An answer or a set would be left out; chunks of sets would be mixed up."""
    other = Passage(prompt_of(9, 1).astype(np.int32), 3)
    asked = {"policy": POLICY, "key": 3}
    found = counterfactual(model, [answer, other], **asked, draws=40)
    assert found.names == ("1", "2", "all")
    assert found.tokens("all") == (LENGTH - PROMPT + 1) + (9 - 3)
    key = jaxmoe.keys.prompt_key(jax.random.key(3), 1)
    each = alternatives(
        model, other, answer_positions(other), policy=POLICY, key=key, draws=40
    )
    np.testing.assert_allclose(
        found.sums.utility[1].sum(axis=1), each.utility.mean(2).sum(0), atol=1e-5
    )
    assert np.isfinite(found.mean("utility", "all").low)


@pytest.mark.slow
def test_losses_are_those_of_shorter_routes(model, answer):
    """An expert would go and its weight stay, or another one would come instead."""
    found = ablate(model, [answer])
    _, own = _forward(model, answer)
    loss = np.zeros((2, EXPERTS))
    for position in answer_positions(answer):
        whole = _logprob(model, answer, FREE, position, 1)
        for x, layer in enumerate((1, 2)):
            for j in range(CHOSEN):
                routes = FREE.copy()
                left = np.delete(own[position, layer], j)
                routes[position, layer, : CHOSEN - 1] = left
                less = _logprob(model, answer, routes, position, 1)
                loss[x, own[position, layer, j]] += whole - less
    np.testing.assert_allclose(found.loss[0], loss, atol=2e-4)
    assert found.count.sum() == found.tokens.sum() * 2 * CHOSEN


# -- what does not fit -------------------------------------------------------------


def test_positions_of_an_answer(answer):
    """The first or the last token of an answer would not be looked at."""
    assert answer_positions(answer).tolist() == list(range(PROMPT - 1, LENGTH))
    assert answer_positions(answer, 3).tolist() == [3, 7, 11]
    without = replace(answer, following=None)
    assert answer_positions(without)[-1] == LENGTH - 2
    with pytest.raises(ValueError, match="a passage of a prompt alone, 12 tokens"):
        answer_positions(replace(without, prompt_length=LENGTH))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"policy": ExpertSample(k=5)}, "a policy of 5"),
        ({"layers": [0]}, r"found \[0\]"),
        ({"layers": [1, 1]}, "different sets"),
        ({"layers": []}, "different sets"),
        ({"layers": [[]]}, "at least one layer"),
        ({"layers": [1, []]}, "at least one layer"),
        ({"layers": [1.5]}, "layers must be numbers, .*found 1.5"),
        ({"layers": [[1, "all"]]}, "layers must be numbers"),
        ({"draws": 0}, "draws must"),
        ({"reach": 0}, "reach must"),
    ],
)
@pytest.mark.usefixtures("untyped")
def test_what_does_not_fit_is_refused(model, answer, options, message):
    """Alternatives of more experts would be better because they are more."""
    with pytest.raises(ValueError, match=message):
        counterfactual(model, [answer], **options)


@pytest.mark.usefixtures("untyped")
def test_alternatives_that_do_not_fit_are_refused(model, answer):
    """A slip would end in arrays that cannot be broadcast, or in min() of nothing."""
    policy = ExpertSample(k=5)
    with pytest.raises(ValueError, match="a policy of 5"):
        alternatives(model, answer, [4], policy=policy)
    with pytest.raises(ValueError, match="positions must be one at least"):
        alternatives(model, answer, [], policy=POLICY)
    with pytest.raises(TypeError, match="integer"):
        alternatives(model, answer, [4.5], policy=POLICY)  # pyright: ignore[reportArgumentType]


def test_layers_may_be_numbers_of_numpy(model):
    """Layers that were computed would not be taken."""
    sets = _sets(model, [np.int64(1), np.array([1, 2]), "all"])
    assert sets == [("1", [1]), ("1+2", [1, 2]), ("all", (1, 2))]


def test_a_model_without_experts_is_refused(model, answer):
    """There would be a traceback out of the middle of a pass."""
    dense = model.config.layers[0]
    assert isinstance(dense, LayerConfig)
    without = tiny_model(layers=(dense, dense))
    with pytest.raises(ValueError, match="without experts"):
        ablate(without, [answer])
