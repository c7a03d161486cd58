"""Figures of router statistics: scores by rank, mass, loads, pairs, heads.

Each takes the statistics of `jaxmoe.analysis.router_pass`, shows a panel for every
layer that has experts, and goes where `jaxmoe.reports.plots.Target` says.
"""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from jaxmoe.analysis.router_pass import CLASSES, LayerStats
from jaxmoe.analysis.router_scores import normalised_entropy
from jaxmoe.analysis.router_stats import MASSES, RouterStats, merge
from jaxmoe.reports.plots import (
    BLUE,
    GREEN,
    GREY,
    VERMILLION,
    Target,
    figure_file,
    log_axis,
    require_rows,
)

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

_LOOKS: dict[str, dict[str, Any]] = {
    "prompt": {"color": BLUE, "linestyle": "-"},
    "generated": {"color": VERMILLION, "linestyle": "--"},
}
"""Told apart in grey too."""

_SMALLEST = 1e-6
"""Probabilities below are cut off: a few hopeless experts would flatten the rest."""

_LEAST = 1e-3
"""Nats; differences below are no more than rounding, and shown as none."""

_NOISE = 3.0
"""Standard deviations within which a pair's count says nothing, and has no colour."""

_FOLD = 2.0
"""Pairs chosen 2^2 times as often as expected, or as rarely, have the full colour."""


def plot_scores(layers: LayerStats, path: Target, *, k: int, title: str) -> None:
    """Probability by rank on a log scale: median over tokens, band from 10 % to 90 %.

    Args:
      layers: what `jaxmoe.analysis.router_pass.accumulate` returns.
      path: where it goes.
      k: experts per token, marked.
      title: of the figure.

    Raises:
      ValueError: no layers.
    """
    require_rows(list(layers), "layers")
    with _panels(path, layers) as (figure, panels):
        for axes, classes in zip(panels, layers.values(), strict=True):
            log_axis(axes)
            _mark(axes, k)
            for name, stats in classes.items():
                low, middle, high = (stats.quantile(q) for q in (0.1, 0.5, 0.9))
                ranks = _ranks(axes, stats.ranks)
                colour = _LOOKS[name]["color"]
                axes.fill_between(ranks, low, high, color=colour, alpha=0.18, lw=0)
                axes.plot(ranks, middle, label=name, linewidth=1.5, **_LOOKS[name])
        # Once all is drawn: panels share their limits.
        bottom, top = panels[0].get_ylim()
        panels[0].set_ylim(max(bottom, _SMALLEST), min(top, 1.5))
        _label(figure, "rank of the expert", "router probability")
        _legend(figure, panels, title)


def plot_mass(layers: LayerStats, path: Target, *, k: int, title: str) -> None:
    """Mean probability in percent of the best m experts together, over m.

    Args:
      layers, path, k, title: as for `plot_scores`.

    Raises:
      ValueError: no layers.
    """
    require_rows(list(layers), "layers")
    with _panels(path, layers) as (figure, panels):
        for axes, classes in zip(panels, layers.values(), strict=True):
            _mark(axes, k)
            for name, stats in classes.items():
                ranks = _ranks(axes, stats.ranks)
                axes.plot(ranks, 100 * stats.mass, label=name, **_LOOKS[name])
            axes.set_ylim(0, 103)
            axes.set_yticks([0, 50, 80, 100] if len(panels) <= 16 else [0, 50, 100])
            axes.grid(axis="y")
        _label(figure, "best experts, m", "probability together (%)")
        _legend(figure, panels, title)


def plot_loads(layers: LayerStats, path: Target, *, title: str) -> None:
    """Each expert's choices, the most used first; 1 is an even share.

    The heading of a panel has the normalised entropy of the load of each class (1:
    even), in the order of the legend.

    Args:
      layers, path, title: as for `plot_scores`.

    Raises:
      ValueError: no layers.
    """
    require_rows(list(layers), "layers")
    with _panels(path, layers) as (figure, panels):
        for axes, (layer, classes) in zip(panels, layers.items(), strict=True):
            entropies = []
            for name, stats in classes.items():
                share = stats.load / max(stats.load.sum(), 1)
                ranks = _ranks(axes, stats.num_experts)
                values = len(share) * np.sort(share)[::-1]
                axes.plot(ranks, values, label=name, linewidth=1.5, **_LOOKS[name])
                if stats.load.sum():
                    entropies.append(f"{normalised_entropy(share):.2f}")
            axes.axhline(1, color=GREY, linewidth=0.8)
            head = f"layer {layer}: " if len(panels) <= 16 else f"{layer}: "
            size = 9 if len(panels) <= 16 else 7
            axes.set_title(head + ", ".join(entropies), fontsize=size, pad=3)
        panels[0].set_ylim(bottom=0)  # of all, which share it
        _label(figure, "experts, the most used first", "times an even share")
        _legend(figure, panels, title)


