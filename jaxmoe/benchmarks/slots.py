"""Slots: many prompts with answers of skewed lengths, against perfect refilling.

Perfect is that a slot gets the next sample in the step after its last one ended, and
that the host takes no time. At the end, when no sample waits, slots rest there as well.
Samples of many prompts are at work side by side in both, which costs more than as many
of few.
"""

import heapq
import statistics
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmoe.benchmarks import begun, targets
from jaxmoe.benchmarks.report import Row
from jaxmoe.benchmarks.subject import SAMPLER, Subject
from jaxmoe.benchmarks.timing import Side, Spread, take_turns
from jaxmoe.decode.request import Progress
from jaxmoe.decode.slots import PROMPT_BLOCK
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
    lengths: tuple[int, ...] = ()  # in the order in which they begin

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
        lengths = {(a.prompt, a.sample): len(a.tokens) for a in answers}
        self.lengths = tuple(lengths[at] for at in sorted(lengths))

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
    """Rows: the whole load, its bound, and how busy the slots were."""
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
    sides = {"load": Side(load.run), **_pieces(load, policy)}
    yield from _rows(load, take_turns(sides, rounds, warmup=1))


class Step(NamedTuple):
    """What the price of a step depends on.

    active: slots at work. longest: own positions of the sample that has most. blocks:
    of slots that read a prompt together (`PROMPT_BLOCK`).
    """

    active: int
    longest: int
    blocks: int


