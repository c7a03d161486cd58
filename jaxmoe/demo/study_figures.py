"""The figures of a study."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from jaxmoe.demo.claims import PRIMARY, SECONDARY, compare, pair_of
from jaxmoe.demo.game_runs import Outcome
from jaxmoe.demo.router_study import curves
from jaxmoe.demo.study import MAIN
from jaxmoe.model import Model
from jaxmoe.reports.plots import plot_bars, plot_pass_at, plot_rank_curves
from jaxmoe.router.policies import ExpertSample, for_model


def plot_outcomes(out: Path, outcomes: Mapping[str, Outcome]) -> None:
    """Writes pass_at.png, of the main rows, and differences.png, of all claims."""
    lines = {}
    for name in MAIN:
        outcome = outcomes[name]
        if outcome.n > 1:
            budgets = outcome.budgets()
            lines[name] = (budgets, [outcome.interval(f"pass@{k}") for k in budgets])
    title = "Problems solved within n answers (95 % intervals)"
    plot_pass_at(lines, out / "pass_at.png", title=title)
    rows = [
        (str(claim), compare(*pair, claim.measure))
        for claim in (*PRIMARY, *SECONDARY)
        if (pair := pair_of(claim, outcomes)) is not None
    ]
    title = "Differences (95 % intervals, not corrected)"
    plot_bars(rows, out / "differences.png", title=title, width=8)


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
