"""A router report as one HTML file: the table of layers, and all figures."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxmoe.analysis.router_pass import LayerStats
from jaxmoe.reports import steepness
from jaxmoe.reports.comparison_charts import chart_of
from jaxmoe.reports.page import render_page
from jaxmoe.reports.plots import Picture, has_matplotlib
from jaxmoe.reports.router_table import NOTE, summary

HEAD = (
    *("layer", "tokens", "count", "entropy", "deviation", "head", "gap, head"),
    *("gap, tail", "load", "k_keep", "r"),
)
SPREAD = "median, and from the 10 % to the 90 % quantile"
FIGURES = {
    "scores": ("Probability by rank", f"Router probability by rank: {SPREAD}."),
    "mass": ("Probability together", "Mean probability of the best m experts."),
    "loads": (
        "Load",
        "Choices of each expert, the most used first; 1 is an even share. Headings: "
        "normalised entropy of the load, 1 is even.",
    ),
    "coactivation": (
        "Experts chosen together",
        "How much more often two experts are chosen together than their loads say; red "
        "is more often, blue less, white within three standard deviations of it.",
    ),
    "heads": ("Heads", f"Experts that reach a probability, by layer: {SPREAD}."),
    "steepness": (
        "Steepness of heads",
        "Fall of log p over the head's ranks over that behind them, a rank each; "
        "dotted: of normal numbers. Bars: 95 % intervals over prompts.",
    ),
    "cutting": (
        "Fewer experts",
        "What next tokens lose, over the mean probability of the experts left.",
    ),
    "comparison": (
        "Against the other checkpoint",
        "Mean log-probability by rank of both on the same tokens, and the difference.",
    ),
}
"""Figure -> its heading and caption on the page."""


def render(
    layers: LayerStats,
    pictures: Mapping[str, Picture],
    *,
    k: int,
    checkpoint: str,
    policy: Mapping[str, str | None],
    heads: Sequence[Sequence[str]] = (),
    cutting: Sequence[Sequence[str]] = (),
) -> str:
    """The page; equal arguments give equal text.

    Args:
      layers: what `jaxmoe.analysis.router_pass.accumulate` returns.
      pictures: figures by name, drawn already; none without matplotlib.
      k: experts per token.
      checkpoint: digest of its weights.
      policy: how experts were chosen, of "drawn" and of "given" texts.
      heads, cutting: rows of `jaxmoe.reports.steepness`.
    """
    figures = [
        {"name": name, "heading": heading, "chart": chart_of(pictures[name], caption)}
        for name, (heading, caption) in FIGURES.items()
        if name in pictures
    ]
    return render_page(
        "routers.html",
        title="Routers",
        checkpoint=checkpoint,
        k=k,
        policy=[(name, how) for name, how in policy.items() if how],
        head=list(HEAD),
        rows=list(_rows(layers, k)),
        heads_head=[*steepness.HEAD, *steepness.MEASURES],
        heads=heads,
        cutting_head=list(steepness.CUTTING_HEAD),
        cutting=cutting,
        figures=figures,
        charts_possible=has_matplotlib(),
        notes=[NOTE, *([steepness.NOTE] if heads else [])],
        date=None,
    )


def _rows(layers: LayerStats, k: int) -> Iterator[Sequence[Any]]:
    for layer, classes in layers.items():
        for name, stats in classes.items():
            row = summary(stats, k)
            advice = row["advice"]
            yield (
                *(layer, name, f"{row['tokens']:,}", f"{row['entropy']:.2f}"),
                *(f"{row['entropy_sd']:.2f}", row["head_50"]),
                *(f"{advice['gap_head']:.3f}", f"{advice['gap_tail']:.3f}"),
                *(f"{row['load_entropy']:.3f}", advice["k_keep"], advice["r"]),
            )
