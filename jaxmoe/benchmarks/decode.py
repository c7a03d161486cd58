"""Decoding: a step beside the least it could take, and beside peers'."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from types import MappingProxyType

from jaxmoe.benchmarks import begun, readers, targets
from jaxmoe.benchmarks.peer import Peer, fastest, sides_of
from jaxmoe.benchmarks.report import Row
from jaxmoe.benchmarks.subject import Subject, Weights
from jaxmoe.benchmarks.timing import Side, Spread, take_turns
from jaxmoe.ops.experts import Implementation
from jaxmoe.router.policies import ExpertSample, TopK

POLICIES = {"TopK": TopK(), "ExpertSample": ExpertSample()}
PAUSE = 0.05


def measure(
    subject: Subject,
    *,
    ns: tuple[int, ...],
    prompt: int,
    steps: int,
    rounds: int,
    peers: Mapping[str, Peer] = MappingProxyType({}),
    experts: tuple[Implementation, ...] = ("auto",),
    weights: Weights | None = None,
) -> Iterator[Row]:
    """Rows for each n: both policies, and the peers with the model's own experts.

    experts: kernels that take turns, the first of them beside each of the others.
    weights: the same model with such weights takes turns too, beside the first.
    """
    prefix = begun.load(subject, [subject.prompt(prompt)])
    kernels = {str(kernel): replace(subject, experts=kernel) for kernel in experts}
    if weights is not None:
        kernels[weights] = subject.packed(weights)
    for n in ns:
        samples = {
            _named(name, kernel): begun.begin(
                its_subject, prefix, n=n, room=steps, policy=policy
            )
            for kernel, its_subject in kernels.items()
            for name, policy in POLICIES.items()
        }
        sides = {name: Side(partial(s.run, steps)) for name, s in samples.items()}
        tasks = {
            name: peer.decoding(subject.prompt(prompt), n)
            for name, peer in peers.items()
        }
        for name, its_tasks in tasks.items():
            sides |= sides_of(name, its_tasks)
        reader = readers.fastest(subject.place.backend)
        sides["read"] = reader.side
        found = take_turns(sides, rounds, pause=PAUSE if tasks else 0.0)
        bandwidth = found["read"].into(reader.nbytes)
        for name, one in samples.items():
            a_step = found[name].times(1 / steps)
            yield from _policy_rows(
                one.subject, one, name, prompt, steps, a_step, bandwidth
            )
        for kernel in [*kernels][1:]:
            old, new = (found[_named("TopK", k)] for k in (experts[0], kernel))
            ratio = old.over(new)
            than = "bfloat16" if kernel == weights else experts[0]
            what = targets.beside(n, prompt, kernel, than)
            yield subject.place.row("decode", what, ratio.median, "x", ratio=ratio)
        ours = found[_named("TopK", experts[0])].times(1 / steps)
        for name, peer in peers.items():
            task, seconds = fastest(name, tasks[name], found)
            theirs = seconds.times(1 / task.steps)
            how = f"{task.how}, {peer.weights} weights"
            yield from _peer_rows(subject, n, prompt, name, ours, theirs, how)


def _named(policy: str, kernel: str) -> str:
    return policy if kernel == "auto" else f"{policy}, {kernel}"


def _policy_rows(
    subject: Subject,
    samples: begun.Begun,
    policy: str,
    prompt: int,
    steps: int,
    seconds: Spread,
    bandwidth: Spread,
) -> Iterator[Row]:
    n = samples.slots.active.shape[0]
    routes = samples.routes(steps)
    distinct = begun.distinct_experts(routes, subject.config.moe_layers)
    least = begun.least_work(samples, routes, (steps - 1) / 2)
    floor = bandwidth.into(least.bytes)
    arithmetic = least.operations / subject.machine.matmul.median
    yield subject.place.row(
        "decode",
        f"n = {n}, prompt {prompt}: {policy}",
        seconds.median * 1e3,
        "ms a step",
        tokens_per_second=n / seconds.median,
        ms=seconds.times(1e3),
        distinct_experts=distinct,
    )
    # Bandwidth and step of the same round: both change from minute to minute.
    share = floor.times(100).over(seconds)
    yield subject.place.row(
        "decode",
        targets.floor_share(n, prompt, policy),
        share.median,
        "%",
        memory_floor_ms=floor.median * 1e3,
        arithmetic_floor_ms=arithmetic * 1e3,
        MB=least.bytes / 1e6,
        share=share,
    )


def _peer_rows(
    subject: Subject,
    n: int,
    prompt: int,
    peer: str,
    ours: Spread,
    theirs: Spread,
    how: str,
) -> Iterator[Row]:
    ratio = theirs.over(ours)
    yield subject.place.row(
        "decode",
        f"n = {n}, prompt {prompt}: {peer}",
        theirs.median * 1e3,
        "ms a step",
        ms=theirs.times(1e3),
        by=how,
    )
    named = targets.against_peer(n, prompt, peer)
    yield subject.place.row("decode", named, ratio.median, "x", ratio=ratio)
