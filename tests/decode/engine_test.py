"""`jaxmoe.Engine`: an answer is its request's alone, whatever else is in flight."""

from dataclasses import dataclass, replace
from functools import cache, partial

import jax
import numpy as np
import pytest

import jaxmoe
from jaxmoe import (
    AdaptiveHead,
    Biased,
    Dropout,
    Engine,
    ExpertSample,
    GumbelTopK,
    TokenSampler,
    TopK,
)
from jaxmoe.benchmarks.calls import counted
from jaxmoe.decode import engine as engine_module
from jaxmoe.decode import prompt_loader
from jaxmoe.decode.dispatched import Dispatched
from jaxmoe.decode.trace import TokenTrace
from jaxmoe.execution import Execution
from tests.tiny import CHOSEN, EXPERTS, SHAPES, VOCAB, prompt_of, tiny_model

pytestmark = pytest.mark.optimised  # equal bits, but where tokens are compared

POLICIES = [
    TopK(),
    ExpertSample(),
    GumbelTopK(0.7),
    AdaptiveHead(0.6, tau=2.0),
    TopK(2),
    ExpertSample(k_keep=1, r=EXPERTS, tau=np.array([0.5, 3.0])),
    ExpertSample(k=3),
]
PROMPTS = 4
"""Prompts that an engine of these tests has room for at once: fewer than slots."""
RECORDED = {"return_routes": True, "top_logprobs": 2, "return_route_logprobs": True}
SAMPLERS = [
    TokenSampler(0.9, top_k=30),
    TokenSampler(0),
    TokenSampler(1.3, top_p=0.9),
    TokenSampler(0.8, top_k=5, top_p=0.8, min_p=0.05),
    TokenSampler(1.0),
]


@pytest.fixture(scope="module")
def model():
    """One model, so that its programs are compiled once."""
    return tiny_model()


@dataclass(frozen=True)
class Drawn:
    """An answer put together from deltas."""

    tokens: list[int]
    logprobs: list[float]
    finish: str | None


def engine_of(model, **options) -> Engine:
    """An engine of the shapes that these tests share: each other one is compiled."""
    return Engine(model, **{"slots": 8, "segment": 8, "prompts": PROMPTS, **options})


def varied(seed: int) -> dict:
    """A request unlike the others, all of whose numbers follow from its seed."""
    random = np.random.default_rng(seed)
    stop_ids = random.choice(VOCAB, random.integers(0, 8), replace=False)
    return {
        "prompt": prompt_of(int(random.integers(1, 17)), seed),
        "key": jax.random.key(seed),
        "samples": random.choice(1000, random.integers(1, 4), replace=False).tolist(),
        "policy": POLICIES[seed % len(POLICIES)],
        "sampler": SAMPLERS[seed % len(SAMPLERS)],
        "max_new_tokens": int(random.integers(1, 24)),
        "stop_ids": stop_ids.tolist(),
    }


def submit(engine: Engine, seed: int, **changes) -> jaxmoe.Ticket:
    """Hands a varied request in."""
    return engine.submit(**{**varied(seed), **changes})


class Reader:
    """Puts deltas together."""

    def __init__(self):
        self.parts: dict[tuple[jaxmoe.Ticket, int], list[jaxmoe.Delta]] = {}

    def take(self, deltas: list[jaxmoe.Delta]) -> None:
        """Adds deltas; none may follow an answer's last."""
        for delta in deltas:
            before = self.parts.setdefault((delta.ticket, delta.sample), [])
            assert not before or before[-1].finish is None
            before.append(delta)

    def answer(self, ticket: jaxmoe.Ticket, sample: int) -> Drawn:
        """One answer as far as it came."""
        parts = self.parts[ticket, sample]
        tokens = np.concatenate([p.tokens for p in parts])[: parts[-1].length]
        logprobs = np.concatenate([p.logprobs for p in parts])[: len(tokens)]
        return Drawn(tokens.tolist(), logprobs.tolist(), parts[-1].finish)

    def answers(self, ticket: jaxmoe.Ticket) -> list[Drawn]:
        """All answers of a request."""
        return [self.answer(ticket, sample) for sample in ticket.samples]


