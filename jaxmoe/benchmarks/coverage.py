"""How often the intervals of `jaxmoe.evals.metrics` hold the true mean, by simulation.

    python -m jaxmoe.benchmarks.coverage

Problems differ in how often they are solved: all alike, spread as a Beta distribution,
or solved either always or never, which is the hardest, since more samples then say
nothing new. Pairs of runs are independent, or solve the same problems as far as they
can, which makes differences small and one-sided.
"""

import argparse
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from jaxmoe.evals.metrics import bootstrap, paired_difference
from jaxmoe.typing import Float

MEANS = (0.02, 0.05, 0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 0.98)
PAIRS = (
    *((0.02, 0.02), (0.02, 0.05), (0.02, 0.98), (0.1, 0.3), (0.5, 0.5)),
    *((0.7, 0.9), (0.7, 0.98), (0.95, 0.98)),
)
"""Two runs that are compared: alike or far apart, at the edges and between."""
PROBLEMS = (20, 50, 200, 500)
SAMPLES = (1, 4, 64)
SPREADS = ("alike", "beta", "all or nothing")
LEAST = 0.93
"""Coverage of intervals at level 0.95 that is asked for."""

_RESAMPLES = 400


@dataclass(frozen=True)
class Coverage:
    """Of `trials` intervals, the share that held the true value, and their width."""

    problems: int
    samples: int
    spread: str
    means: tuple[float, ...]
    trials: int
    share: float
    width: float

    @property
    def error(self) -> float:
        """Standard error of the share."""
        return float(np.sqrt(LEAST * (1 - LEAST) / self.trials))


def coverage_of(
    means: Sequence[float],
    problems: int,
    samples: int,
    spread: str,
    *,
    trials: int,
    seed: int = 0,
    resamples: int = _RESAMPLES,
) -> Coverage:
    """Coverage of the accuracy of one run, or of the difference of two.

    Args:
      means: the true accuracy of the run, or of two that are compared.
      spread: one of `SPREADS`.
      trials: data sets drawn.
    """
    generator = np.random.default_rng(seed)
    true, held, widths = means[0] - sum(means[1:]), 0, 0.0
    for trial in range(trials):
        # One rank of each problem for both runs: they find the same ones hard.
        ranks = generator.random(problems)
        rates = [_rates(mean, spread, ranks, generator) for mean in means]
        values = [generator.binomial(samples, rate) / samples for rate in rates]
        found = (paired_difference if len(means) == 2 else bootstrap)(
            *values, resamples=resamples, seed=trial
        )
        held += found.low - 1e-12 <= true <= found.high + 1e-12
        widths += found.high - found.low
    share = held / trials
    return Coverage(
        problems, samples, spread, tuple(means), trials, share, widths / trials
    )


def sweep(trials: int, seed: int = 0) -> Iterator[Coverage]:
    """The coverage at all of the means, pairs of means, sizes and spreads above."""
    for problems, samples, spread in itertools.product(PROBLEMS, SAMPLES, SPREADS):
        for means in [*((mean,) for mean in MEANS), *PAIRS]:
            yield coverage_of(
                means, problems, samples, spread, trials=trials, seed=seed
            )


def _rates(
    mean: float, spread: str, ranks: Float[np.ndarray, "P"], generator
) -> Float[np.ndarray, "P"]:
    """How often each problem is solved."""
    if spread == "alike":
        return np.full(len(ranks), mean)
    if spread == "beta":
        return generator.beta(0.6 * mean, 0.6 * (1 - mean), len(ranks))
    return (ranks < mean).astype(np.float64)


def main() -> None:
    """Prints the worst coverage of each size, and exits with 1 if it is too low."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=300)
    args = parser.parse_args()
    worst: dict[tuple[int, int], Coverage] = {}
    for found in sweep(args.trials):
        size = found.problems, len(found.means)
        if size not in worst or found.share < worst[size].share:
            worst[size] = found
    for found in worst.values():
        print(found)
    # Of some hundred shares the lowest is some three standard errors too low.
    if any(found.share < LEAST - 3 * found.error for found in worst.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
