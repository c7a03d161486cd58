"""`jaxmoe.sample` keeps its promises: what an answer depends on, and what not."""

import jax
import numpy as np
import pytest

import jaxmoe
from jaxmoe import ExpertSample, GumbelTopK, TokenSampler, TopK
from jaxmoe.config import RopeConfig
from jaxmoe.random.keys import prompt_key, sample_key, sample_keys
from tests.tiny import (
    CHOSEN,
    EXPERTS,
    SHAPES,
    STOP,
    VOCAB,
    answers,
    as_bits,
    prompt_of,
    tiny_model,
)

SAMPLER = SHAPES["sampler"]
GREEDY = TokenSampler(temperature=0, top_k=30)


def key(seed: int = 0) -> jax.Array:
    """The caller's key."""
    return jax.random.key(seed)


@pytest.fixture(scope="module")
def model():
    """One model, so that its programs are compiled once."""
    return tiny_model()


def draw(model, prompt, **options):
    """Answers, four where nothing else is said."""
    return jaxmoe.sample(model, prompt, **{"key": key(), "n": 4, **SHAPES, **options})


def equal_bits(a: jaxmoe.Samples, b: jaxmoe.Samples) -> bool:
    """Whether tokens and every bit of the log-probabilities agree."""
    return answers(a) == answers(b) and np.array_equal(a.logprobs, b.logprobs)


# -- a sample is a pure function of its own key ---------------------------------------


@pytest.mark.parametrize("n", [1, 4, 20])
@pytest.mark.optimised
def test_sample_does_not_depend_on_n(model, n):
    """Answer i would change with how many answers are drawn beside it."""
    prompt = prompt_of(20)
    some, all_ = draw(model, prompt, n=n), draw(model, prompt, n=64)
    assert answers(some) == answers(all_)[:n]
    for i, length in enumerate(some.lengths):  # equal slots: equal bits
        assert np.array_equal(some.logprobs[i, :length], all_.logprobs[i, :length])


@pytest.mark.parametrize("slots", [3, pytest.param(64, marks=pytest.mark.slow)])
@pytest.mark.optimised
def test_sample_does_not_depend_on_slots(model, slots):
    """Answers would change with the number of slots they are decoded in."""
    prompt = prompt_of(20)
    assert answers(draw(model, prompt, n=9)) == answers(
        draw(model, prompt, n=9, slots=slots)
    )


@pytest.mark.optimised
def test_sample_does_not_depend_on_other_prompts_or_their_order(model):
    """An answer would change with the prompts in flight, their order or its slot."""
    # Passes over prompts are compiled for two padded lengths: 32 and 256.
    prompts = [prompt_of(20), prompt_of(200, 1), prompt_of(17, 2), prompt_of(140, 3)]
    keys = [prompt_key(key(), j) for j in range(4)]
    together = draw(model, prompts, n=5)
    turned = draw(model, prompts[::-1], n=5, key=keys[::-1])[::-1]
    for j, (one, other) in enumerate(zip(together, turned, strict=True)):
        assert equal_bits(one, other)
        if j < 2:  # a prompt of one chunk of the cache, and one of two
            assert equal_bits(one, draw(model, prompts[j], n=5, key=keys[j]))


@pytest.mark.optimised
def test_any_sample_can_be_drawn_alone(model):
    """Sample 17 drawn on its own would not be sample 17 of twenty."""
    prompt = prompt_of(20)
    all_ = draw(model, prompt, n=20)
    (alone,) = jaxmoe.stream(
        model,
        prompt,
        key=key(),
        samples=[17],
        sampler=SAMPLER,
        max_new_tokens=40,
        return_routes=True,
    )
    assert alone.tokens.tolist() == answers(all_)[17]


@pytest.mark.optimised
def test_streamed_answers_are_the_same(model):
    """Taking answers as they finish would change them, or lose one."""
    prompt = prompt_of(20)
    streamed = list(jaxmoe.stream(model, prompt, key=key(), n=11, **SHAPES))
    whole = draw(model, prompt, n=11)
    assert sorted(a.sample for a in streamed) == list(range(11))
    for answer in streamed:
        assert answer.tokens.tolist() == answers(whole)[answer.sample]


@pytest.mark.optimised
def test_stopping_a_stream_early_changes_nothing(model):
    """A run that was broken off and begun again would give other answers."""
    prompt = prompt_of(20)
    options = {"key": key(), "n": 11, **SHAPES, "slots": 3}
    first = next(iter(jaxmoe.stream(model, prompt, **options)))
    assert first.tokens.tolist() == answers(draw(model, prompt, n=11))[first.sample]