def perfect_refilling(lengths: Sequence[int], slots: int, samples: int) -> list[Step]:
    """The steps where every slot that ends gets the next sample.

    lengths: steps of each sample, in the order in which they begin; 0 takes no slot.
    samples: of a prompt; those of one come one after another.

    >>> perfect_refilling([3, 1, 1], 2, 1)
    [Step(2, 1, 2), Step(2, 2, 2), Step(1, 3, 1)]
    """
    ends = [0] * slots  # a heap: when each slot is free
    longest: list[int] = []
    prompts: list[list[int]] = []
    for sample, length in enumerate(lengths):
        begin = heapq.heapreplace(ends, ends[0] + length)
        for own in range(length):
            step = begin + own
            if step == len(longest):
                longest.append(0)
                prompts.append([])
            longest[step] = max(longest[step], own + 1)
            prompts[step].append(sample // samples)
    return [
        Step(len(asked), most, _blocks(asked))
        for asked, most in zip(prompts, longest, strict=True)
    ]


def _blocks(prompts: Iterable[int]) -> int:
    """Blocks of slots whose samples are of these prompts."""
    return sum(-(-count // PROMPT_BLOCK) for count in Counter(prompts).values())


def _pieces(load: _Load, policy: Policy) -> dict[str, Side]:
    """Segments by how many slots are at work, and the prefill of all prompts."""
    subject = load.subject
    prefix = begun.load(subject, list(load.prompts))
    # As many as the engine compares with, and none that is ever drawn.
    stop_ids = np.full(-(-len(load.stop_ids) // 8) * 8, -1, np.int32)
    fewest, most = _prompts_at_work(load)
    samples = begun.begin(
        subject,
        prefix,
        n=load.slots,
        room=load.max_new_tokens,
        policy=policy,
        stop_ids=stop_ids,
        prompts=fewest,
    )

    def segment(active: int, filled: int) -> Side:
        slots = samples.at(filled)
        some = replace(slots, active=jnp.arange(load.slots) < active)
        return Side(partial(samples.run, SEGMENT, slots=some))

    prefill = Side(lambda: jax.tree.leaves(begun.load(subject, [*load.prompts])))
    at = product(_counts(load.slots), _fillings(load.max_new_tokens))
    # Prompts are of one length, so that nothing else about a slot changes with them.
    many = jnp.asarray(begun.dealt(load.slots, most))
    mixed = replace(samples.at(0), prompt=many)
    return {
        "prefill": prefill,
        _MIXED: Side(partial(samples.run, SEGMENT, slots=mixed)),
        **{str(each): segment(*each) for each in at},
    }


_MIXED = "of many prompts"
"""Segments of all slots, of as many prompts as there can be."""


def _prompts_at_work(load: _Load) -> tuple[int, int]:
    """The fewest and the most that all slots can be of.

    Fewest is as the engine begins: all samples of a prompt before the next prompt's.
    """
    fewest = min(-(-load.slots // load.samples), len(load.prompts))
    return fewest, min(load.slots, len(load.prompts))


def _counts(slots: int) -> list[int]:
    """Numbers of slots at work to time: 1, all, and some between."""
    return sorted({1, slots // 4 or 1, slots // 2 or 1, slots})


def _fillings(most: int) -> list[int]:
    """Own positions to time segments from: the first, and those that end an answer."""
    return sorted({0, max(0, most - SEGMENT)})


def _bound(load: _Load, steps: Sequence[Step], found: dict[str, Spread]) -> Spread:
    """Seconds of perfect refilling: its steps at their price, and the prefill.

    A step's price follows the slots at work, the longest of their answers, as what is
    attended is walked as far as that, and the blocks that read a prompt together.
    """
    counts, fillings = _counts(load.slots), _fillings(load.max_new_tokens)
    active, longest, blocks = (np.array(each) for each in zip(*steps, strict=True))
    middles = [filled + SEGMENT / 2 for filled in fillings]
    fewest, _ = _prompts_at_work(load)
    few = begun.dealt(load.slots, fewest).tolist()
    timed = np.array([_blocks(few[:count]) for count in range(load.slots + 1)])
    more = (blocks - timed[active]).sum() * _price_of_a_block(load, found)
    values = []
    for turn, prefill in enumerate(found["prefill"].values):

        def price(count: int, filled: int, turn: int = turn) -> float:
            return found[str((count, filled))].values[turn] / SEGMENT

        by_filling = [
            np.interp(active, counts, [price(count, filled) for count in counts])
            for filled in fillings
        ]
        far = np.interp(longest, middles, np.arange(len(middles)))
        prices = by_filling[0] + far * (by_filling[-1] - by_filling[0])
        values.append(float(prices.sum() + more) + prefill)
    return Spread(tuple(values))


def _price_of_a_block(load: _Load, found: dict[str, Spread]) -> float:
    """Seconds of a step that one more block costs, by the median of all rounds."""
    fewest, most = (
        _blocks(begun.dealt(load.slots, prompts).tolist())
        for prompts in _prompts_at_work(load)
    )
    if fewest == most:
        return 0.0
    full = found[str((load.slots, 0))].values
    pairs = zip(found[_MIXED].values, full, strict=True)
    beyond = statistics.median(mixed - plain for mixed, plain in pairs)
    return max(0.0, beyond) / SEGMENT / (most - fewest)


def _rows(load: _Load, found: dict[str, Spread]) -> Iterator[Row]:
    lengths = np.array(load.lengths)
    row = partial(load.subject.place.row, "slots")
    steps = perfect_refilling(
        [length - 1 for length in load.lengths], load.slots, load.samples
    )
    bound = _bound(load, steps, found)
    ratio = found["load"].over(bound)
    named = targets.refilling(len(load.prompts), load.samples, load.slots)
    yield row(
        named,
        ratio.median,
        "x",
        ratio=ratio,
        seconds=found["load"],
        bound_seconds=bound,
        prefill_seconds=found["prefill"],
        ms_a_full_step=found[str((load.slots, 0))].times(1e3 / SEGMENT),
        ms_a_full_step_of_many_prompts=found[_MIXED].times(1e3 / SEGMENT),
        steps=load.steps,
        steps_of_the_bound=len(steps),
    )
    yield row(
        "slots drawing a token, of all in all steps",
        100 * load.tokens / (load.steps * load.slots),
        "%",
        of_the_bound=100 * load.tokens / (len(steps) * load.slots),
        answers=len(lengths),
        mean_length=float(lengths.mean()),
        longest=int(lengths.max()),
    )
    total = int(lengths.sum())
    seconds = found["load"]
    yield row("throughput", total / seconds.median, "tokens/s", tokens=total)