def finish(engine: Engine, reader: Reader | None = None) -> Reader:
    """Runs an engine until nothing is left."""
    reader = reader or Reader()
    while engine.busy:
        reader.take(engine.step())
    assert engine.step() == []
    return reader


def drawn_alone(model, seed: int, **options) -> list[Drawn]:
    """The answers to a varied request in an engine with nothing beside it."""
    with engine_of(model, **options) as engine:
        ticket = submit(engine, seed)
        return finish(engine).answers(ticket)


@pytest.fixture(scope="module")
def alone(model):
    """`drawn_alone`, each seed once; of optimised programs, as bits need."""
    return cache(partial(drawn_alone, model))


# -- one program, and a pure function of the request ----------------------------------


def test_64_varied_requests_compile_nothing_after_the_first(model, alone):
    """Each new policy, sampler, stop or limit would cost seconds; bits may not change
    with company, nor with coming late."""
    with engine_of(model) as engine:
        first = submit(engine, 0)
        reader = finish(engine)
        tickets = {0: first}
        with counted() as compiled:
            for seed in range(1, 65):
                tickets[seed] = submit(engine, seed)
                if seed % 3 == 0:  # others are under way when it comes
                    reader.take(engine.step())
            finish(engine, reader)
    assert not compiled
    for seed in (0, 1, 2, 3, 4, 5, 6, 23, 64):
        assert reader.answers(tickets[seed]) == alone(seed)
    ends = {a.finish for t in tickets.values() for a in reader.answers(t)}
    assert ends == {"stop", "length"}


# Each policy has a program of its own in `sample`; that slots choose as it does is
# tested in tests/router/per_slot_test.py.
@pytest.mark.optimised(False)
@pytest.mark.parametrize(
    "seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (0, 2, 3, 6))]
)
def test_an_answer_is_the_one_that_sample_draws(model, seed):
    """A server would give other answers than Python does."""
    request = varied(seed)
    answers = jaxmoe.stream(model, slots=8, return_routes=True, **request)
    found = {answer.sample: answer for answer in answers}
    expected = drawn_alone(model, seed, **RECORDED)
    for sample, drawn in zip(request["samples"], expected, strict=True):
        assert found[sample].tokens.tolist() == drawn.tokens
        assert found[sample].finish == drawn.finish
        np.testing.assert_allclose(found[sample].logprobs, drawn.logprobs, atol=1e-5)


@pytest.mark.thorough
@pytest.mark.optimised(False)
def test_half_of_a_call_under_another_policy(model):
    """Policies could not be compared on equal keys in one call."""
    options = {"key": jax.random.key(3), **SHAPES, "max_new_tokens": 12}
    prompt, policies = prompt_of(20), [TopK()] * 3 + [ExpertSample(tau=4.0)] * 3
    mixed = jaxmoe.sample(model, prompt, n=6, policy=policies, **options)
    for policy, rows in ((policies[0], slice(0, 3)), (policies[5], slice(3, 6))):
        all_ = jaxmoe.sample(model, prompt, n=6, policy=policy, **options)
        length = min(all_.tokens.shape[1], mixed.tokens.shape[1])
        np.testing.assert_array_equal(
            mixed.tokens[rows, :length], all_.tokens[rows, :length]
        )
    with pytest.raises(ValueError, match=r"list of 6.*found a list of 2"):
        jaxmoe.sample(model, prompt, n=6, policy=policies[:2], **options)