def test_other_keys_give_other_answers(model):
    """The key would not reach the tokens."""
    prompt = prompt_of(20)
    drawn = answers(draw(model, prompt, n=8))
    other = answers(draw(model, prompt, n=8, key=key(1)))
    assert all(a != b for a, b in zip(drawn, other, strict=True))
    assert len({tuple(a) for a in drawn}) == 8


def test_routes_alone_make_answers_differ(model):
    """With greedy tokens the routing noise of Expert-Sample would not be felt."""
    prompt = prompt_of(20)
    drawn = draw(model, prompt, n=8, sampler=GREEDY)
    assert len({tuple(a) for a in answers(drawn)}) > 1


@pytest.mark.optimised
def test_nan_in_one_prompt_stays_there(model):
    """What a broken prompt left in the cache would spoil the one that follows."""
    params = dict(model.params)
    params["embed.weight"] = params["embed.weight"].at[96].set(np.nan)
    broken = jaxmoe.Model(model.config, params)
    bad, good = np.full(100, 96), prompt_of(20) % 90
    with pytest.warns(RuntimeWarning, match="computed NaN"):
        _, second = draw(broken, [bad, good], slots=1, n=1, max_new_tokens=8)
    alone = draw(model, good, key=prompt_key(key(), 1), slots=1, n=1, max_new_tokens=8)
    assert answers(second) == answers(alone)


@pytest.mark.slow
@pytest.mark.optimised
def test_an_array_of_keys_is_one_key_a_prompt(model):
    """Keys made by `jax.random.split` would be refused, or dealt out wrongly."""
    keys = jax.random.split(key(), 2)
    by_array = draw(model, [prompt_of(5), prompt_of(6)], n=1, key=keys)
    by_list = draw(
        model, [prompt_of(5), prompt_of(6)], n=1, key=list(jax.random.split(key(), 2))
    )
    assert [answers(a) for a in by_array] == [answers(b) for b in by_list]


# -- degenerate cases are exact -------------------------------------------------------


@pytest.mark.parametrize(
    "policy",
    [
        ExpertSample(k_keep=CHOSEN),
        ExpertSample(tau=0),
        ExpertSample(r=CHOSEN),
        # Each of these compiles two programs; which experts they choose is tested in
        # tests/router/policies_test.py.
        pytest.param(GumbelTopK(tau=0), marks=pytest.mark.slow),
        pytest.param(jaxmoe.AdaptiveHead(mass=1), marks=pytest.mark.slow),
        pytest.param(jaxmoe.AdaptiveHead(tau=0), marks=pytest.mark.slow),
        TopK(CHOSEN),
    ],
    ids=repr,
)
@pytest.mark.optimised
def test_degenerate_policy_is_top_k_bit_for_bit(model, policy):
    """A policy that can only choose the best k would give other bits than TopK."""
    prompt = prompt_of(20)
    plain = draw(model, prompt, policy=TopK())
    other = draw(model, prompt, policy=policy)
    assert equal_bits(plain, other)
    assert np.array_equal(plain.routes, other.routes)


def test_temperature_zero_is_argmax(model):
    """Temperature 0 would not take the most likely token."""
    prompt = prompt_of(20)
    greedy = draw(model, prompt, n=1, policy=TopK(), sampler=GREEDY)
    sequence = np.concatenate([prompt, answers(greedy)[0]])
    logits = np.asarray(jaxmoe.forward(model, sequence))
    best = logits[len(prompt) - 1 : -1].argmax(axis=-1)
    assert best.tolist() == answers(greedy)[0]


@pytest.mark.optimised
def test_skipped_answers_change_no_bit_of_the_others(model):
    """A run that was killed would go on with other numbers than it began with."""
    prompts = [prompt_of(20), prompt_of(140, 1), prompt_of(17, 2)]
    options = {"key": key(), "n": 4, **SHAPES}
    everything = {(a.prompt, a.sample): a for a in _stream(model, prompts, options)}
    skip = {(0, i) for i in range(4)} | {(1, 0), (1, 3), (2, 1)}
    rest = {(a.prompt, a.sample): a for a in _stream(model, prompts, options, skip)}
    assert rest.keys() == everything.keys() - skip
    for name, answer in rest.items():
        assert np.array_equal(answer.tokens, everything[name].tokens)
        assert np.array_equal(answer.logprobs, everything[name].logprobs)


def _stream(model, prompts, options, skip=()):
    return jaxmoe.stream(model, prompts, skip=skip, **options)


def test_sample_refuses_to_skip(model):
    """It would look for answers that were not drawn."""
    with pytest.raises(ValueError, match="use jaxmoe.stream"):
        draw(model, prompt_of(5), skip={(0, 1)})


# -- prefill and decode equal one pass ------------------------------------------------


