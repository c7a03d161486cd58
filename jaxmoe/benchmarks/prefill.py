"""Prefill: tokens a second, and the time until n samples of a prompt can start."""

from collections.abc import Iterator
from functools import partial

import jax
import numpy as np

from jaxmoe.benchmarks import begun, targets, work
from jaxmoe.benchmarks.peer import Peer, fastest
from jaxmoe.benchmarks.report import Row
from jaxmoe.benchmarks.subject import Subject
from jaxmoe.benchmarks.timing import Side, take_turns
from jaxmoe.router.policies import TopK

PEER_ROUNDS = 3
"""At most so many rounds against a peer that may take a minute for one."""
PAUSE = 0.05


def measure(
    subject: Subject,
    prompts: tuple[int, ...],
    *,
    prepared: int,
    ns: tuple[int, ...],
    rounds: int,
    peer: Peer | None = None,
) -> Iterator[Row]:
    """Rows for each length of prompt, and for n samples of a prompt of `prepared`."""
    for length in prompts:
        yield from _passes(subject, length, rounds)
    for n in ns:
        yield from _preparing(subject, subject.prompt(prepared), n, rounds, peer)


def _passes(subject: Subject, length: int, rounds: int) -> Iterator[Row]:
    side = Side(partial(begun.pass_over, subject, subject.prompt(length)))
    seconds = take_turns({"pass": side}, rounds)["pass"]
    operations = work.prefill_operations(subject.config, length)
    share = 100 * operations / seconds.median / subject.machine.matmul.median
    row = partial(subject.place.row, "prefill")
    yield row(
        f"prompt {length}",
        length / seconds.median,
        "tokens/s",
        ms=seconds.times(1e3),
        gigaoperations=operations / 1e9,
    )
    yield row(targets.matmul_share(length), share, "%")


def _preparing(
    subject: Subject, prompt: np.ndarray, n: int, rounds: int, peer: Peer | None
) -> Iterator[Row]:
    sides = {"ours": Side(partial(_prepare, subject, prompt, n))}
    tasks = () if peer is None else peer.preparing(prompt, n)
    sides |= {task.how: task.side for task in tasks}
    rounds = min(rounds, PEER_ROUNDS) if tasks else rounds
    seconds = take_turns(sides, rounds, pause=PAUSE if tasks else 0.0)
    row = partial(subject.place.row, "prefill")
    what = f"prompt {len(prompt)}, n = {n} prepared"
    ours = seconds["ours"].times(1e3)
    yield row(what, ours.median, "ms", ms=ours)
    if peer is None:
        return
    task = fastest(tasks, seconds)
    theirs = seconds[task.how].times(1e3)
    how = f"{task.how}, {peer.weights} weights"
    ratio = theirs.over(ours)
    yield row(
        f"{what}: transformers",
        theirs.median,
        "ms",
        ms=theirs,
        by=how,
    )
    named = targets.prepare_against_peer(n, len(prompt))
    yield row(named, ratio.median, "x", ratio=ratio)


def _prepare(subject: Subject, prompt: np.ndarray, n: int) -> list[jax.Array]:
    """All that a call does before its first step, new caches included."""
    prefix = begun.load(subject, [prompt])
    samples = begun.begin(subject, prefix, n=n, room=1, policy=TopK())
    return jax.tree.leaves((samples.prefix, samples.slots, samples.suffix))
