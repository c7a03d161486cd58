"""Prefill: tokens a second, and the time until n samples of a prompt can start."""

from collections.abc import Iterator, Mapping
from functools import partial
from types import MappingProxyType

import jax
import numpy as np

from jaxmoe.benchmarks import begun, targets, work
from jaxmoe.benchmarks.peer import Peer, fastest, sides_of
from jaxmoe.benchmarks.report import Row
from jaxmoe.benchmarks.subject import Subject
from jaxmoe.benchmarks.timing import Side, Spread, take_turns
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
    peers: Mapping[str, Peer] = MappingProxyType({}),
) -> Iterator[Row]:
    """Rows for each length of prompt, and for n samples of a prompt of `prepared`."""
    for length in prompts:
        yield from _passes(subject, length, rounds, peers)
    for n in ns:
        yield from _preparing(subject, subject.prompt(prepared), n, rounds, peers)


def _passes(
    subject: Subject, length: int, rounds: int, peers: Mapping[str, Peer]
) -> Iterator[Row]:
    prompt = subject.prompt(length)
    ours = Side(partial(begun.pass_over, subject, prompt))
    seconds, others = _beside(ours, peers, prompt, 1, rounds)
    operations = work.prefill_operations(subject.config, length)
    share = seconds.into(100 * operations / subject.machine.matmul.median)
    row = partial(subject.place.row, "prefill")
    yield row(
        f"prompt {length}",
        length / seconds.median,
        "tokens/s",
        ms=seconds.times(1e3),
        gigaoperations=operations / 1e9,
    )
    yield row(targets.matmul_share(length), share.median, "%", share=share)
    for peer, (theirs, how) in others.items():
        named = targets.pass_against_peer(length, peer)
        what = f"prompt {length}: {peer}"
        yield from _peer_rows(subject, what, named, seconds, theirs, how)


def _preparing(
    subject: Subject, prompt: np.ndarray, n: int, rounds: int, peers: Mapping[str, Peer]
) -> Iterator[Row]:
    ours = Side(partial(_prepare, subject, prompt, n))
    seconds, others = _beside(ours, peers, prompt, n, rounds)
    what = f"prompt {len(prompt)}, n = {n} prepared"
    ms = seconds.times(1e3)
    yield subject.place.row("prefill", what, ms.median, "ms", ms=ms)
    for peer, (theirs, how) in others.items():
        named = targets.prepare_against_peer(n, len(prompt), peer)
        its = f"{what}: {peer}"
        yield from _peer_rows(subject, its, named, seconds, theirs, how)


def _beside(
    ours: Side, peers: Mapping[str, Peer], prompt: np.ndarray, n: int, rounds: int
) -> tuple[Spread, dict[str, tuple[Spread, str]]]:
    """Our seconds, and by turns those of each peer at its best, with how it did it."""
    tasks = {name: peer.preparing(prompt, n) for name, peer in peers.items()}
    sides = {"ours": ours}
    for name, its_tasks in tasks.items():
        sides |= sides_of(name, its_tasks)
    few = min(rounds, PEER_ROUNDS) if tasks and n > 1 else rounds
    found = take_turns(sides, few, pause=PAUSE if tasks else 0.0)
    others = {}
    for name, peer in peers.items():
        task, seconds = fastest(name, tasks[name], found)
        others[name] = seconds, f"{task.how}, {peer.weights} weights"
    return found["ours"], others


def _peer_rows(
    subject: Subject, what: str, named: str, ours: Spread, theirs: Spread, how: str
) -> Iterator[Row]:
    row = partial(subject.place.row, "prefill")
    ms, ratio = theirs.times(1e3), theirs.over(ours)
    yield row(what, ms.median, "ms", ms=ms, by=how)
    yield row(named, ratio.median, "x", ratio=ratio)


def _prepare(subject: Subject, prompt: np.ndarray, n: int) -> list[jax.Array]:
    """All that a call does before its first step, new caches included."""
    prefix = begun.load(subject, [prompt])
    samples = begun.begin(subject, prefix, n=n, room=1, policy=TopK())
    return jax.tree.leaves((samples.prefix, samples.slots, samples.suffix))
