"""A rule of one's own ends answers where it says so, and changes nothing else."""

import jax
import numpy as np
import pytest

import jaxmoe
from jaxmoe import Engine, TopK
from tests.tiny import answers, prompt_of, tiny_model

OPTIONS = {"policy": TopK(), "max_new_tokens": 30}
KEY = jax.random.key(4)
SAMPLES = [3, 5, 8, 9, 11, 12]


@pytest.fixture(scope="module")
def model() -> jaxmoe.Model:
    """One model, so that its programs are compiled once."""
    return tiny_model()


def _rule(so_far: jaxmoe.SoFar) -> bool:
    """After the fifth token that is even, but not before the eighth token."""
    assert len(so_far.tokens) == len(so_far.logprobs) == so_far.length
    return so_far.length >= 8 and (so_far.tokens % 2 == 0).sum() >= 5


def _end(tokens: list[int]) -> int:
    """Where the rule ends an answer, or where it ends anyway."""
    ends = [
        j
        for j in range(8, len(tokens) + 1)
        if sum(token % 2 == 0 for token in tokens[:j]) >= 5
    ]
    return min(ends, default=len(tokens))


@pytest.mark.parametrize(("segment", "slots"), [(7, 8), (3, 2)])
def test_where_an_answer_ends_depends_on_it_alone(model, segment, slots):
    """It would end at another token with other neighbours, or other segments."""
    free = jaxmoe.sample(model, prompt_of(20), key=KEY, samples=SAMPLES, **OPTIONS)
    parts: dict[int, list[jaxmoe.Delta]] = {}
    with Engine(model, slots=slots, segment=segment, policy=TopK()) as engine:
        engine.submit(
            prompt_of(20),
            key=KEY,
            samples=SAMPLES,
            stop_when=_rule,
            max_new_tokens=30,
        )
        while engine.busy:
            for delta in engine.step():
                parts.setdefault(delta.sample, []).append(delta)
    cut = 0
    for index, before, finish in zip(SAMPLES, answers(free), free.finish, strict=True):
        deltas = parts[index]
        tokens = np.concatenate([delta.tokens for delta in deltas]).tolist()
        assert tokens == before[: _end(before)]
        assert [delta.finish for delta in deltas[:-1]] == [None] * (len(deltas) - 1)
        ended = len(tokens) < len(before)
        assert deltas[-1].finish == ("stop_when" if ended else finish)
        cut += ended
    assert cut


def test_freed_slots_go_to_waiting_answers(model):
    """A slot would draw on for an answer that has ended."""
    prompts = [prompt_of(20), prompt_of(20, 1)]
    seen: set[tuple[int, int]] = set()

    def rule(so_far: jaxmoe.SoFar) -> bool:
        seen.add((so_far.prompt, so_far.sample))
        return so_far.length == 2

    steps: list[int] = []
    found = jaxmoe.sample(
        model,
        prompts,
        key=KEY,
        n=9,
        slots=2,
        stop_when=rule,
        stop_ids=(),
        progress=lambda now: steps.append(now.steps),
        **{**OPTIONS, "max_new_tokens": 200},
    )
    assert seen == {(j, i) for j in range(2) for i in range(9)}
    for one in found:
        assert one.lengths.tolist() == [2] * 9 and set(one.finish) == {"stop_when"}
    assert steps[-1] <= 9 * 32


def test_what_is_no_rule_is_refused(model):
    """A slip would be found in the middle of a run."""
    with pytest.raises(TypeError, match="stop_when must be a function"):
        jaxmoe.sample(model, prompt_of(20), key=KEY, stop_when=True, **OPTIONS)
