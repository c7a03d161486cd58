"""Converting beside copying, as rows."""

import argparse
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

from convert import benchmark
from jaxmoe.benchmarks.report import Row
from jaxmoe.benchmarks.timing import Spread


def convert_rows(args: argparse.Namespace) -> Iterator[Row]:
    """Makes a checkpoint of random weights, then copies and converts it in turn."""
    # 1.25 GB a layer, and a quarter GB for embedding and head.
    layers = max(1, round((args.gb - 0.26) / 1.25))
    model = benchmark.MODEL | {"num_hidden_layers": layers}
    with tempfile.TemporaryDirectory(dir=args.dir) as scratch:
        source = Path(scratch) / "source"
        nbytes = benchmark.write_random(source, model, shard_bytes=2 << 30)
        rounds = []
        for _ in range(args.rounds):
            rounds.append(benchmark.one_round(source, Path(scratch), args.jobs))
            print(rounds[-1], flush=True)
    print(benchmark.summary(nbytes, rounds))
    yield from _rows(nbytes, rounds)


def _rows(nbytes: int, rounds: list[benchmark.Round]) -> Iterator[Row]:
    copying = Spread(tuple(r.copy for r in rounds))
    converting = Spread(tuple(r.convert for r in rounds))
    own = Spread(tuple(r.own for r in rounds))
    ratio = copying.over(converting)
    size = {"GB": nbytes / 1e9}
    for what, seconds in (("copying", copying), ("converting", converting)):
        rate = seconds.into(nbytes / 1e6)
        detail = size | {"seconds": seconds, "MB/s": rate}
        yield Row("convert", what, rate.median, "MB/s", detail=detail)
    what = "speed of converting, of copying's"
    without = statistics.median(copying.over(own).values)
    detail = {"ratio": ratio, "without the start of Python": without}
    yield Row("convert", what, ratio.median, "x", detail=detail)
    peak = max(r.peak for r in rounds)
    yield Row("convert", "peak memory", peak / 1e9, "GB")