@pytest.mark.thorough
@pytest.mark.optimised(False)
def test_bans_and_dropout_hold_beside_the_best_experts(model):
    """Where no slot draws, a step that takes the best ranks alone would lose both."""
    banned = np.where(np.arange(EXPERTS) % 2 > 0, -np.inf, 0)
    with engine_of(model, return_routes=True) as engine:
        tickets = [
            submit(engine, 5, **SEVERAL_SEGMENTS, policy=policy)
            for policy in (TopK(), Biased(TopK(), banned), Dropout(0.5))
        ]
        deltas = []
        while engine.busy:
            deltas += engine.step()
    plain, biased, dropped = (
        np.concatenate([d.trace.routes[:, 1] for d in deltas if d.ticket == ticket])
        for ticket in tickets
    )
    assert (plain >= 0).all()
    assert (plain % 2 > 0).any()
    assert (biased % 2 == 0).all()
    assert (dropped == -1).any()


@pytest.mark.parametrize("most", [1, 3])
def test_small_steps_change_nothing(model, alone, most):
    """Text would come sooner, and be another."""
    with engine_of(model) as engine:
        ticket, reader = submit(engine, 5), Reader()
        while engine.busy:
            deltas = engine.step(most)
            assert all(len(delta.tokens) <= most for delta in deltas)
            reader.take(deltas)
    assert reader.answers(ticket) == alone(5)


SEVERAL_SEGMENTS = {"max_new_tokens": 20, "stop_ids": []}


def recorded(engine: Engine) -> tuple[int, TokenTrace]:
    """The first sample of a request, and all that was recorded of it."""
    ticket, deltas = submit(engine, 5, **SEVERAL_SEGMENTS), []
    while engine.busy:
        deltas += engine.step()
    sample = ticket.samples[0]
    own = [delta.trace for delta in deltas if delta.sample == sample]
    return sample, jax.tree.map(lambda *a: np.concatenate(a), *own)


@pytest.mark.optimised(False)
def test_what_is_recorded_comes_with_every_delta(model):
    """Routes, or the probabilities of some, would be lost between two looks."""
    with engine_of(model, **RECORDED) as engine:
        _, trace = recorded(engine)
    length = len(trace.token)
    assert length == 20
    assert trace.routes.shape == (length, 2, CHOSEN)
    assert trace.top_ids.shape == (length, 2)
    assert (trace.route_logprobs[:, 1] < 0).any()


@pytest.mark.slow  # of `sample`, which runs in an engine, it is tested in every run
def test_recorded_routes_are_replayed(model):
    """Replay must give the same tokens."""
    with engine_of(model, **RECORDED) as engine:
        sample, trace = recorded(engine)
        replay = {"samples": [sample], "routes": trace.routes[None], "policy": TopK()}
        again = submit(engine, 5, **SEVERAL_SEGMENTS, **replay)
        replayed = finish(engine).answer(again, sample)
    assert replayed.tokens == trace.token.tolist()


@pytest.mark.thorough
@pytest.mark.parametrize("batch", [1, 4])
def test_prompts_of_one_call_do_not_touch_each_other(model, batch):
    """A prompt's state would depend on those that are computed beside it."""
    lengths = (3, 16, 1, 9, 12, 5)  # of one padded length

    def first_logprobs(rows) -> list[float]:
        with engine_of(model, prefill_batch=batch) as engine:
            tickets = [
                engine.submit(
                    prompt_of(lengths[j], j), key=jax.random.key(j), max_new_tokens=3
                )
                for j in rows
            ]
            reader = finish(engine)
        return [reader.answer(ticket, 0).logprobs for ticket in tickets]

    together = first_logprobs(range(6))
    assert first_logprobs([5, 0]) == [together[5], together[0]]
    assert first_logprobs([3]) == [together[3]]


@pytest.mark.thorough
def test_noisy_prompts(model):
    """A prompt is routed by its sample's key, beside others that are not."""
    policy = ExpertSample(tau=5.0)
    options = {"noisy_prefill": True, "policy": policy, "samples": [4, 9]}
    found = []
    for others in (0, 2):
        with engine_of(model) as engine:
            for seed in range(1, 1 + others):
                submit(engine, seed)
            ticket = submit(engine, 3, **options)
            found.append(finish(engine).answers(ticket))
    assert found[0] == found[1]
    request = varied(3)
    for sample, answer in zip((4, 9), found[0], strict=True):
        key = jaxmoe.keys.sample_key(request["key"], sample)
        logits = jaxmoe.forward(model, request["prompt"], policy=policy, key=key)
        first = jax.nn.log_softmax(logits[-1])[answer.tokens[0]]
        np.testing.assert_allclose(answer.logprobs[0], first, atol=1e-4)


