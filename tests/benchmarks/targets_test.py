"""Targets stand in a file; every one of them is of a row that is printed."""

import contextlib
import itertools
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

import jaxmoe
from jaxmoe.benchmarks import (
    begun,
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
    quantise,
    slots,
    startup,
    targets,
)
from jaxmoe.benchmarks.peer import Task
from jaxmoe.benchmarks.presets import PRESETS
from jaxmoe.benchmarks.readers import Reader
from jaxmoe.benchmarks.report import AT_LEAST, AT_MOST, Target
from jaxmoe.benchmarks.session import Session
from jaxmoe.benchmarks.subject import Subject
from jaxmoe.benchmarks.targets import Place, all_targets, read_targets
from jaxmoe.benchmarks.timing import Side, Spread
from jaxmoe.cli import bench
from jaxmoe.cli.bench_measures import MEASURES
from jaxmoe.cli.bench_options import all_parts

ONE = Spread((1.0, 1.0))
WRONG = {
    "at least 3": "at_leats = 3",
    "two": "at_least = 3, at_most = 4",
    "text": 'at_least = "3"',
    "yes": "at_least = true",
    "far": "moonshot = 3",
}


@pytest.mark.parametrize("entry", WRONG.values(), ids=WRONG)
def test_an_entry_that_is_no_target(entry):
    """A misspelt target would never be missed."""
    with pytest.raises(ValueError, match="a row"):
        read_targets(f'[cpu.bench.decode]\n"a row" = {{ {entry} }}')


def test_entries_are_read():
    """A target would be compared the wrong way round."""
    text = '"a" = { at_least = 3, moonshot = 4.5 }\n"b" = { at_most = 1 }'
    assert read_targets(f"[cpu.bench.decode]\n{text}") == {
        ("cpu", "bench", "decode", "a"): Target(AT_LEAST, 3, 4.5),
        ("cpu", "bench", "decode", "b"): Target(AT_MOST, 1),
    }


def test_a_row_finds_its_target():
    """A number would be held against the target of another machine."""
    what = targets.floor_share(8, 128, "TopK")
    row = Place("bench", "cpu").row("decode", what, 50.0, "%", floor_ms=1.0)
    assert row.target == Target(AT_LEAST, 85, 90)
    assert row.detail == {"floor ms": 1.0}
    for other in (Place("bench", "gpu"), Place("tiny", "cpu")):
        assert other.row("decode", what, 50.0, "%").target is None


# -- every target is of a row --------------------------------------------------------


class _Peer:
    weights = "float32"

    def decoding(self, prompt, n):
        return (Task(Side(lambda: None), 4, "quickly"),)

    preparing = decoding


