"""How often the intervals of `jaxmoe.evals.metrics` hold the true value, by simulation.

    python -m jaxmoe.benchmarks.coverage --trials 1000

Data sets are drawn for every size, number of samples, true mean and way in which
problems differ (`SPREADS`), and their intervals of accuracy, pass@k and of paired
differences of both are compared with the truth. Cells whose share may be below `LEAST`
are simulated again, with so many trials that the error does not decide.
"""

import argparse
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from jaxmoe.evals.metrics import OF_DIFFERENCE, bounds, pass_at
from jaxmoe.typing import Float, Int

MEANS = (0.02, 0.03, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98)
PAIRS = (
    *((0.02, 0.02), (0.02, 0.05), (0.02, 0.98), (0.1, 0.1), (0.1, 0.3), (0.3, 0.35)),
    *((0.5, 0.5), (0.5, 0.55), (0.7, 0.9), (0.7, 0.98), (0.95, 0.98), (0.98, 0.98)),
)
"""Two runs that are compared: alike or far apart, at the edges and between."""
PROBLEMS = (20, 30, 50, 100, 200, 500)
SAMPLES = (1, 4, 16, 64)
SPREADS = ("alike", "narrow", "wide", "all or nothing", "halves", "outliers", "apart")
"""How often problems are solved: each as the mean; Beta distributions of variance
m (1 - m) / 11 and m (1 - m) / 1.6; always or never; half of the time, and never or
always; at most 5 % at the far end and the others alike. Two runs solve the same
problems as far as they can, but for "apart": always or never, independently."""
LEAST = 0.93
"""Coverage of intervals at level 0.95 that is asked for."""

_CONCENTRATION = {"narrow": 10.0, "wide": 0.6}
_OUTLIERS = 0.05
_VALUES = 1 << 22
"""Numbers drawn at once, 32 MiB."""
_AGAIN = 20
"""Times as many trials for cells that may be below `LEAST`."""
_NORMAL = 1.959964
"""Standard deviations to either side of the mean that hold 0.95 of a normal one."""


@dataclass(frozen=True)
class Cell:
    """What is simulated.

    means: the true accuracy of the run, or of two that are compared. k: of pass@k; 1
    is accuracy. spread: one of `SPREADS`.
    """

    problems: int
    samples: int
    k: int
    spread: str
    means: tuple[float, ...]


@dataclass(frozen=True)
class Coverage:
    """Of `trials` intervals, the share that held the true value, and their mean width.

    nominal: the width of mean +- 1.96 true standard deviations of the mean, which one
    who knew how problems differ could give.
    """

    cell: Cell
    trials: int
    share: float
    width: float
    nominal: float

    @property
    def error(self) -> float:
        """Standard error of the share."""
        return float(np.sqrt(LEAST * (1 - LEAST) / self.trials))

    def __str__(self) -> str:
        cell = self.cell
        measure = "accuracy" if cell.k == 1 else f"pass@{cell.k}"
        return (
            f"{self.share:.4f} +- {self.error:.4f}, width {self.width:.3f} (nominal "
            f"{self.nominal:.3f}): {measure} of {' minus '.join(map(str, cell.means))}"
            f", {cell.problems} problems x {cell.samples}, {cell.spread}"
        )