@pytest.mark.parametrize(
    "length", [1, 16, 17, 128, 129, pytest.param(300, marks=pytest.mark.slow)]
)
def test_decoding_equals_one_forward_pass(model, length):
    """Cached decoding would drift from the whole sequence at a bucket's border."""
    prompt = prompt_of(length)
    policy = ExpertSample()
    drawn = draw(model, prompt, n=2, policy=policy, stop_ids=())
    for i, answer in enumerate(answers(drawn)):
        logits, routes = jaxmoe.forward(
            model,
            np.concatenate([prompt, answer]),
            policy=policy,
            key=sample_key(key(), i),
            noise_from=length,
            return_routes=True,
        )
        logprobs = jax.nn.log_softmax(logits[length - 1 : -1])
        taken = np.asarray(logprobs)[np.arange(len(answer)), answer]
        bound = 1e-4 * np.abs(logits).max()
        np.testing.assert_allclose(drawn.logprobs[i], taken, atol=bound)
        assert np.array_equal(drawn.routes[i], routes[length - 1 : -1])


@pytest.mark.thorough
@pytest.mark.optimised
def test_long_answers_cross_chunks_and_allocations(model, monkeypatch):
    """An answer longer than a chunk of the cache would see the wrong positions.

    Or one that outgrew its allocation: bits would change where the cache grew.
    """
    prompt = prompt_of(120)
    at_once = draw(model, prompt, n=1, max_new_tokens=200, stop_ids=())
    monkeypatch.setattr("jaxmoe.decode.memory.FIRST_ANSWER", 128)
    drawn = draw(model, prompt, n=1, max_new_tokens=200, stop_ids=())
    assert equal_bits(drawn, at_once)
    sequence = np.concatenate([prompt, answers(drawn)[0]])
    logits = jaxmoe.forward(
        model,
        sequence,
        policy=ExpertSample(),
        key=sample_key(key(), 0),
        noise_from=len(prompt),
    )
    logprobs = np.asarray(jax.nn.log_softmax(logits[len(prompt) - 1 : -1]))
    taken = logprobs[np.arange(200), answers(drawn)[0]]
    bound = 1e-4 * np.abs(logits).max()
    np.testing.assert_allclose(drawn.logprobs[0], taken, atol=bound)


@pytest.mark.slow
def test_window_and_scaled_rotation_decode_as_they_prefill():
    """A window or a scaled rotation would act differently in a step and in a pass."""
    yarn = RopeConfig(kind="yarn", factor=4.0, original_length=64)
    model = tiny_model(window=24, rope=yarn)
    prompt = prompt_of(50)
    drawn = draw(model, prompt, n=1, policy=TopK(), stop_ids=())
    sequence = np.concatenate([prompt, answers(drawn)[0]])
    logits = jaxmoe.forward(model, sequence)
    logprobs = np.asarray(jax.nn.log_softmax(logits[len(prompt) - 1 : -1]))
    taken = logprobs[np.arange(len(answers(drawn)[0])), answers(drawn)[0]]
    np.testing.assert_allclose(drawn.logprobs[0], taken, atol=2e-4)


@pytest.mark.slow
def test_bits_compute_what_their_values_do(model):
    """bfloat16 held as bits would lose or change something against float32."""
    bits, wide = as_bits(model)
    prompt = prompt_of(20)
    a, b = draw(bits, prompt), draw(wide, prompt)
    assert answers(a) == answers(b)
    np.testing.assert_allclose(a.logprobs, b.logprobs, atol=1e-5)


@pytest.mark.slow
def test_ragged_experts_draw_the_same_tokens(model):
    """The implementation for accelerators would choose or weigh otherwise."""
    prompt = prompt_of(20)
    other = draw(model, prompt, implementation="ragged")
    assert answers(other) == answers(draw(model, prompt))


# -- routes ---------------------------------------------------------------------------


def test_routes_are_those_of_the_pass_behind_each_token(model):
    """Recorded routes would be shifted, unordered, or outside the policy's reach."""
    prompt = prompt_of(20)
    drawn = draw(model, prompt, n=3)
    assert drawn.routes is not None
    assert drawn.routes.shape == (*drawn.tokens.shape, 2, CHOSEN)
    assert drawn.routes.dtype == np.int16
    assert (drawn.routes[:, :, 0] == -1).all(), "the dense layer has no experts"
    assert (drawn.routes[:, 0] == drawn.routes[0, 0]).all(), "one prefill for all"
    for routes, length in zip(drawn.routes, drawn.lengths, strict=True):
        assert (routes[:length, 1] >= 0).all()
        assert (routes[length:] == -1).all()
        assert routes.max() < EXPERTS


