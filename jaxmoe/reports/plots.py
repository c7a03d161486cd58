"""Figures of results, as small PNG files. The only importer of matplotlib.

Figures are made without pyplot: no display is needed, and no state is left behind.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from jaxmoe.analysis.router_scores import RankCurve

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

BLUE, VERMILLION, GREEN = "#0072B2", "#D55E00", "#009E73"
PALETTE = (BLUE, VERMILLION, GREEN, "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colours, told apart by the colour-blind; without the pale yellow."""
MARKERS = "osD^vPX"
"""As many as colours, for those who print in grey."""
GREY = "#767676"

DPI = 110
COLOURS = 192
"""Colours of a PNG: enough for smooth edges, in a quarter of the bytes of all."""

_STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#444444",
    "axes.grid": False,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "font.family": ["DejaVu Sans"],  # comes with matplotlib, so it is always there
    "font.size": 10,
    "grid.color": "#E4E4E4",
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "text.usetex": False,
}


@runtime_checkable
class Estimate(Protocol):
    """A mean with its bounds, as fractions: `evals.metrics.Interval`, or its like."""

    @property
    def mean(self) -> float:
        """The mean."""
        ...

    @property
    def low(self) -> float:
        """Its lower bound."""
        ...

    @property
    def high(self) -> float:
        """Its upper bound."""
        ...


def plot_pass_at(
    curves: Mapping[str, tuple[Sequence[int], Sequence[Estimate]]],
    path: Path,
    *,
    title: str,
) -> None:
    """Pass@n in percent over n, a line with a shaded interval for each name.

    Args:
      curves: name -> (values of n, the estimate at each).
      path: the PNG file, replaced if it is there.
      title: of the figure.

    Raises:
      ValueError: no curves, or one with other than one estimate for each n.
    """
    require_rows(curves, "curves")
    for name, (counts, estimates) in curves.items():
        if len(counts) != len(estimates) or not counts:
            raise ValueError(
                f"{name} must have one estimate for each n, found {len(estimates)} for "
                f"{len(counts)}; pass both in one order"
            )
    columns = 2 if max(map(len, curves)) <= 36 else 1
    height = 3.9 + 0.22 * math.ceil(len(curves) / columns)
    with figure_file(path, 6.4, height) as figure:
        axes = figure.add_subplot()
        for index, (name, (counts, estimates)) in enumerate(curves.items()):
            mean, low, high = _percent(estimates)
            look = _look(index)
            axes.fill_between(counts, low, high, color=look["color"], alpha=0.15, lw=0)
            axes.plot(counts, mean, label=name, **look)
        ticks = {count for counts, _ in curves.values() for count in counts}
        _log2_axis(axes, sorted(ticks))
        axes.grid(axis="y")
        axes.set(xlabel="answers per problem, n", ylabel="pass@n (%)")
        axes.set_title(title, pad=10)
        # Below, where it hides no line.
        figure.legend(loc="outside lower center", ncols=columns)


def plot_rank_curves(
    curves: Mapping[str, RankCurve],
    path: Path,
    *,
    k_keep: int,
    k: int,
    r: int,
    title: str,
) -> None:
    """Probability by rank on a log scale, a panel for each name (a layer).

    The line is the median over tokens, the band reaches from the 10 % to the 90 %
    quantile.

    Args:
      curves: name -> rank curve.
      path: the PNG file, replaced if it is there.
      k_keep, k, r: ranks to mark: always taken, taken in all, drawn from.
      title: of the figure.

    Raises:
      ValueError: no curves.
    """
    require_rows(curves, "curves")
    columns = min(len(curves), 4 if len(curves) <= 16 else 8)
    rows = math.ceil(len(curves) / columns)
    width = 2.2 if columns <= 4 else 1.25
    size = max(5.2, width * columns + 0.6), 0.85 * width * rows + 1
    marks = {"k_keep": (k_keep, GREEN), "k": (k, VERMILLION), "r": (r, "#CC79A7")}
    with figure_file(path, *size) as figure:
        panels = figure.subplots(
            rows, columns, sharex=True, sharey=True, squeeze=False
        ).ravel()
        for axes, (name, curve) in zip(panels, curves.items(), strict=False):
            _rank_panel(axes, curve, marks)
            axes.set_title(name, fontsize=9, pad=3)
        for index, axes in enumerate(panels):
            axes.set_visible(index < len(curves))
            # Where the last row is short, the panels above its gap show the ranks.
            axes.tick_params(labelbottom=index + columns >= len(curves))
        figure.supxlabel("rank of the expert", fontsize=10)
        figure.supylabel("router probability", fontsize=10)
        figure.legend(
            *panels[0].get_legend_handles_labels(),
            loc="outside upper left",
            ncols=len(marks),
            title=title,
            title_fontsize=11,
            alignment="left",
        )


