"""The figures of a study."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jaxmoe.demo import Problem
from jaxmoe.demo import configuration_names as names
from jaxmoe.demo.game_runs import Outcome, of_band
from jaxmoe.demo.router_study import curves
from jaxmoe.demo.study import compare
from jaxmoe.model import Model
from jaxmoe.reports.plots import plot_bars, plot_pass_at, plot_rank_curves
from jaxmoe.router.policies import ExpertSample, for_model


def plot_outcomes(
    out: Path, outcomes: Mapping[str, Outcome], bands: Mapping[Problem, str]
) -> None:
    """Writes pass_at.png, of hard problems, and differences.png, of all."""
    lines = {}
    for name in (
        *(names.BASE, names.HOT, names.ES_GREEDY, names.ES, names.ES_HOT),
        names.GUMBEL,
    ):
        outcome = of_band(outcomes[name], bands, "hard") or outcomes[name]
        budgets = outcome.budgets()
        intervals = [outcome.interval(f"pass@{k}") for k in budgets]
        lines[name] = (budgets, intervals)
    title = "Hard problems solved within n answers (95 % intervals)"
    plot_pass_at(lines, out / "pass_at.png", title=title)
    rows = [
        (name, compare(outcome, outcomes[names.BASE], "pass@8"))
        for name, outcome in outcomes.items()
        if outcome.n >= 8 and name != names.BASE and "greedy" not in name
    ]
    title = f"pass@8 minus that of {names.BASE} (95 % intervals)"
    plot_bars(rows, out / "differences.png", title=title)


def plot_router(out: Path, model: Model, logits: np.ndarray) -> None:
    """Writes router.png."""
    policy = for_model(ExpertSample(), model.config)
    plot_rank_curves(
        curves(logits),
        out / "router.png",
        k_keep=int(policy.k_keep[0]),  # type: ignore[index]
        k=model.config.experts_per_token,
        r=int(policy.r[0]),  # type: ignore[index]
        title="Router probability by rank (median, 10 to 90 %)",
    )
