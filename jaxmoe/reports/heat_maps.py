"""Heat maps of a sweep: a number for each pair of settings, a panel for each third."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from jaxmoe.reports.plots import figure_file

_PER_INCH = 11
"""Characters of a title in an inch."""


def plot_heat_maps(
    panels: Mapping[str, Float[np.ndarray, "Y X"]],
    path: Path,
    *,
    x: tuple[str, Sequence[float]],
    y: tuple[str, Sequence[float]],
    title: str,
    unit: str = "points",
) -> None:
    """Differences in percentage points; blue is better than the baseline, red worse.

    All panels share one scale, symmetric about 0, and every cell shows its number.

    Args:
      panels: name -> differences as fractions; NaN where there is none.
      path: the PNG file, replaced if it is there.
      x, y: name and values of the columns, and of the rows.
      title: of the figure. unit: of the numbers shown.

    Raises:
      ValueError: no panels, or one of another shape than y by x.
    """
    shape = (len(y[1]), len(x[1]))
    if not panels or any(panel.shape != shape for panel in panels.values()):
        found = {name: panel.shape for name, panel in panels.items()} or "none"
        raise ValueError(f"expected panels of shape {shape}, found {found}")
    columns = min(len(panels), 4)
    rows = math.ceil(len(panels) / columns)
    known = [abs(panel[np.isfinite(panel)]) for panel in panels.values()]
    most = 100 * max(np.concatenate(known).max(initial=0.0), 0.001)
    size = 1.2 + columns * (0.75 * shape[1] + 0.8), 1.2 + rows * (0.5 * shape[0] + 0.9)
    with figure_file(path, max(size[0], 4.5), size[1]) as figure:
        grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
        image = None
        for axes, (name, panel) in zip(grid.flat, panels.items(), strict=False):
            image = axes.imshow(100 * panel, cmap="RdBu", vmin=-most, vmax=most)
            axes.set_title(name)
            axes.set_xticks(range(shape[1]), [f"{value:g}" for value in x[1]])
            axes.set_yticks(range(shape[0]), [f"{value:g}" for value in y[1]])
            for (row, column), value in np.ndenumerate(100 * panel):
                dark = abs(value) > 0.6 * most
                text = f"{value:+.1f}" if np.isfinite(value) else "n/a"
                colour = "white" if dark else "black"
                axes.text(column, row, text, ha="center", va="center", color=colour)
        for axes in grid.flat[len(panels) :]:
            axes.set_visible(False)
        for axes in grid[-1]:
            axes.set_xlabel(x[0])
        for axes in grid[:, 0]:
            axes.set_ylabel(y[0])
        # Figures of few columns are narrower than the title's one line.
        lines = textwrap.fill(title, int(figure.get_figwidth() * _PER_INCH))
        figure.suptitle(lines, x=0.01, ha="left", fontsize=11)
        assert image is not None
        figure.colorbar(image, ax=grid, label=unit, shrink=0.8)