@pytest.mark.optimised
def test_replayed_routes_give_the_same_answers(model):
    """Recorded routes fed back, under any policy, would give other numbers."""
    prompt = prompt_of(20)
    drawn = draw(model, prompt)
    replayed = draw(model, prompt, policy=TopK(), routes=drawn.routes)
    assert equal_bits(drawn, replayed)
    assert np.array_equal(drawn.routes, replayed.routes)


@pytest.mark.optimised
def test_chosen_samples_come_in_the_order_asked_for(model):
    """Recorded routes fed back would reach another sample than they came from."""
    prompt = prompt_of(20)
    some = draw(model, prompt, samples=[3, 1])
    all_ = draw(model, prompt)
    assert answers(some) == [answers(all_)[3], answers(all_)[1]]
    again = draw(model, prompt, samples=[3, 1], policy=TopK(), routes=some.routes)
    assert equal_bits(some, again)


def test_replayed_routes_give_the_same_logits(model):
    """Routes placed in a forward pass would not reproduce the sample's logits."""
    prompt = prompt_of(20)
    drawn = draw(model, prompt, n=1)
    length = int(drawn.lengths[0])
    sequence = np.concatenate([prompt, answers(drawn)[0]])
    by_routes = jaxmoe.forward(
        model,
        sequence,
        routes=jaxmoe.place_routes(len(prompt), length, drawn.routes[0]),
    )
    by_key = jaxmoe.forward(
        model,
        sequence,
        policy=ExpertSample(),
        key=sample_key(key(), 0),
        noise_from=len(prompt),
    )
    np.testing.assert_allclose(by_routes[:-1], by_key[:-1], atol=1e-4)


@pytest.mark.thorough
def test_noisy_prefill_routes_the_prompt_with_each_samples_key(model):
    """`noisy_prefill` would share one prefix, or depend on n, slots or order."""
    prompt = prompt_of(20)
    drawn = draw(model, prompt, n=5, noisy_prefill=True)
    assert len({drawn.routes[i, 0].tobytes() for i in range(5)}) > 1
    few = draw(model, prompt, n=2, noisy_prefill=True)
    assert answers(few) == answers(drawn)[:2]
    logits = jaxmoe.forward(
        model, prompt, policy=ExpertSample(), key=sample_key(key(), 3)
    )
    logprob = jax.nn.log_softmax(logits[-1])[drawn.tokens[3, 0]]
    np.testing.assert_allclose(drawn.logprobs[3, 0], logprob, atol=1e-4)


# -- the device function --------------------------------------------------------------


@pytest.mark.thorough
@pytest.mark.parametrize("length", [16, pytest.param(130, marks=pytest.mark.slow)])
def test_generate_is_sample_inside_a_users_jit(model, length):
    """The public device function would draw other answers than `sample`."""
    prompt = prompt_of(length)

    @jax.jit
    def mine(params, tokens, keys):
        return jaxmoe.generate(
            model.config,
            params,
            tokens,
            len(prompt),
            keys,
            policy=ExpertSample(),
            sampler=SAMPLER,
            max_new_tokens=12,
        )

    drawn = mine(model.params, prompt.astype(np.int32), sample_keys(key(), 4))
    whole = draw(model, prompt, max_new_tokens=12)
    for i, tokens in enumerate(answers(whole)):
        assert drawn.tokens[i, : drawn.count[i]].tolist() == tokens


# -- shapes of the result -------------------------------------------------------------


def test_results_are_padded_past_each_length(model):
    """A caller could not tell padding from tokens, or a stop from the length limit."""
    config = model.config
    drawn = draw(model, prompt_of(20), n=20)
    assert drawn.tokens.dtype == drawn.lengths.dtype == np.int32
    assert drawn.logprobs.dtype == np.float32
    assert {"stop", "length"} == set(drawn.finish)
    for i, length in enumerate(drawn.lengths):
        assert (drawn.tokens[i, length:] == config.pad_id).all()
        assert (drawn.logprobs[i, length:] == 0).all()
        assert STOP not in drawn.tokens[i, : length - 1]
        stopped = drawn.tokens[i, length - 1] == STOP
        assert drawn.finish[i] == ("stop" if stopped else "length")
        assert stopped or length == 40
    assert drawn.tokens.max() < VOCAB


def test_progress_is_reported(model):
    """A caller's progress function would not hear of finished answers."""
    heard: list[jaxmoe.Progress] = []
    drawn = draw(model, prompt_of(20), n=20, progress=heard.append)
    assert heard[-1].finished == heard[-1].total == 20
    assert heard[-1].tokens == drawn.lengths.sum()
    assert [p.tokens for p in heard] == sorted(p.tokens for p in heard)