# Bits of answers that outgrow their allocation are tested in tests/sampling_test.py.
@pytest.mark.thorough
@pytest.mark.optimised(False)
@pytest.mark.parametrize("most", [20, pytest.param(130, marks=pytest.mark.slow)])
def test_more_is_taken_than_there_was_room_for(model, most):
    """Longer prompts, answers and lists of stops that come later, and more prompts
    than entries."""
    with engine_of(model, **RECORDED) as engine:
        small = submit(engine, 4)
        reader = finish(engine)
        long = submit(
            engine, 1, prompt=prompt_of(200), max_new_tokens=most, stop_ids=[]
        )
        stops = submit(engine, 2, stop_ids=list(range(20)))
        tickets = [submit(engine, seed) for seed in (0, 3, 5)]
        assert 1 + 2 + len(tickets) > PROMPTS
        finish(engine, reader)
    assert [len(a.tokens) for a in reader.answers(long)] == [most] * len(long.samples)
    assert all(a.tokens for a in reader.answers(stops))
    for seed, ticket in zip((4, 0, 3, 5), (small, *tickets), strict=True):
        expected = drawn_alone(model, seed, **RECORDED)
        found = reader.answers(ticket)
        assert [a.tokens for a in found] == [a.tokens for a in expected]


@pytest.mark.thorough
@pytest.mark.optimised(False)
def test_a_policy_of_all_requests(model):
    """One that chooses more experts than the model does needs an engine of its own."""
    wide = TopK(CHOSEN + 2)
    own = {"policy": wide, "sampler": SAMPLERS[1]}
    # The shapes of `stream`, so that both run one program.
    with Engine(model, slots=8, prompts=1, **own) as engine:
        ticket = submit(engine, 1, policy=None, sampler=None)
        found = finish(engine).answers(ticket)
    request = {**varied(1), **own}
    expected = {a.sample: a for a in jaxmoe.stream(model, slots=8, **request)}
    for sample, answer in zip(ticket.samples, found, strict=True):
        assert answer.tokens == expected[sample].tokens.tolist()


# -- going away -----------------------------------------------------------------------


def test_cancelled_requests_leave_the_others_alone(model, alone):
    """A client that goes away would change an answer, or keep its slots."""
    with engine_of(model) as engine:
        gone = [submit(engine, s, max_new_tokens=100, stop_ids=[]) for s in (1, 2)]
        kept = submit(engine, 5)
        waiting = submit(engine, 6, samples=list(range(20)))
        reader = Reader()
        reader.take(engine.step(4))
        for ticket in (*gone, waiting):
            engine.cancel(ticket)
        late = submit(engine, 3)
        finish(engine, reader)
    assert reader.answers(kept) == alone(5)
    assert reader.answers(late) == alone(3)
    assert all(len(reader.answer(t, t.samples[0]).tokens) < 100 for t in gone)


def test_cancelling_what_is_not_in_flight_is_refused(model):
    """A mistake in a server's books would go unseen."""
    with engine_of(model) as engine, engine_of(model) as other:
        ticket, ended = submit(engine, 1), submit(engine, 0)
        engine.cancel(ticket)
        with pytest.raises(ValueError, match="cancelled already"):
            engine.cancel(ticket)
        finish(engine)
        with pytest.raises(ValueError, match="finished"):
            engine.cancel(ended)
        with pytest.raises(ValueError, match="not of this engine"):
            engine.cancel(submit(other, 1))


def test_a_closed_engine_takes_nothing(model):
    """Memory that is given back cannot be used."""
    with engine_of(model) as engine:
        ticket = submit(engine, 1)
    engine.close()
    for use in (lambda: submit(engine, 2), engine.step, lambda: engine.cancel(ticket)):
        with pytest.raises(RuntimeError, match="closed"):
            use()
    assert not engine.busy