def plot_bars(
    rows: Sequence[tuple[str, Estimate]],
    path: Path,
    *,
    title: str,
    zero: bool = True,
) -> None:
    """Points with their intervals, one below the other, the first on top.

    Args:
      rows: (name, estimate), in percent on the figure.
      path: the PNG file, replaced if it is there.
      title: of the figure.
      zero: the estimates are differences. Draws a line at 0, and greys out those whose
        interval holds it.

    Raises:
      ValueError: no rows.
    """
    require_rows(rows, "rows")
    mean, low, high = _percent([estimate for _, estimate in rows])
    with figure_file(path, 6.4, 1.2 + 0.36 * len(rows)) as figure:
        axes = figure.add_subplot()
        if zero:
            axes.axvline(0, color="#444444", linewidth=1)
        for place in range(len(rows)):
            unclear = zero and low[place] <= 0 <= high[place]
            colour = GREY if unclear else BLUE
            axes.hlines(place, low[place], high[place], color=colour, linewidth=2)
            face = "white" if unclear else colour
            axes.plot(mean[place], place, "o", color=colour, markerfacecolor=face)
        axes.set_yticks(range(len(rows)), [name for name, _ in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        axes.set_xlabel("difference (percentage points)" if zero else "percent")
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)


# -- parts of figures --------------------------------------------------------------


def _look(index: int) -> dict[str, Any]:
    """Colour and marker of a line; the second round through them is dashed."""
    turn, place = divmod(index, len(PALETTE))
    style = "--" if turn % 2 else "-"
    return {
        "color": PALETTE[place],
        "marker": MARKERS[place],
        "markersize": 4.5,
        "linestyle": style,
    }


def _log2_axis(axes: "matplotlib.axes.Axes", ticks: Sequence[int]) -> None:
    """A log2 axis that names the values themselves, 8 of them at most."""
    axes.set_xscale("log", base=2)
    shown = ticks[:: math.ceil(len(ticks) / 8)]
    axes.set_xticks(shown, [str(tick) for tick in shown])
    axes.minorticks_off()


def _rank_panel(
    axes: "matplotlib.axes.Axes",
    curve: RankCurve,
    marks: Mapping[str, tuple[int, str]],
) -> None:
    ranks = np.arange(1, len(curve.mean) + 1)
    axes.set_yscale("log")
    axes.minorticks_off()
    axes.set_xticks(np.unique(np.linspace(0, len(ranks), 5).astype(int).clip(1)))
    for (name, (rank, colour)), dash in zip(
        marks.items(), ("-", "--", ":"), strict=True
    ):
        label = f"{name} = {rank}"
        axes.axvline(rank, color=colour, linewidth=1.2, linestyle=dash, label=label)
    axes.fill_between(ranks, curve.low, curve.high, color=BLUE, alpha=0.2, lw=0)
    axes.plot(ranks, curve.middle, color=BLUE, linewidth=1.5)
    axes.tick_params(labelsize=8)


def _percent(estimates: Sequence[Estimate]) -> list[np.ndarray]:
    """Means, lower and upper bounds in percent."""
    table = np.array([(e.mean, e.low, e.high) for e in estimates])
    return list(100 * table.T)


def require_rows(given: Mapping[str, Any] | Sequence[Any], name: str) -> None:
    """Raises a ValueError where there is nothing to plot."""
    if not given:
        raise ValueError(f"{name} must hold at least one to plot, found none; add one")


# -- files -------------------------------------------------------------------------


def require_matplotlib() -> None:
    """Raises an ImportError that says what to install, where there is none."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f'plots need matplotlib, found none ({error}); pip install "jaxmoe[plots]"'
        ) from error


@contextmanager
def figure_file(
    path: Path, width: float, height: float
) -> Iterator["matplotlib.figure.Figure"]:
    """A figure in the house style; saved to `path` when the block ends well."""
    require_matplotlib()
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whatever the user's own style is
        matplotlib.rcParams.update(_STYLE)
        figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
        yield figure
        _save(figure, path)


def _save(figure: "matplotlib.figure.Figure", path: Path) -> None:
    """Writes a PNG under a name beside `path` first, so that no half of one is seen."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image  # matplotlib needs it, so it is there

    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    drawn = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    # Other methods mix rare colours, so that a thin line would lose its own; k-means
    # keeps those of large areas, so that a pale band does not take its neighbour's.
    image = drawn.quantize(
        COLOURS,
        method=Image.Quantize.MAXCOVERAGE,
        kmeans=2,
        dither=Image.Dither.NONE,
    )
    partial = path.with_name(f".{path.name}.partial")
    try:
        image.save(partial, format="png", optimize=True)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
