"""Heat maps of a sweep: a number for each pair of settings, a panel for each third."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from jaxmoe.reports.colours import LIGHT
from jaxmoe.reports.plots import GREY, INK, PALE, Target, figure_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_PER_INCH = 11
"""Characters of a title in an inch."""
_LEAST = 1.0
"""Points; the full colour is never less."""
_FULL = 0.6
"""Opacity of the full colour; text is read on it."""
NOTE = "blue: better, orange: worse; no colour: the 95 % interval holds 0"


def plot_heat_maps(
    panels: Mapping[str, Float[np.ndarray, "Y X"]],
    path: Target,
    *,
    x: tuple[str, Sequence[float]],
    y: tuple[str, Sequence[float]],
    title: str,
    bounds: Mapping[str, Float[np.ndarray, "Y X 2"]] | None = None,
) -> None:
    """Differences in percentage points; blue is better than the baseline, orange worse.

    All panels share one scale. A cell whose interval holds 0 has no colour, and the
    full colour stands for twice the usual half-width of an interval, or for the largest
    difference where that is more: a map of nothing but noise is nearly blank.

    Args:
      panels: name -> differences as fractions; NaN where there is none.
      path: where it goes.
      x, y: name and values of the columns, and of the rows.
      title: of the figure.
      bounds: name -> bounds of the differences' intervals; None: not known.

    Raises:
      ValueError: no panels, or one of another shape than y by x.
    """
    shape = (len(y[1]), len(x[1]))
    if not panels or any(panel.shape != shape for panel in panels.values()):
        found = {name: panel.shape for name, panel in panels.items()} or "none"
        raise ValueError(f"expected panels of shape {shape}, found {found}")
    unknown = np.full((*shape, 2), np.nan)
    edges = {name: (bounds or {}).get(name, unknown) for name in panels}
    most = _full_colour(panels, edges)
    wide, high = (0.75, 0.5) if bounds is None else (1.05, 0.55)
    columns = min(len(panels), 4, max(1, int(11 / (wide * shape[1] + 0.4))))
    rows = math.ceil(len(panels) / columns)
    size = 0.7 + columns * (wide * shape[1] + 0.2), 1.4 + rows * (high * shape[0] + 0.4)
    with figure_file(path, max(size[0], 4.5), size[1]) as figure:
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        for axes, (name, panel) in zip(grid.flat, panels.items(), strict=False):
            axes.set(xlim=(-0.5, shape[1] - 0.5), ylim=(shape[0] - 0.5, -0.5))
            axes.set_title(name, fontsize=10)
            axes.set_xticks(range(shape[1]), [f"{value:g}" for value in x[1]])
            axes.set_yticks(range(shape[0]), [f"{value:g}" for value in y[1]])
            axes.tick_params(length=0)
            for spine in axes.spines.values():
                spine.set_visible(False)
            for place, value in np.ndenumerate(100 * panel):
                _cell(axes, place, value, 100 * edges[name][place], most)
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)
        for axes in grid[-1]:
            axes.set_xlabel(x[0])
        for axes in grid[:, 0]:
            axes.set_ylabel(y[0])
        # Figures of few columns are narrower than the title's one line.
        lines = int(figure.get_figwidth() * _PER_INCH)
        figure.suptitle(textwrap.fill(title, lines), x=0.01, ha="left", fontsize=11)
        if bounds is not None:
            note = textwrap.fill(NOTE, int(1.2 * lines))
            figure.supxlabel(note, x=0.01, ha="left", fontsize=8, color=GREY)


def _full_colour(
    panels: Mapping[str, Float[np.ndarray, "Y X"]],
    bounds: Mapping[str, Float[np.ndarray, "Y X 2"]],
) -> float:
    """Percentage points that have the full colour."""
    values = np.concatenate([abs(panel.ravel()) for panel in panels.values()])
    widths = np.concatenate(
        [np.ptp(edges, axis=-1).ravel() for edges in bounds.values()]
    )
    known = widths[np.isfinite(widths)]
    usual = float(np.median(known)) if known.size else 0.0  # twice the half-width
    largest = values[np.isfinite(values)].max(initial=0.0)
    return max(100 * float(largest), 100 * usual, _LEAST)


def _cell(
    axes: "Axes",
    place: tuple[int, ...],
    value: float,
    bounds: Float[np.ndarray, "2"],
    most: float,
) -> None:
    """A square with its number, and the interval below it."""
    from matplotlib.patches import Rectangle

    row, column = place
    low, high = bounds
    shown = np.isfinite(value) and not low <= 0 <= high
    colour = LIGHT["better" if value > 0 else "worse"] if shown else "none"
    alpha = _FULL * min(abs(value) / most, 1) if shown else None
    corner = (column - 0.47, row - 0.47)
    axes.add_patch(Rectangle(corner, 0.94, 0.94, fc=colour, alpha=alpha, lw=0))
    axes.add_patch(Rectangle(corner, 0.94, 0.94, fc="none", ec=PALE, lw=0.8))
    text = f"{value:+z.1f}".replace("-", "\N{MINUS SIGN}")
    middle: dict[str, Any] = {"ha": "center", "color": INK if shown else GREY}
    if not np.isfinite(value):
        axes.text(column, row, "n/a", va="center", **middle)
    elif not np.isfinite(low):
        axes.text(column, row, text, va="center", **middle)
    else:
        below = f"[{low:z.1f}, {high:z.1f}]".replace("-", "\N{MINUS SIGN}")
        axes.text(column, row, text, va="bottom", **middle)
        axes.text(column, row + 0.08, below, va="top", fontsize=8, **middle)