# -- the device draws while the caller reads ------------------------------------------


def counted_segments(monkeypatch, *, wait: bool = False) -> list[int]:
    """A list that grows by the most steps of each segment as it is dispatched.

    wait: for each, as if the host did nothing meanwhile.
    """
    dispatched: list[int] = []
    real = engine_module.decode_segment

    def count(config, params, prefix, running, rules, turn, **options):
        dispatched.append(int(turn.steps))
        found = real(config, params, prefix, running, rules, turn, **options)
        return jax.block_until_ready(found) if wait else found

    monkeypatch.setattr(engine_module, "decode_segment", count)
    return dispatched


def test_the_next_segment_is_dispatched_before_tokens_are_returned(model, monkeypatch):
    """A device would rest while a caller reads, or draw a segment for nobody."""
    dispatched = counted_segments(monkeypatch)
    with engine_of(model) as engine:
        submit(engine, 5, max_new_tokens=30, stop_ids=[])
        found = []
        while engine.busy:
            deltas = engine.step()
            found.append((len(deltas[0].tokens), len(dispatched)))
    assert found == [(1, 1), (8, 2), (8, 3), (8, 4), (5, 4)]
    assert dispatched == [8, 8, 8, 5]


def test_answers_of_one_token_need_no_segment(model, monkeypatch):
    """Their first tokens come with their prompts."""
    dispatched = counted_segments(monkeypatch)
    with engine_of(model) as engine:
        ticket = submit(engine, 1, max_new_tokens=1, samples=list(range(20)))
        answers = finish(engine).answers(ticket)
    assert [len(answer.tokens) for answer in answers] == [1] * 20
    assert not dispatched


def test_answers_are_those_of_a_host_that_waits(model, monkeypatch):
    """What is admitted, freed or overwritten while a segment runs would reach it."""
    found = []
    for wait in (True, False):
        with monkeypatch.context() as patch, engine_of(model) as engine:
            counted_segments(patch, wait=wait)
            tickets = [submit(engine, seed) for seed in range(24)]
            reader = finish(engine)
            found.append([reader.answers(ticket) for ticket in tickets])
            found.append([engine.tokens, engine.steps])
    assert found[:2] == found[2:]


def test_where_programs_overlap_nothing_is_left_under_way(model, alone, monkeypatch):
    """Collectives of what a caller runs would meet those of a segment."""
    dispatched = counted_segments(monkeypatch)
    monkeypatch.setattr(Execution, "runs_ahead", False)
    with engine_of(model) as engine:
        ticket, reader, drawn = submit(engine, 5), Reader(), []
        while engine.busy:
            reader.take(engine.step())
            drawn.append(engine.steps)
            assert len(dispatched) == len(drawn)
    assert reader.answers(ticket) == alone(5)
    assert drawn == sorted(set(drawn))


def test_no_delta_is_longer_than_asked_for(model, alone):
    """A segment under way has more tokens than who asks for few now expects."""
    with engine_of(model) as engine:
        ticket, reader = submit(engine, 5, **SEVERAL_SEGMENTS), Reader()
        reader.take(engine.step())  # a whole segment is under way
        engine.cancel(submit(engine, 1))
        while engine.busy:
            deltas = engine.step(3)
            assert all(0 < len(delta.tokens) <= 3 for delta in deltas)
            reader.take(deltas)
        long = submit(engine, 5, **SEVERAL_SEGMENTS)
        assert finish(engine).answers(long) == reader.answers(ticket)


def test_a_request_is_cancelled_while_it_is_drawn(model, alone):
    """Its tokens would be told of, or go to the answer that has its slot next."""
    with engine_of(model) as engine:
        for _ in range(2):
            endless = {"samples": list(range(8)), "max_new_tokens": 60, "stop_ids": []}
            gone = submit(engine, 1, **endless)
            assert engine.step()  # first tokens; a segment is under way
            engine.cancel(gone)
            assert not engine.busy
            assert engine.step() == []
            for seed in (5, 3):
                ticket = submit(engine, seed)
                reader = finish(engine)
                assert {key[0] for key in reader.parts} == {ticket}
                assert reader.answers(ticket) == alone(seed)


