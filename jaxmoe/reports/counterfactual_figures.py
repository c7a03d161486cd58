"""Figures of counterfactual routes: utility by layer and by uncertainty."""

from typing import TYPE_CHECKING, Any

import numpy as np

from jaxmoe.analysis.counterfactual import EDGES, Counterfactuals, Importance
from jaxmoe.evals.metrics import Interval
from jaxmoe.reports.counterfactual_table import bin_name
from jaxmoe.reports.plots import (
    BLUE,
    GREY,
    VERMILLION,
    Target,
    figure_file,
    look_of,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LOOKS: dict[str, dict[str, Any]] = {
    "utility": {"color": BLUE, "marker": "o", "label": "mean of the alternatives"},
    "best": {"color": VERMILLION, "marker": "s", "label": "best alternative"},
}
_ASIDE = {"utility": -0.06, "best": 0.06}
"""Bars beside one another."""


def plot_counterfactuals(found: Counterfactuals, path: Target, *, title: str) -> None:
    """Utility by layer, all tokens; and by uncertainty, the last set of layers."""
    last = found.names[-1]
    there = [at for at in range(len(EDGES) + 1) if found.tokens(last, at)]
    width = 4.2 + 0.35 * min(len(found.names), 24) + 3.4
    with figure_file(path, max(width, 7.2), 3.8) as figure:
        left, right = figure.subplots(1, 2, sharey=False)
        for measure, look in _LOOKS.items():
            by_layer = [found.mean(measure, name) for name in found.names]
            _points(left, by_layer, look, _ASIDE[measure])
            by_bin = [found.mean(measure, last, at) for at in there]
            _points(right, by_bin, look, _ASIDE[measure])
        step = -(-len(found.names) // 24)
        _ticks(left, [*found.names], step)
        left.set(xlabel="layers changed", ylabel="utility (nats)")
        _ticks(right, [bin_name(at).replace(" <= H < ", "–") for at in there], 1)
        right.tick_params(axis="x", labelrotation=30)
        right.set_xlabel(f"entropy of the next token (nats); layers: {last}")
        figure.legend(
            *left.get_legend_handles_labels(), loc="outside lower center", ncols=2
        )
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)


def plot_importance(found: Importance, path: Target, *, title: str) -> None:
    """Loss without the expert of each rank; a line a layer, or their spread."""
    ranks = np.arange(1, found.by_rank.shape[2] + 1)
    loss = np.array(
        [
            [found.rank(layer, r).mean for r in range(len(ranks))]
            for layer in found.layers
        ]
    )
    with figure_file(path, 5.6, 3.6) as figure:
        axes = figure.add_subplot()
        axes.axhline(0, color=GREY, linewidth=0.8)
        if len(loss) <= 6:
            for index, (layer, row) in enumerate(zip(found.layers, loss, strict=True)):
                axes.plot(ranks, row, label=f"layer {layer}", **look_of(index))
        else:
            low, middle, high = np.quantile(loss, [0.1, 0.5, 0.9], axis=0)
            axes.fill_between(ranks, low, high, color=BLUE, alpha=0.18, lw=0)
            axes.plot(ranks, middle, color=BLUE, label="median layer (10 to 90 %)")
        axes.set_xticks(ranks)
        axes.grid(axis="y")
        axes.set(xlabel="rank of the expert left out", ylabel="loss (nats)")
        axes.legend(ncols=2)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)


def _points(
    axes: "Axes", values: list[Interval], look: dict[str, Any], aside: float
) -> None:
    place = np.arange(len(values)) + aside
    mean = np.array([v.mean for v in values])
    axes.axhline(0, color=GREY, linewidth=0.8)
    axes.plot(place, mean, linewidth=1.2, markersize=4.5, **look)
    bounds = np.array([(v.low, v.high) for v in values])
    if np.isfinite(bounds).any():
        axes.vlines(place, *bounds.T, color=look["color"], linewidth=1.5)


def _ticks(axes: "Axes", names: list[str], step: int) -> None:
    shown = range(0, len(names), step)
    axes.set_xticks(list(shown), [names[i] for i in shown], fontsize=8)
    axes.grid(axis="y")