@pytest.fixture
def nothing_runs(monkeypatch, untyped):
    """Benchmarks that make their rows of nothing measured."""
    reader = Reader("none", Side(lambda: None), 1)
    found = lambda sides, *_, **__: dict.fromkeys(sides, ONE)  # noqa: E731
    routes = lambda steps, *_: np.zeros((1, steps, 48, 8), np.int16)  # noqa: E731

    def begin(subject, *_, n, **__):
        return SimpleNamespace(
            subject=subject,
            slots=SimpleNamespace(active=np.ones(n)),
            prefix=SimpleNamespace(length=np.ones(1)),
            suffix=(),
            at=lambda _: None,
            run=lambda *_, **__: None,
            routes=routes,
        )

    for module in (decode, length, loglikelihood, overhead, prefill, slots):
        monkeypatch.setattr(module, "take_turns", found)
    monkeypatch.setattr(begun, "load", lambda *_: None)
    monkeypatch.setattr(begun, "begin", begin)
    monkeypatch.setattr(begun, "scribbled", lambda each: each)
    monkeypatch.setattr(decode.readers, "fastest", lambda _: reader)
    monkeypatch.setattr(machine, "measure", lambda _: machine.Machine(ONE, ONE))
    monkeypatch.setattr(length.cache, "room", lambda _: 8192)
    load = lambda self: vars(self).update(steps=9, lengths=(5,) * 128)  # noqa: E731
    monkeypatch.setattr(slots._Load, "run", load)
    monkeypatch.setattr(slots, "_pieces", lambda load, _: _pieces(load))
    scoring = lambda *_: _Peer().decoding(0, 1)  # noqa: E731
    monkeypatch.setattr(loglikelihood.transformers_peer, "scoring", scoring)
    _nothing_is_quantised(monkeypatch)
    monkeypatch.setattr(host, "_run", lambda *_: None)
    segments = (host._Segment(at - 0.5, at) for at in (1.0, 2.0))
    done = [SimpleNamespace(result=lambda s=segment: s) for segment in segments]
    monkeypatch.setattr(host, "_watched", lambda: contextlib.nullcontext(done))
    monkeypatch.setattr(jax, "clear_caches", lambda: None)
    monkeypatch.setattr(startup, "_start", lambda *_: (1.0, 2.0))
    monkeypatch.setattr(startup, "any", lambda _: True, raising=False)
    monkeypatch.setattr(evaluation, "_run", lambda *_: 1.0)
    monkeypatch.setattr(calls, "_call", lambda *_, **__: None)
    memory = SimpleNamespace(memory_analysis=lambda: None)
    seconds = compilation._Seconds(1.0, 1.0, 1.0)
    monkeypatch.setattr(compilation, "_compile", lambda _: (seconds, memory))
    monkeypatch.setattr(compilation, "_own_cache", contextlib.nullcontext)
    monkeypatch.setattr(compilation.lowering, "rows_of_sizes", lambda *_: ())
    few = (np.ones((8, 4), np.float32), *[np.zeros((8, 2), np.int32)] * 4)
    monkeypatch.setattr(kernels, "_arguments", lambda *_: few)
    monkeypatch.setattr(kernels, "apply_experts", lambda x, *_, **__: x + 0)
    monkeypatch.setattr(kernels, "runs_kernels", lambda _: True)
    lanes = SimpleNamespace(width=16)
    monkeypatch.setattr(kernels, "lanes_found", lambda: lanes)
    drawn = SimpleNamespace(tokens=[np.zeros(3, int)], logprobs=[np.zeros(3)])
    monkeypatch.setattr(jaxmoe, "sample", lambda *_, **__: drawn)
    monkeypatch.setattr(jaxmoe, "forward", lambda *_: np.ones((19, 1024)))


def _nothing_is_quantised(monkeypatch):
    def passed(model, tokens, **_):
        layers = model.config.num_layers
        return np.zeros((len(tokens), 4)), np.zeros((len(tokens), layers, 2), int)

    answers = [np.zeros(3, int)] * quantise.PROBLEMS
    monkeypatch.setattr(quantise, "_greedy", lambda *_: answers)
    monkeypatch.setattr(quantise, "forward", passed)
    monkeypatch.setattr(quantise, "random_params", lambda *_: {})
    monkeypatch.setattr(
        quantise, "quantise_params", lambda config, params: (config, {})
    )


def _pieces(load):
    at = itertools.product(slots._counts(load.slots), slots._fillings(256))
    return dict.fromkeys([*map(str, at), "prefill", slots._MIXED])


def _printed(backend: str, preset: str) -> set[tuple[str, str]]:
    """Benchmark and name of every row of `bench all`, with a baseline."""
    place = Place(preset, backend)
    subject = replace(Subject.random("tiny"), place=place)
    session = Session(preset)
    vars(session).update(
        place=place,
        subject=replace(subject, preset=PRESETS[preset]),
        peers={"transformers": _Peer(), "llama.cpp": _Peer()},
        peer_names=("transformers", "llama.cpp"),
    )
    rows = []
    left_out = {"machine", "profile", "convert"}
    for name, *options_of_all in all_parts(backend):
        if name in left_out:
            continue
        options: Namespace = bench.parser().parse_args([name, *options_of_all])
        if name in ("compile", "evaluate"):
            options.baseline = Path("elsewhere")
        rows += MEASURES[name](session, options)
    return {(row.benchmark, row.what) for row in rows}


@pytest.mark.parametrize(
    ("backend", "preset"), sorted({key[:2] for key in all_targets()})
)
def test_every_target_is_of_a_row_that_is_printed(backend, preset, nothing_runs):
    """A row that was renamed would lose its target, and nobody would miss it."""
    wanted = {key[2:] for key in all_targets() if key[:2] == (backend, preset)}
    missing = wanted - _printed(backend, preset)
    assert not missing
