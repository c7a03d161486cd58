"""Calls: how many programs a series of them compiles."""

import contextlib
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import jax

import jaxmoe
from jaxmoe import ExpertSample, TokenSampler
from jaxmoe.benchmarks import targets
from jaxmoe.benchmarks.report import Row
from jaxmoe.benchmarks.subject import SAMPLER, Subject

COMPILED = "/jax/core/compile/backend_compile_duration"


def measure(subject: Subject, *, n: int, prompt: int, tokens: int) -> Iterator[Row]:
    """Rows: programs compiled by a first call, and by others that differ from it.

    n: samples and slots. tokens: most of an answer.
    """
    jax.clear_caches()
    first_call = {"n": n, "prompt": prompt, "tokens": tokens, "slots": n}
    place = subject.place
    row = partial(place.row, "compile", model=place.preset)
    with counted() as first:
        begin = time.perf_counter()
        _call(subject, **first_call)
        seconds = time.perf_counter() - begin
    what = f"programs compiled by a first call of {n} samples"
    yield row(what, len(first), "", seconds=seconds)
    varied = _varied(n, prompt, tokens)
    with counted() as later:
        begin = time.perf_counter()
        for changes in varied:
            _call(subject, **(first_call | changes))
        seconds = (time.perf_counter() - begin) / len(varied)
    what = targets.recompiled(len(varied))
    names = "key, prompt, its length, n, tokens, policy's and sampler's values"
    yield row(what, len(later), "", seconds_a_call=seconds, varied=names)


@contextlib.contextmanager
def counted() -> Iterator[list[str]]:
    """The compilations within, those read from a persistent cache included."""
    heard: list[str] = []

    def hear(event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event == COMPILED:
            heard.append(event)

    jax.monitoring.register_event_duration_secs_listener(hear)
    try:
        yield heard
    finally:
        jax.monitoring.unregister_event_duration_listener(hear)


def _varied(n: int, prompt: int, tokens: int) -> list[dict[str, Any]]:
    """Changes to the first call that leave every compiled shape as it is."""
    return [
        {"seed": 1},
        {"prompt": prompt - 1},
        {"n": max(1, n // 2)},
        {"n": n + n // 2},
        {"tokens": tokens - 1},
        {"policy": ExpertSample(tau=0.5)},
        {"policy": ExpertSample(k_keep=1, tau=2.0)},
        {"sampler": TokenSampler(1.0, top_k=10, top_p=0.9)},
        {"sampler": TokenSampler(0.0, top_k=10, top_p=0.9)},
    ]


def _call(
    subject: Subject,
    n: int,
    prompt: int,
    tokens: int,
    *,
    seed: int = 0,
    slots: int,
    **options: Any,
) -> None:
    jaxmoe.sample(
        jaxmoe.Model(subject.config, subject.params),
        subject.prompt(prompt, seed),
        key=jax.random.key(seed),
        n=n,
        slots=slots,
        max_new_tokens=tokens,
        **{"sampler": SAMPLER, **options},
    )
