"""From options to benchmarks: one function for each, by its name."""

import sys
from argparse import Namespace
from collections.abc import Callable, Iterator

from jaxmoe.benchmarks import (
    calls,
    compilation,
    decode,
    evaluation,
    host,
    kernels,
    length,
    loglikelihood,
    machine,
    overhead,
    prefill,
    profile,
    quantise,
    startup,
)
from jaxmoe.benchmarks import slots as load
from jaxmoe.benchmarks.report import Row
from jaxmoe.benchmarks.session import Session
from jaxmoe.cli.bench_convert import convert_rows

HOST_SLOTS = 64
SAMPLE = (sys.executable, "-m", "jaxmoe", "sample", "--quiet")


def _prompt(session: Session, args: Namespace) -> int:
    return args.prompt or session.preset.prompt


def _steps(session: Session, args: Namespace) -> dict[str, int]:
    prompt, steps, rounds = _prompt(session, args), args.steps, args.rounds
    return {"prompt": prompt, "steps": steps, "rounds": rounds}


def _prefill(session: Session, args: Namespace) -> Iterator[Row]:
    lengths = (args.prompt,) if args.prompt else session.preset.prefills
    options = {"ns": args.n, "rounds": args.rounds, "peers": session.peers}
    options["prepared"] = _prompt(session, args)
    return prefill.measure(session.subject, lengths, **options)


def _decode(session: Session, args: Namespace) -> Iterator[Row]:
    options = {"ns": args.n, "peers": session.peers, **_steps(session, args)}
    options |= {"experts": args.experts, "weights": args.weights}
    return decode.measure(session.subject, **options)


def _profile(session: Session, args: Namespace) -> Iterator[Row]:
    return profile.measure(session.subject, ns=args.n, **_steps(session, args))


def _overhead(session: Session, args: Namespace) -> Iterator[Row]:
    return overhead.measure(session.subject, ns=args.n, **_steps(session, args))


def _length(session: Session, args: Namespace) -> Iterator[Row]:
    return length.measure(session.subject, n=args.n, **_steps(session, args))


def _slots(session: Session, args: Namespace) -> Iterator[Row]:
    options = {"slots": args.n, "prompt": _prompt(session, args)}
    for name in ("prompts", "samples", "max_new_tokens", "rounds"):
        options[name] = getattr(args, name)
    yield from load.measure(session.subject, **options)
    shapes = {"slots": HOST_SLOTS, "prompt": _prompt(session, args)}
    yield from host.measure(session.subject, rounds=args.rounds, **shapes)


def _compile(session: Session, args: Namespace) -> Iterator[Row]:
    shapes = {"n": args.n, "prompt": _prompt(session, args)}
    yield from startup.measure(session.place, SAMPLE, args.rounds, args.baseline)
    yield from compilation.measure(session.place, rounds=args.rounds, **shapes)
    yield from calls.measure(session.for_counting(), tokens=24, **shapes)


def _evaluate(session: Session, args: Namespace) -> Iterator[Row]:
    options = {name: getattr(args, name) for name in ("problems", "n", "rounds")}
    return evaluation.measure(session.place, baseline=args.baseline, **options)


def _loglikelihood(session: Session, args: Namespace) -> Iterator[Row]:
    options = {"rounds": args.rounds, "peers": session.peer_names}
    return loglikelihood.measure(session.place, **options)


MEASURES: dict[str, Callable[[Session, Namespace], Iterator[Row]]] = {
    "kernels": lambda session, _: kernels.measure(session.place, session.preset.config),
    "machine": lambda session, _: machine.rows(session.place),
    "prefill": _prefill,
    "decode": _decode,
    "quantise": lambda session, _: quantise.measure(session.place),
    "profile": _profile,
    "overhead": _overhead,
    "length": _length,
    "slots": _slots,
    "compile": _compile,
    "evaluate": _evaluate,
    "loglikelihood": _loglikelihood,
    "convert": lambda _, args: convert_rows(args),
}