def plot_coactivation(layers: LayerStats, path: Target, *, title: str) -> None:
    """How much more often two experts are chosen together than their loads say.

    Of all tokens, on a log2 scale, experts in the model's own order; see
    `RouterStats.coactivation`. White is as often as expected, or too near to that to be
    told apart from it; grey is no data.

    Args:
      layers, path, title: as for `plot_scores`.

    Raises:
      ValueError: no layers.
    """
    require_rows(list(layers), "layers")
    with _panels(path, layers, square=True) as (figure, panels):
        from matplotlib import colormaps

        colours = colormaps["RdBu_r"].with_extremes(bad="#bbbbbb")
        image = None
        for axes, classes in zip(panels, layers.values(), strict=True):
            lift = _both(classes).coactivation(beyond=_NOISE)
            fold = np.log2(np.maximum(lift, 2.0 ** (-_FOLD - 1)))
            # A pixel for each pair, also within a page.
            look: dict[str, Any] = {"cmap": colours, "interpolation": "none"}
            image = axes.imshow(fold, vmin=-_FOLD, vmax=_FOLD, **look)
            ticks = [0, len(fold) - 1]
            axes.set_xticks(ticks)
            axes.set_yticks(ticks)
            axes.tick_params(labelsize=8)
        assert image is not None
        place: dict[str, Any] = {"shrink": 0.8, "aspect": 25, "pad": 0.02}
        bar = figure.colorbar(image, ax=panels, extend="both", **place)
        ticks = np.arange(-_FOLD, _FOLD + 1).tolist()
        bar.set_ticks(ticks, labels=[f"{2.0**t:g}" for t in ticks])
        bar.set_label("times as often as expected", fontsize=9)
        _label(figure, "expert", "expert")
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)


def plot_heads(layers: LayerStats, path: Target, *, k: int, title: str) -> None:
    """Experts that reach a given probability, by layer: median, and 10 % to 90 %.

    One panel for each class of tokens.

    Args:
      layers, path, k, title: as for `plot_scores`.

    Raises:
      ValueError: no layers.
    """
    require_rows(list(layers), "layers")
    names = [n for n in CLASSES if any(n in classes for classes in layers.values())]
    width = 1.4 + len(names) * max(2.3, min(0.16 * len(layers) + 1, 6))
    with figure_file(path, width, 3.4) as figure:
        row = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
        for axes, name in zip(row, names, strict=True):
            _head_panel(axes, layers, name)
            axes.axhline(k, color=GREY, linestyle=":", linewidth=1.2, label=f"k = {k}")
            axes.set_title(name, fontsize=9, pad=3)
            axes.grid(axis="y")
        row[0].set_ylim(bottom=0)
        _label(figure, "layer", "experts")
        _legend(figure, list(row[:1]), title)


def plot_comparison(
    first: LayerStats,
    second: LayerStats,
    path: Target,
    *,
    names: tuple[str, str],
    title: str,
) -> None:
    """Mean log-probability by rank of two models, and under it their difference.

    Of all tokens. The difference is the second's less the first's, nats.

    Args:
      first, second: statistics of the same layers.
      path: where it goes.
      names: of the two models, not the same.
      title: of the figure.

    Raises:
      ValueError: no layers, other layers or numbers of experts in one of them, or equal
        names.
    """
    require_rows(list(first), "layers")
    if names[0] == names[1]:
        raise ValueError(
            f"names must tell two models apart, found {names[0]!r} twice; rename one"
        )
    curves = {layer: difference(first, second, layer) for layer in first}
    columns, rows = _grid(len(first))
    scale = 2.1 if columns <= 4 else 1.25
    size = max(5.2, scale * columns + 0.7), 1.25 * scale * rows + 1.1
    with figure_file(path, *size) as figure:
        grid = figure.subplots(
            2 * rows,
            columns,
            sharex=True,
            sharey="row",
            squeeze=False,
            height_ratios=[2, 1] * rows,
        )
        for index in range(rows * columns):
            row, column = divmod(index, columns)
            above, below = grid[2 * row, column], grid[2 * row + 1, column]
            above.set_visible(index < len(first))
            below.set_visible(index < len(first))
            below.tick_params(labelbottom=index + columns >= len(first))
        for index, (layer, (a, b)) in enumerate(curves.items()):
            row, column = divmod(index, columns)
            above, below = grid[2 * row, column], grid[2 * row + 1, column]
            for mean, name, look in zip((a, b), names, _LOOKS.values(), strict=True):
                above.plot(_ranks(above, len(a)), mean, label=name, **look)
            below.axhline(0, color=GREY, linewidth=0.8)
            below.plot(_ranks(below, len(a)), b - a, color=GREEN, label="difference")
            _heading(above, layer, len(first))
            for axes in (above, below):
                axes.tick_params(labelsize=8)
        for below in grid[1::2, 0]:
            low, high = below.get_ylim()
            below.set_ylim(min(low, -_LEAST), max(high, _LEAST))
        _label(figure, "rank of the expert", "mean log-probability (nats)")
        shown = [grid[0, 0], grid[1, 0]]
        _legend(figure, shown, title)


