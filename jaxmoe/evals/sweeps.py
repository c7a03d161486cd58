"""Many policies put to the same questions: a grid of Expert-Sample, and fewer experts.

Points differ in values that are traced, so that all of a sweep share one compiled
program for each policy.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from jaxmoe.config import ModelConfig
from jaxmoe.decode.sampler import TokenSampler
from jaxmoe.evals.compare import compare
from jaxmoe.evals.comparison import Comparison
from jaxmoe.evals.run import Run
from jaxmoe.evals.significance import holm
from jaxmoe.router.policies import ExpertSample, Policy, TopK, for_model
from jaxmoe.typing import Float

BASELINE = "topk"


@dataclass(frozen=True)
class Point:
    """One configuration of a sweep.

    name: of its run directory. temperature: of the tokens; None for the sampler's.
    values: what was swept, by name, for tables and heat maps; none for a baseline.
    """

    name: str
    policy: Policy
    temperature: float | None
    values: dict[str, float]

    def sampler(self, sampler: TokenSampler) -> TokenSampler:
        """`sampler` at this point's temperature."""
        if self.temperature is None:
            return sampler
        return replace(sampler, temperature=self.temperature)


def grid(
    *,
    k_keep: Sequence[int],
    r: Sequence[int],
    tau: Sequence[float],
    temperature: Sequence[float] = (),
    k: Sequence[int] = (),
) -> list[Point]:
    """The baseline TopK first, then TopK of fewer experts, then every combination.

    Args:
      k_keep, r, tau: of `ExpertSample`; all combinations are taken.
      temperature: token temperatures, each with a baseline of its own; none for the
        sampler's own.
      k: numbers of experts for the reduction study: TopK(k), without noise.

    Raises:
      ValueError: a value that is given twice.
    """
    for name, given in (("k_keep", k_keep), ("r", r), ("tau", tau), ("k", k)):
        if len(set(given)) != len(given):
            raise ValueError(f"expected every {name} once, found {list(given)}")
    points = []
    for hot in temperature or [None]:
        also = {} if hot is None else {"temperature": hot}
        tail = "" if hot is None else f"-t{hot:g}"
        points.append(Point(f"{BASELINE}{tail}", TopK(), hot, also))
        points += [
            Point(f"{BASELINE}-k{few}{tail}", TopK(few), hot, {"k": few, **also})
            for few in k
        ]
        points += [
            Point(
                f"es-keep{keep}-r{reach}-tau{noise:g}{tail}",
                ExpertSample(keep, reach, noise),
                hot,
                {"k_keep": keep, "r": reach, "tau": noise, **also},
            )
            for keep, reach, noise in itertools.product(k_keep, r, tau)
        ]
    return points


def check_points(points: Sequence[Point], config: ModelConfig) -> None:
    """Raises before anything is drawn if a point does not fit the model.

    Raises:
      ValueError: naming the point.
    """
    for point in points:
        try:
            for_model(point.policy, config, several=True)
        except ValueError as error:
            raise ValueError(f"{point.name}: {error}") from None


def compare_points(points: Sequence[Point], runs: Sequence[Run]) -> Comparison:
    """All points in one comparison, each with the baseline of its own temperature.

    runs: of the points, in the same order.
    """
    pairs = list(zip(points, runs, strict=True))
    temperatures = dict.fromkeys(point.temperature for point in points)
    found = [
        compare([run for point, run in pairs if point.temperature == hot])
        for hot in temperatures
    ]
    differences = [d for one in found for d in one.differences]
    adjusted = holm([d.p_value for d in differences])
    return replace(
        found[0],
        runs=tuple(run for one in found for run in one.runs),
        differences=tuple(
            replace(d, adjusted=float(p))
            for d, p in zip(differences, adjusted, strict=True)
        ),
        examples=(),
    )


@dataclass(frozen=True)
class Panels:
    """Differences of one measure, float64 [k_keep, tau], by r (and temperature).

    bounds: of their intervals.
    """

    keeps: tuple[float, ...]
    taus: tuple[float, ...]
    panels: dict[str, Float[np.ndarray, "Y X"]]
    bounds: dict[str, Float[np.ndarray, "Y X 2"]]


def panels_of(
    points: Sequence[Point], found: Comparison, measure: str
) -> Panels | None:
    """The differences of Expert-Sample's points from their baseline, as fractions.

    None where there is no grid: fewer than two points of Expert-Sample, or no such
    difference.
    """
    differences = {d.b: d.interval for d in found.differences if d.measure == measure}
    swept = [p for p in points if "tau" in p.values and p.name in differences]
    if len(swept) < 2:
        return None
    keeps = tuple(sorted({p.values["k_keep"] for p in swept}))
    taus = tuple(sorted({p.values["tau"] for p in swept}))
    shape = len(keeps), len(taus)
    names = dict.fromkeys(map(_panel_name, swept))
    panels = {name: np.full(shape, np.nan) for name in names}
    bounds = {name: np.full((*shape, 2), np.nan) for name in names}
    for point in swept:
        place = keeps.index(point.values["k_keep"]), taus.index(point.values["tau"])
        name, interval = _panel_name(point), differences[point.name]
        panels[name][place] = interval.mean
        bounds[name][place] = interval.low, interval.high
    return Panels(keeps, taus, panels, bounds)


def _panel_name(point: Point) -> str:
    hot = point.values.get("temperature")
    return f"r = {point.values['r']:g}" + (f", t = {hot:g}" if hot is not None else "")
