"""Figures of results, as small PNG files and as drawings within pages.

Figures are made without pyplot: no display is needed, and no state is left behind.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from jaxmoe.analysis.router_scores import RankCurve
from jaxmoe.files import replacing
from jaxmoe.reports.colours import LIGHT, RUNS
from jaxmoe.reports.inline_svg import inline_svg

if TYPE_CHECKING:
    import matplotlib.axes
    import matplotlib.figure

BLUE, VERMILLION, GREEN, PURPLE = (LIGHT[f"run-{index}"] for index in (2, 1, 3, 5))
MARKERS = "os^DvP"
"""As many as colours, for those who print in grey."""
LINES = ("-", "--", ":")
INK, GREY, PALE = LIGHT["ink"], LIGHT["muted"], LIGHT["faint"]

DPI = 110
COLOURS = 192
"""Colours of a PNG: enough for smooth edges, in a quarter of the bytes of all."""

_STYLE: dict[Any, Any] = {
    "axes.axisbelow": True,
    "axes.edgecolor": GREY,
    "axes.facecolor": "none",
    "axes.grid": False,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 11,
    "font.family": ["DejaVu Sans"],  # comes with matplotlib, so it is always there
    "font.size": 10,
    "grid.color": PALE,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
    "patch.edgecolor": GREY,
    "text.color": INK,
    "text.parse_math": False,  # names of runs are no formulas
    "text.usetex": False,
    "xtick.color": GREY,
    "ytick.color": GREY,
}


class Picture:
    """Where a figure goes that stands in a page.

    svg: the drawing, once it is made.
    """

    def __init__(self, name: str, label: str, png: Path | None = None):
        """Nothing is drawn yet.

        Args:
          name: unique on the page.
          label: what is drawn, for those who do not see it.
          png: a file that is written too.
        """
        self.name, self.label, self.png, self.svg = name, label, png, ""


Target = Path | Picture
"""A PNG file, replaced if it is there, or a place in a page."""


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
    path: Target,
    *,
    title: str,
    label: str = "pass@n (%)",
    width: float = 6.4,
    places: Sequence[int] | None = None,
) -> None:
    """Pass@n in percent over n, a line with a shaded interval for each name.

    Args:
      curves: name -> (values of n, the estimate at each); NaN leaves a gap.
      path: where it goes.
      title: of the figure. label: of the percentages. width: inches.
      places: which run each curve is of, for its look; None: they are counted.

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
    columns = 2 if max(map(len, curves)) <= 5.6 * width else 1
    lines = sum(name.count("\n") + 1 for name in curves)
    height = 0.45 * width + 1.02 + 0.22 * math.ceil(lines / columns)
    with figure_file(path, width, height) as figure:
        axes = figure.add_subplot()
        # All bands together hide no more of the paper than a quarter.
        alpha = min(0.16, 1 - 0.75 ** (1 / len(curves)))
        for index, (name, (counts, estimates)) in enumerate(curves.items()):
            mean, low, high = _percent(estimates)
            look = look_of(index if places is None else places[index])
            axes.fill_between(counts, low, high, color=look["color"], alpha=alpha, lw=0)
            axes.plot(counts, mean, label=name, **look)
        ticks = {count for counts, _ in curves.values() for count in counts}
        _log2_axis(axes, sorted(ticks))
        axes.grid(axis="y")
        axes.set(xlabel="answers per problem, n", ylabel=label)
        axes.set_title(title, pad=10)
        # Below, where it hides no line.
        figure.legend(loc="outside lower center", ncols=columns)