def ks_of(samples: int) -> tuple[int, ...]:
    """The k of pass@k that are looked at; 1 is accuracy."""
    return tuple(sorted({1, max(samples // 8, 1), samples}))


def coverage_of(cell: Cell, *, trials: int, seed: int = 0) -> Coverage:
    """Coverage of one cell; `trials` data sets are drawn."""
    (found,) = _simulate(cell, (cell.k,), trials, seed)
    return found


def sweep(
    trials: int, seed: int = 0, problems: Sequence[int] = PROBLEMS
) -> Iterator[Coverage]:
    """The coverage at all of the means, pairs of means, samples, spreads and k above.

    What may be below `LEAST` comes from `_AGAIN` times as many further trials.
    """
    for size, samples, spread in itertools.product(problems, SAMPLES, SPREADS):
        for means in [*((mean,) for mean in MEANS), *PAIRS]:
            if spread == "apart" and len(means) == 1:
                continue
            base, ks = Cell(size, samples, 1, spread, means), ks_of(samples)
            for found in _simulate(base, ks, trials, seed):
                doubtful = found.share < LEAST + 2 * found.error
                yield (
                    coverage_of(found.cell, trials=_AGAIN * trials, seed=seed + 1)
                    if doubtful
                    else found
                )


def _simulate(
    cell: Cell, ks: Sequence[int], trials: int, seed: int
) -> Iterator[Coverage]:
    """The coverage of pass@k for each k, from the same data sets."""
    generator = np.random.default_rng(seed)
    step = max(1, _VALUES // cell.problems)
    held, widths, means = np.zeros(len(ks)), np.zeros(len(ks)), []
    for start in range(0, trials, step):
        shape = (min(step, trials - start), cell.problems)
        rates = _rates(cell.spread, cell.means, shape, generator)
        right = [generator.binomial(cell.samples, rate) for rate in rates]
        rows = []
        for i, k in enumerate(ks):
            values = [_pass_at(counts, cell.samples, k) for counts in right]
            difference = values[0] - values[1] if len(values) == 2 else values[0]
            true = _truth(cell.spread, cell.means, k)
            if len(values) == 1:
                low, high = bounds(difference)
            else:
                low, high = bounds(difference, OF_DIFFERENCE, ends=(-1.0, 1.0))
            held[i] += ((low - 1e-12 <= true) & (true <= high + 1e-12)).sum()
            widths[i] += (high - low).sum()
            rows.append(difference.mean(axis=1))
        means.append(np.stack(rows))
    deviations = np.concatenate(means, axis=1).std(axis=1)
    for i, k in enumerate(ks):
        one = Cell(cell.problems, cell.samples, k, cell.spread, cell.means)
        nominal = 2 * _NORMAL * deviations[i]
        share, width = held[i] / trials, widths[i] / trials
        yield Coverage(one, trials, float(share), float(width), float(nominal))


def _pass_at(right: Int[np.ndarray, "T P"], n: int, k: int) -> Float[np.ndarray, "T P"]:
    # All counts that there can be, looked up.
    return pass_at(np.arange(n + 1), n, k)[right]


def _rates(
    spread: str,
    means: Sequence[float],
    shape: tuple[int, int],
    generator: np.random.Generator,
) -> list[Float[np.ndarray, "T P"]]:
    """How often each run solves each problem: both find the same ones hard."""
    if spread in _CONCENTRATION:
        return _beta_rates(_CONCENTRATION[spread], means, shape, generator)
    ranks = [generator.random(shape)]
    ranks += [generator.random(shape) if spread == "apart" else ranks[0]]
    return [
        _at_points(*_points(spread, mean), rank)
        for mean, rank in zip(means, ranks, strict=False)
    ]


def _beta_rates(
    concentration: float,
    means: Sequence[float],
    shape: tuple[int, int],
    generator: np.random.Generator,
) -> list[Float[np.ndarray, "T P"]]:
    """Beta distributed rates; those of two runs share what gamma parts they can."""
    hits = _gammas([concentration * mean for mean in means], shape, generator)
    misses = _gammas([concentration * (1 - mean) for mean in means], shape, generator)
    tiny = np.finfo(float).tiny  # where both are below what a float holds
    return [
        (hit + tiny) / (hit + miss + 2 * tiny)
        for hit, miss in zip(hits, misses, strict=True)
    ]


def _gammas(
    shapes: Sequence[float], size: tuple[int, int], generator: np.random.Generator
) -> list[Float[np.ndarray, "T P"]]:
    least = min(shapes)
    common = generator.gamma(least, size=size)
    return [common + generator.gamma(shape - least, size=size) for shape in shapes]


def _points(spread: str, mean: float) -> tuple[tuple[float, float], float]:
    """Two rates, and the share of problems that have the first of them."""
    if spread == "alike":
        return (mean, mean), 0.0
    if spread in ("all or nothing", "apart"):
        return (1.0, 0.0), mean
    if spread == "halves":
        return ((0.5, 0.0), 2 * mean) if mean <= 0.5 else ((1.0, 0.5), 2 * mean - 1)
    far = float(mean <= 0.5)
    share = min(_OUTLIERS, abs(1 - far - mean) / 2)
    return (far, (mean - far * share) / (1 - share)), share


def _at_points(
    rates: tuple[float, float], share: float, ranks: Float[np.ndarray, "T P"]
) -> Float[np.ndarray, "T P"]:
    return np.where(ranks < share, *rates)


def _truth(spread: str, means: Sequence[float], k: int) -> float:
    """The true pass@k of a run, or the difference of two."""
    values = [1 - _all_wrong(spread, mean, k) for mean in means]
    return values[0] - sum(values[1:])


def _all_wrong(spread: str, mean: float, k: int) -> float:
    """The mean over problems of (1 - rate)^k."""
    if spread in _CONCENTRATION:
        total = _CONCENTRATION[spread]
        steps = np.arange(k)
        return float(np.prod((total * (1 - mean) + steps) / (total + steps)))
    rates, share = _points(spread, mean)
    first, second = ((1 - rate) ** k for rate in rates)
    return share * first + (1 - share) * second


def main() -> None:
    """Prints the lowest coverages and the widths; exits with 1 if one is too low."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    sizes = "sizes, separated by commas (default: all)"
    parser.add_argument("--problems", default=",".join(map(str, PROBLEMS)), help=sizes)
    parser.add_argument("--show", type=int, default=10, help="lowest cells shown")
    args = parser.parse_args()
    problems = [int(size) for size in args.problems.split(",")]
    found = sorted(sweep(args.trials, args.seed, problems), key=lambda c: c.share)
    low = [c for c in found if c.share < LEAST - 2 * c.error]
    print(f"{len(found)} cells, {len(low)} below {LEAST} by two errors; the lowest:")
    for one in found[: max(args.show, len(low))]:
        print(one)
    for pair in (False, True):
        kind = [c for c in found if (len(c.cell.means) > 1) == pair and c.nominal > 0]
        ratios = [c.width / c.nominal for c in kind]
        median, most = np.median(ratios), np.quantile(ratios, 0.9)
        what = "differences" if pair else "single runs"
        print(f"width over nominal, {what}: median {median:.2f}, 90 % below {most:.2f}")
        wide = max(kind, key=lambda c: c.width - c.nominal)
        print(f"  widest beyond it: {wide}")
    raise SystemExit(1 if low else 0)


if __name__ == "__main__":
    main()