def difference(
    first: LayerStats, second: LayerStats, layer: int
) -> tuple[Float[np.ndarray, "E"], Float[np.ndarray, "E"]]:
    """Mean log-probability by rank of one layer of both, of all tokens.

    Raises:
      ValueError: other layers or numbers of experts in one of them.
    """
    if first.keys() != second.keys():
        raise ValueError(
            "expected statistics of the same layers, found "
            f"{sorted(first)} and {sorted(second)}; compare checkpoints of one model"
        )
    a, b = (_both(part[layer]).log_probability for part in (first, second))
    if len(a) != len(b):
        raise ValueError(
            f"expected equally many experts, found {len(a)} and {len(b)} in layer "
            f"{layer}; compare checkpoints of one model"
        )
    return a, b


# -- parts of figures --------------------------------------------------------------


def _grid(count: int) -> tuple[int, int]:
    """Columns and rows of panels."""
    columns = min(count, 4 if count <= 16 else 8)
    return columns, math.ceil(count / columns)


@contextmanager
def _panels(
    path: Target, layers: LayerStats, *, square: bool = False
) -> Iterator[tuple["matplotlib.figure.Figure", list["matplotlib.axes.Axes"]]]:
    """A figure with a panel for each layer, with its heading."""
    columns, rows = _grid(len(layers))
    scale = 2.2 if columns <= 4 else 1.25
    height = (1.0 if square else 0.85) * scale * rows + 1
    width = max(3.9 if square else 5.2, scale * columns + 0.6)
    with figure_file(path, width, height) as figure:
        every = figure.subplots(
            rows, columns, sharex=True, sharey=True, squeeze=False
        ).ravel()
        for index, axes in enumerate(every):
            axes.set_visible(index < len(layers))
            axes.tick_params(
                labelsize=8,
                # Where the last row is short, the panels above its gap show ranks.
                labelbottom=index + columns >= len(layers),
            )
        panels = list(every[: len(layers)])
        for axes, layer in zip(panels, layers, strict=True):
            _heading(axes, layer, len(layers))
        yield figure, panels


def _heading(axes: "matplotlib.axes.Axes", layer: int, layers: int) -> None:
    axes.set_title(f"layer {layer}", fontsize=9 if layers <= 16 else 8, pad=3)


def _ranks(axes: "matplotlib.axes.Axes", experts: int) -> np.ndarray:
    """1..E, which the axis shows a few of."""
    axes.set_xticks(np.unique(np.linspace(0, experts, 5).astype(int).clip(1)))
    return np.arange(1, experts + 1)


def _mark(axes: "matplotlib.axes.Axes", k: int) -> None:
    axes.axvline(k, color=GREY, linestyle=":", linewidth=1.2, label=f"k = {k}")


def _label(figure: "matplotlib.figure.Figure", x: str, y: str) -> None:
    figure.supxlabel(x, fontsize=10)
    figure.supylabel(y, fontsize=10)


def _legend(
    figure: "matplotlib.figure.Figure",
    panels: list["matplotlib.axes.Axes"],
    title: str,
) -> None:
    """One for all panels, above them; each label once."""
    entries = {}
    for axes in panels:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            entries.setdefault(label, handle)
    figure.legend(
        list(entries.values()),
        list(entries),
        loc="outside upper left",
        ncols=len(entries),
        title=title,
        title_fontsize=11,
        alignment="left",
        columnspacing=1.2,
        handletextpad=0.5,
    )


def _head_panel(axes: "matplotlib.axes.Axes", layers: LayerStats, name: str) -> None:
    """Each mass a line over layers; bars, set a little apart, for the spread."""
    shown = [layer for layer, classes in layers.items() if name in classes]
    colours = (GREEN, BLUE, VERMILLION)
    for index, (mass, colour) in enumerate(zip(MASSES, colours, strict=True)):
        sizes = np.array(
            [
                [layers[l][name].head_size(mass, q) for q in (0.1, 0.5, 0.9)]
                for l in shown
            ]
        )
        place = np.array(shown) + 0.18 * (index - 1)
        axes.vlines(place, sizes[:, 0], sizes[:, 2], color=colour, linewidth=1.2)
        label = f"{100 * mass:.0f} %"
        look = {"color": colour, "marker": "osD"[index], "markersize": 3.5}
        axes.plot(place, sizes[:, 1], label=label, linewidth=1, **look)
    step = math.ceil(len(shown) / 12)
    axes.set_xticks(shown[::step])
    axes.set_xlim(min(layers) - 0.6, max(layers) + 0.6)
    axes.tick_params(labelsize=8)


def _both(classes: Mapping[str, RouterStats]) -> RouterStats:
    """Statistics of all tokens."""
    first, *rest = classes.values()
    for other in rest:
        first = merge(first, other)
    return first