def test_closing_waits_for_nothing(model, alone, monkeypatch):
    """Who has what he wanted would wait for a segment that nobody reads."""
    engine = engine_of(model)
    submit(engine, 1, max_new_tokens=60, stop_ids=[])
    assert engine.step()

    def waited(*_):
        raise AssertionError("a segment under way was waited for")

    with monkeypatch.context() as patch:
        patch.setattr(Dispatched, "result", waited)
        engine.close()
    assert not engine.busy
    with engine_of(model) as other:
        ticket = submit(other, 5)
        assert finish(other).answers(ticket) == alone(5)


# -- refusals -------------------------------------------------------------------------


@dataclass(frozen=True)
class Own(jaxmoe.Policy):
    """A policy without numbers."""

    @property
    def width(self):
        return CHOSEN

    def resolve(self, **_):
        return self


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({"prompt": [VOCAB]}, f"found {VOCAB}; was the prompt"),
        ({"prompt": []}, "found none"),
        ({"policy": TopK(CHOSEN + 1)}, f"found {CHOSEN + 1}; run it in an engine"),
        ({"policy": ExpertSample(r=EXPERTS + 1)}, f"found {EXPERTS + 1}"),
        ({"policy": ExpertSample(k_keep=np.array([1, 2, 3]))}, r"found shape \(3,\)"),
        ({"policy": ExpertSample(tau=-1.0)}, "found -1.0"),
        ({"policy": GumbelTopK(float("nan"))}, "found nan"),
        ({"policy": AdaptiveHead(mass=1.5)}, "found 1.5"),
        ({"policy": Own()}, "Own has no numbers"),
        ({"samples": [3, 3]}, "distinct"),
        ({"sampler": TokenSampler(-1)}, "found -1"),
        ({"max_new_tokens": 5000}, "5000 new ones"),
        ({"stop_ids": [VOCAB]}, f"found {VOCAB}"),
        (
            {"routes": np.zeros((1, 3, 2, CHOSEN + 1), np.int16), "samples": [1]},
            "shape",
        ),
    ],
)
def test_a_request_that_does_not_fit_is_refused_and_harms_nothing(
    model, alone, untyped, change, found
):
    """It would end the answers of others."""
    with engine_of(model) as engine:
        ticket = submit(engine, 5)
        with pytest.raises((ValueError, TypeError), match=found):
            submit(engine, 1, **change)
        assert finish(engine).answers(ticket) == alone(5)


def test_options_that_do_not_fit_are_refused(model, untyped):
    """Before anything is allocated."""
    for options, found in (
        ({"slots": 0}, "found 0"),
        ({"prefill_batch": 3}, "power of two, found 3"),
        ({"segment": 0}, "found 0"),
        ({"top_logprobs": VOCAB + 1}, f"found {VOCAB + 1}"),
        ({"policy": "top-k"}, "found 'top-k'"),
        ({"sampler": 0.7}, "found 0.7"),
    ):
        with pytest.raises((ValueError, TypeError), match=found):
            Engine(model, **options)
    with engine_of(model, policy=TopK(), sampler=TokenSampler(0)) as engine:
        for name, value in (("policy", TopK()), ("sampler", TokenSampler(0))):
            options = {"policy": None, "sampler": None, name: value}
            with pytest.raises(ValueError, match=f"{name} must be None"):
                submit(engine, 1, **options)


# -- what goes wrong within -----------------------------------------------------------