def plot_rank_curves(
    curves: Mapping[str, RankCurve],
    path: Target,
    *,
    title: str,
    **marks: int,
) -> None:
    """Probability by rank on a log scale, a panel for each name (a layer).

    The line is the median over tokens, the band reaches from the 10 % to the 90 %
    quantile.

    Args:
      curves: name -> rank curve.
      path: where it goes.
      title: of the figure.
      marks: ranks to mark, three at most, such as k_keep, k and r.

    Raises:
      ValueError: no curves.
    """
    require_rows(curves, "curves")
    columns = min(len(curves), 4 if len(curves) <= 16 else 8)
    rows = math.ceil(len(curves) / columns)
    width = 2.2 if columns <= 4 else 1.25
    size = max(5.2, width * columns + 0.6), 0.85 * width * rows + 1
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
        if not marks:
            figure.suptitle(title, x=0.01, ha="left", fontsize=11)
            return
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
    path: Target,
    *,
    title: str,
    zero: bool = True,
    limits: tuple[float, float] | None = None,
    width: float = 6.4,
) -> None:
    """Points with their intervals, one below the other, the first on top.

    Args:
      rows: (name, estimate), in percent on the figure.
      path: where it goes.
      title: of the figure.
      zero: the estimates are differences. Draws a line at 0, and greys out those whose
        interval holds it.
      limits: of the axis, in percent; None: what is needed.
      width: inches.

    Raises:
      ValueError: no rows.
    """
    require_rows(rows, "rows")
    mean, low, high = _percent([estimate for _, estimate in rows])
    with figure_file(path, width, 1.2 + 0.36 * len(rows)) as figure:
        axes = figure.add_subplot()
        if zero:
            axes.axvline(0, color=GREY, linewidth=1)
        for place in range(len(rows)):
            unclear = zero and low[place] <= 0 <= high[place]
            colour = GREY if unclear else BLUE
            axes.hlines(place, low[place], high[place], color=colour, linewidth=2)
            face = LIGHT["paper"] if unclear else colour
            axes.plot(mean[place], place, "o", color=colour, markerfacecolor=face)
        axes.set_yticks(range(len(rows)), [name for name, _ in rows])
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlim(limits)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.grid(axis="x")
        axes.set_xlabel("difference (percentage points)" if zero else "percent")
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)


# -- parts of figures --------------------------------------------------------------


def look_of(index: int) -> dict[str, Any]:
    """Colour, marker and line of a run; no two of the first 18 are alike."""
    turn, place = divmod(index, len(RUNS))
    return {
        "color": LIGHT[RUNS[place]],
        "marker": MARKERS[(place + turn) % len(MARKERS)],
        "markersize": 4.5,
        "markeredgecolor": LIGHT["paper"],
        "markeredgewidth": 0.6,
        "linestyle": LINES[turn % len(LINES)],
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
    marks: Mapping[str, int],
) -> None:
    ranks = np.arange(1, len(curve.mean) + 1)
    log_axis(axes)
    axes.set_xticks(np.unique(np.linspace(0, len(ranks), 5).astype(int).clip(1)))
    looks = zip((GREEN, VERMILLION, PURPLE), LINES, strict=True)
    for (name, rank), (colour, dash) in zip(marks.items(), looks, strict=False):
        label = f"{name} = {rank}"
        axes.axvline(rank, color=colour, linewidth=1.2, linestyle=dash, label=label)
    axes.fill_between(ranks, curve.low, curve.high, color=BLUE, alpha=0.2, lw=0)
    axes.plot(ranks, curve.middle, color=BLUE, linewidth=1.5)
    axes.tick_params(labelsize=8)


def log_axis(axes: "matplotlib.axes.Axes") -> None:
    """Powers of ten upwards, written as numbers."""
    axes.set_yscale("log")
    axes.minorticks_off()
    axes.yaxis.set_major_formatter("{x:g}")


def _percent(estimates: Sequence[Estimate]) -> list[np.ndarray]:
    """Means, lower and upper bounds in percent."""
    table = np.array([(e.mean, e.low, e.high) for e in estimates])
    return list(100 * table.T)


def require_rows(given: Mapping[str, Any] | Sequence[Any], name: str) -> None:
    """Raises a ValueError where there is nothing to plot."""
    if not given:
        raise ValueError(f"{name} must hold at least one to plot, found none; add one")


# -- files -------------------------------------------------------------------------


def has_matplotlib() -> bool:
    """Whether figures can be drawn."""
    try:
        require_matplotlib()
    except ImportError:
        return False
    return True


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
    path: Target, width: float, height: float
) -> Iterator["matplotlib.figure.Figure"]:
    """A figure in the house style; it goes where it is to when the block ends well."""
    require_matplotlib()
    import matplotlib
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # whatever the user's own style is
        matplotlib.rcParams.update(_STYLE)
        figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
        yield figure
        _save(figure, path)


def _save(figure: "matplotlib.figure.Figure", path: Target) -> None:
    if isinstance(path, Picture):
        if path.png is not None:
            _write_png(figure, path.png)
        path.svg = inline_svg(figure, path.name, path.label)
    else:
        _write_png(figure, path)


def _write_png(figure: "matplotlib.figure.Figure", path: Path) -> None:
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
    with replacing(path) as file:
        image.save(file, format="png", optimize=True)
