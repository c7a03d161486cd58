"""Log-likelihoods of continuations: the demo model, beside transformers."""

from collections.abc import Iterator
from functools import partial

import numpy as np

from jaxmoe.benchmarks import targets, transformers_peer
from jaxmoe.benchmarks.peer import fastest, sides_of
from jaxmoe.benchmarks.report import Row
from jaxmoe.benchmarks.targets import Place
from jaxmoe.benchmarks.timing import Side, take_turns
from jaxmoe.decode.loglikelihood import loglikelihood
from jaxmoe.model import Model, load

CONTEXTS = 64
LENGTHS = (24, 100)
"""Tokens of a context: from, and less than."""
CONTINUATIONS = (4, 1)
"""Of each context: as multiple choice has it, and one alone."""
LONGEST = 6
"""Tokens of a continuation, 1 at least."""
BATCH = 64
PEER = "transformers"

Pairs = list[tuple[np.ndarray, np.ndarray]]


def measure(place: Place, *, rounds: int, peers: tuple[str, ...] = ()) -> Iterator[Row]:
    """Rows for each number of continuations; with transformers, by turns with it."""
    model = load("demo")
    for each in CONTINUATIONS:
        pairs = _pairs(model, each)
        ours = Side(partial(loglikelihood, model, pairs, batch=BATCH))
        tasks = transformers_peer.scoring(pairs, BATCH) if PEER in peers else ()
        found = take_turns({"ours": ours, **sides_of(PEER, tasks)}, rounds)
        what, seconds = targets.scored(CONTEXTS, each), found["ours"]
        rate = len(pairs) / seconds.median
        row = partial(place.row, "loglikelihood")
        yield row(what, rate, "continuations/s", ms=seconds.times(1e3))
        if tasks:
            task, theirs = fastest(PEER, tasks, found)
            ratio, named = theirs.over(seconds), targets.scored(CONTEXTS, each, PEER)
            ms = theirs.times(1e3)
            yield row(named, ratio.median, "x", ratio=ratio, its_ms=ms, by=task.how)


def _pairs(model: Model, each: int) -> Pairs:
    """Random contexts, with `each` continuations."""
    chance, vocab = np.random.default_rng(0), model.config.vocab_size
    draw = lambda length: chance.integers(1, vocab, length, np.int32)  # noqa: E731
    contexts = [draw(length) for length in chance.integers(*LENGTHS, CONTEXTS)]
    return [
        (context, draw(length))
        for context in contexts
        for length in chance.integers(1, LONGEST + 1, each)
    ]
