"""The figures of a router report."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from jaxmoe.analysis.router_pass import LayerStats


def plot_routers(out: Path, layers: "LayerStats", k: int) -> None:
    """Writes scores.png, mass.png, loads.png, coactivation.png and heads.png."""
    from jaxmoe.reports import router_figures as figures

    spread = "(median, 10 to 90 %)"
    figures.plot_scores(
        layers, out / "scores.png", k=k, title=f"Router probability by rank {spread}"
    )
    figures.plot_mass(
        layers, out / "mass.png", k=k, title="Probability of the best experts together"
    )
    figures.plot_loads(
        layers,
        out / "loads.png",
        title="Load of the experts (heading: entropy, 1 is even)",
    )
    figures.plot_coactivation(
        layers, out / "coactivation.png", title="Experts chosen together"
    )
    figures.plot_heads(
        layers,
        out / "heads.png",
        k=k,
        title=f"Experts that reach a probability {spread}",
    )


def plot_against(
    out: Path, first: "LayerStats", second: "LayerStats", names: tuple[str, str]
) -> None:
    """Writes comparison.png."""
    from jaxmoe.reports.router_figures import plot_comparison

    plot_comparison(
        first,
        second,
        out / "comparison.png",
        names=names,
        title="Mean log-probability by rank, and its difference",
    )
