"""Slots: many prompts with answers of skewed lengths, against the ideal.

Ideal is that no slot ever waits: every step draws a token in each of them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import numpy as np

from jaxmoe.benchmarks import begun, targets
from jaxmoe.benchmarks.report import Row
from jaxmoe.benchmarks.subject import SAMPLER, Subject
from jaxmoe.benchmarks.timing import Side, Spread, take_turns
from jaxmoe.decode.request import Progress
from jaxmoe.decode.trace import SEGMENT
from jaxmoe.model import Model
from jaxmoe.router.policies import ExpertSample, Policy
from jaxmoe.sampling import stream

STOPPING = 64
"""One token of the vocabulary in so many ends an answer."""


@dataclass
class _Load:
    """A request to run, and what its last run came to."""

    subject: Subject
    prompts: Sequence[np.ndarray]
    samples: int
    slots: int
    max_new_tokens: int
    stop_ids: tuple[int, ...]
    steps: int = 0
    lengths: tuple[int, ...] = ()

    def run(self) -> None:
        answers = stream(
            Model(self.subject.config, self.subject.params),
            self.prompts,
            key=jax.random.key(0),
            n=self.samples,
            policy=ExpertSample(),
            sampler=SAMPLER,
            max_new_tokens=self.max_new_tokens,
            stop_ids=self.stop_ids,
            slots=self.slots,
            progress=self._hear,
        )
        self.lengths = tuple(len(answer.tokens) for answer in answers)

    def _hear(self, progress: Progress) -> None:
        self.steps = progress.steps

    @property
    def tokens(self) -> int:
        """Drawn by steps: the first of each answer comes with its prompt."""
        return sum(self.lengths) - len(self.lengths)


def measure(
    subject: Subject,
    *,
    prompts: int,
    samples: int,
    slots: int,
    prompt: int,
    max_new_tokens: int,
    rounds: int,
) -> Iterator[Row]:
    """Rows: the whole load, its ideal, and how busy the slots were."""
    vocab = subject.config.vocab_size
    random = np.random.default_rng(0)
    stops = random.choice(vocab, vocab // STOPPING, replace=False)
    policy = begun.resolved(subject, ExpertSample())
    load = _Load(
        subject,
        [subject.prompt(prompt, seed) for seed in range(prompts)],
        samples,
        slots,
        max_new_tokens,
        tuple(map(int, stops)),
    )
    load.run()
    sides = {"load": Side(load.run), **_ideal(load, policy)}
    yield from _rows(load, take_turns(sides, rounds, warmup=1))


def _ideal(load: _Load, policy: Policy) -> dict[str, Side]:
    """A segment with every slot active, and the prefill of all prompts."""
    subject = load.subject
    prefix = begun.load(subject, list(load.prompts))
    # As many as the engine compares with, and none that is ever drawn.
    stop_ids = np.full(-(-len(load.stop_ids) // 8) * 8, -1, np.int32)
    samples = begun.begin(
        subject,
        prefix,
        n=load.slots,
        room=load.max_new_tokens,
        policy=policy,
        stop_ids=stop_ids,
        # As the engine begun them: all samples of a prompt before the next prompt's.
        prompts=-(-load.slots // load.samples),
    )
    lengths = np.array(load.lengths)
    # Where the token of an average step stands in its answer.
    middle = int((lengths**2).sum() / (2 * lengths.sum()))
    begin = min(middle - SEGMENT // 2, load.max_new_tokens - SEGMENT)
    slots = samples.at(max(begin, 0))
    return {
        "segment": Side(partial(samples.run, SEGMENT, slots=slots)),
        "prefill": Side(lambda: jax.tree.leaves(begun.load(subject, [*load.prompts]))),
    }


def _rows(load: _Load, found: dict[str, Spread]) -> Iterator[Row]:
    lengths = np.array(load.lengths)
    row = partial(load.subject.place.row, "slots")
    pairs = zip(found["segment"].values, found["prefill"].values, strict=True)
    full_steps = load.tokens / load.slots
    ideal = Spread(tuple(full_steps * s / SEGMENT + p for s, p in pairs))
    ratio = found["load"].over(ideal)
    named = targets.skewed(len(load.prompts), load.samples, load.slots)
    yield row(
        named,
        ratio.median,
        "x",
        ratio=ratio,
        seconds=found["load"],
        ideal_seconds=ideal,
        prefill_seconds=found["prefill"],
        ms_a_full_step=found["segment"].times(1e3 / SEGMENT),
    )
    yield row(
        "slots drawing a token, of all in all steps",
        100 * load.tokens / (load.steps * load.slots),
        "%",
        steps=load.steps,
        answers=len(lengths),
        mean_length=float(lengths.mean()),
        longest=int(lengths.max()),
    )
    total = int(lengths.sum())
    seconds = found["load"]
    yield row("throughput", total / seconds.median, "tokens/s", tokens=total)
