"""A rule of one's own ends answers where it says so, and changes nothing else."""

import jax
import numpy as np
import pytest

import jaxmoe
from jaxmoe import Engine
from jaxmoe.decode import engine as engine_module
from tests.tiny import SHAPES, prompt_of, tiny_model

pytestmark = pytest.mark.thorough

KEY = jax.random.key(4)
SAMPLES = [3, 5, 8, 9, 11, 12]


@pytest.fixture(scope="module")
def model() -> jaxmoe.Model:
    """One model, so that its programs are compiled once."""
    return tiny_model()


def _run(model: jaxmoe.Model, most: int | None, **options) -> tuple[dict, int]:
    """Each answer's deltas, of two prompts, and how many steps they took."""
    parts: dict[tuple[int, int], list[jaxmoe.Delta]] = {}
    # The shapes of engine_test.py, whose programs are compiled.
    with Engine(model, slots=8, segment=8, prompts=4) as engine:
        tickets = [
            engine.submit(
                prompt_of(9, j), key=KEY, samples=SAMPLES, max_new_tokens=30, **options
            )
            for j in range(2)
        ]
        while engine.busy:
            for delta in engine.step(most):
                answer = tickets.index(delta.ticket), delta.sample
                parts.setdefault(answer, []).append(delta)
        return parts, engine.steps


def _tokens(deltas: list[jaxmoe.Delta]) -> list[int]:
    return np.concatenate([delta.tokens for delta in deltas]).tolist()


def _rule(so_far: jaxmoe.SoFar) -> bool:
    """After the fifth token that is even, but not before the eighth token."""
    assert len(so_far.tokens) == len(so_far.logprobs) == so_far.length
    return so_far.length >= 8 and bool((so_far.tokens % 2 == 0).sum() >= 5)


def _end(tokens: list[int]) -> int:
    """Where the rule ends an answer, or where it ends anyway."""
    ends = [
        j
        for j in range(8, len(tokens) + 1)
        if sum(token % 2 == 0 for token in tokens[:j]) >= 5
    ]
    return min(ends, default=len(tokens))


def test_where_an_answer_ends_depends_on_it_alone(model):
    """It would end at another token in other segments, or keep tokens past its end."""
    free, _ = _run(model, None)
    for most in (None, 3):
        ruled, _ = _run(model, most, stop_when=_rule)
        cut = 0
        for answer, deltas in ruled.items():
            whole = _tokens(free[answer])
            assert _tokens(deltas) == whole[: _end(whole)]
            assert deltas[-1].length == _end(whole)
            assert not any(delta.finish for delta in deltas[:-1])
            ended = _end(whole) < len(whole)
            finish = "stop_when" if ended else free[answer][-1].finish
            assert deltas[-1].finish == finish
            cut += ended
        assert 0 < cut <= len(free) == len(ruled)


def test_freed_slots_go_to_waiting_answers(model):
    """A slot would draw on for an answer that has ended."""
    ruled, steps = _run(model, None, stop_when=lambda so_far: so_far.length == 2)
    assert all(len(_tokens(deltas)) <= 2 for deltas in ruled.values())
    assert steps <= 2 * 8  # twelve answers in eight slots: two segments


@pytest.mark.parametrize(("length", "segments"), [(1, 0), (9, 1), (12, 2)])
def test_no_segment_is_drawn_for_an_answer_that_a_rule_has_ended(
    model, monkeypatch, length, segments
):
    """A lone answer would keep the device busy past its end."""
    dispatched, real = [], engine_module.decode_segment

    def count(*args, **options):
        dispatched.append(args)
        return real(*args, **options)

    monkeypatch.setattr(engine_module, "decode_segment", count)
    with Engine(model, slots=8, segment=8, prompts=4) as engine:
        engine.submit(
            prompt_of(9),
            key=KEY,
            stop_ids=[],
            stop_when=lambda so_far: so_far.length == length,
        )
        deltas = []
        while engine.busy:
            deltas += engine.step()
    assert deltas[-1].length == length
    assert len(dispatched) == segments  # of eight steps, after the first token


def test_a_rule_that_raises_closes_the_engine(model):
    """An answer would go on without its rule, or a caller wait for its end."""

    def rule(so_far: jaxmoe.SoFar) -> bool:
        return 1 // (so_far.length - 5) > 5

    with Engine(model, slots=8, segment=8, prompts=4) as engine:
        options = {"key": KEY, "max_new_tokens": 30, "stop_ids": []}
        engine.submit(prompt_of(9), stop_when=rule, **options)
        engine.submit(prompt_of(9, 1), **options)
        assert len(engine.step()) == 2
        with pytest.raises(ZeroDivisionError):
            engine.step()
        assert not engine.busy
        with pytest.raises(RuntimeError, match="failed .ZeroDivisionError."):
            engine.step()


def test_a_stream_tells_which_answer_it_is(model):
    """A rule could not tell answers, or prompts, apart."""
    seen: set[tuple[int, int]] = set()

    def rule(so_far: jaxmoe.SoFar) -> bool:
        seen.add((so_far.prompt, so_far.sample))
        assert so_far.routes is not None and len(so_far.routes) == so_far.length
        assert so_far.top_logprobs is None
        return so_far.sample == 1

    prompts = [prompt_of(9), prompt_of(9, 1)]
    options = {**SHAPES, "key": KEY, "n": 3}
    found = jaxmoe.sample(model, prompts, stop_when=rule, **options)
    assert seen == {(j, i) for j in range(2) for i in range(3)}
    for one in found:
        assert one.lengths[1] == 1 and one.finish[1] in ("stop", "stop_when")
        assert one.lengths[0] > 1


@pytest.mark.usefixtures("untyped")
def test_what_is_no_rule_is_refused(model):
    """A slip would be found in the middle of a run."""
    with pytest.raises(TypeError, match="stop_when must be a function"):
        jaxmoe.sample(model, prompt_of(20), key=KEY, stop_when=True, **SHAPES)