def test_a_step_that_fails_closes_the_engine(model, monkeypatch):
    """Tokens would be lost in silence, a prompt answered for another, or `busy` never
    end."""
    engine = engine_of(model)
    submit(engine, 1)

    def fail(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("jaxmoe.decode.prompt_loader.load_prompts", fail)
        with pytest.raises(KeyboardInterrupt):
            engine.step()
    assert not engine.busy
    for use in (engine.step, lambda: submit(engine, 1)):
        with pytest.raises(RuntimeError, match="failed .KeyboardInterrupt."):
            use()


@pytest.mark.thorough
@pytest.mark.optimised(False)
def test_fewer_experts_in_a_noisy_prompt_leave_nothing_of_the_last(model):
    """Places that a narrow policy leaves empty would hold another prompt's experts."""
    options = {"noisy_prefill": True, "policy": ExpertSample(k=2), "samples": [3]}
    with engine_of(model, **RECORDED) as engine:
        for seed in range(PROMPTS):  # fill all entries
            submit(engine, seed)
        finish(engine)
        submit(engine, 5, **options)
        first = engine.step(1)[0]
    assert (first.trace.routes[0, 1, :2] >= 0).all()
    assert (first.trace.routes[0, 1, 2:] == -1).all()


WIDE = GumbelTopK(k=13)


@pytest.mark.slow  # its programs are nobody else's
def test_a_wide_policy_takes_noisy_prompts(model):
    """Log-probabilities of routes, which nobody asked for, have a limit of 12."""
    out = jaxmoe.sample(
        model, [9, 8], key=0, policy=WIDE, noisy_prefill=True, max_new_tokens=2
    )
    assert (out.lengths > 0).all()


def test_log_probabilities_of_a_wide_policy_are_refused(model):
    """Their sum goes over all subsets."""
    with pytest.raises(ValueError, match="at most 12 .* found 13"):
        jaxmoe.sample(model, [9], key=0, policy=WIDE, return_route_logprobs=True)


def test_a_subclass_that_chooses_otherwise_is_no_numbers(model, untyped):
    """Its choice would be passed over in silence."""

    class Odd(ExpertSample):
        def choose(self, ranking, noise):
            raise AssertionError("not in a slot")

        def resolve(self, **_):
            return Odd(k=CHOSEN)

    class Drawn(TokenSampler):
        """Draws otherwise."""

    with engine_of(model) as engine:
        with pytest.raises(ValueError, match="Odd has no numbers"):
            submit(engine, 1, policy=Odd())
        with pytest.raises(TypeError, match="pytree of one.s own"):
            submit(engine, 1, sampler=Drawn())
        assert not engine.busy


def test_processes_compare_all_that_decides_an_answer(model):
    """Processes that disagree would wait for each other for ever."""
    engine = engine_of(model)
    request = engine.read(
        [9],
        key_data=np.zeros(2, np.uint32),
        samples=(0, 1),
        policy=[TopK(), ExpertSample()],
        sampler=None,
        max_new_tokens=3,
        stop=None,
        stop_ids=None,
        ignore_eos=False,
        stop_when=None,
        noisy_prefill=False,
        routes=None,
    )
    changes = [
        {"policies": request.policies[::-1]},
        {"stops": ("a",)},
        {"stop_ids": (1,)},
        {"samples": (1, 0)},
        {"max_new_tokens": 4},
        {"noisy_prefill": True},
        {"end_ids": (1, 2)},
        {"stop_when": lambda so_far: False},
    ]
    assert all(replace(request, **c).describe() != request.describe() for c in changes)


def test_prompts_used_last_are_kept(model, monkeypatch):
    """A server's prompts would be computed again for every request."""
    computed: list[int] = []
    real = prompt_loader.load_prompts

    def count(config, params, prefix, prompts, *rest, **options):
        computed.extend(int(n) for n in prompts.lengths if n)
        return real(config, params, prefix, prompts, *rest, **options)

    monkeypatch.setattr(prompt_loader, "load_prompts", count)
    with engine_of(model) as engine:
        for length in (3, 5, 7, 9, 3, 5, 7, 9, 11, 5, 7, 9, 11, 3):
            engine.submit(prompt_of(length, length), key=0, max_new_tokens=1)
            finish(engine)
    assert computed == [3, 5, 7, 9, 11, 3]
