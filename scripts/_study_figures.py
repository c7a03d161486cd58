"""The figures of a study's answers."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxmoe.demo.game_runs import Outcome

CURVES = (
    *("top-k, 0.7", "top-k, 1.3", "expert-sample, greedy", "expert-sample, 0.7"),
    *("expert-sample, 1.3", "gumbel-topk, 0.7"),
)
"""Configurations of the pass@n figure."""


def plot_outcomes(out: Path, outcomes: "Mapping[str, Outcome]") -> None:
    """Writes pass_at.png and differences.png."""
    from jaxmoe.analysis.plots import plot_bars, plot_pass_at
    from jaxmoe.demo.study import BASE, compare, measures

    lines = {}
    for name in CURVES:
        outcome, found = outcomes[name], measures(outcomes[name])
        budgets = outcome.budgets()
        lines[name] = (budgets, [found[f"pass@{k}"] for k in budgets])
    plot_pass_at(lines, out / "pass_at.png", title="Problems solved within n answers")
    rows = [
        (name, compare(outcome, outcomes[BASE])["pass@32"])
        for name, outcome in outcomes.items()
        if outcome.n >= 32 and name != BASE
    ]
    title = f"pass@32 minus that of {BASE}"
    plot_bars(rows, out / "differences.png", title=title)
