"""The charts of a comparison, for its page."""

import math
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup

from jaxmoe.analysis.router_scores import RankCurve
from jaxmoe.evals.comparison import Comparison, RunSummary
from jaxmoe.evals.metrics import Interval
from jaxmoe.reports.comparison_figures import legend_label
from jaxmoe.reports.plots import (
    GREY,
    INK,
    Picture,
    figure_file,
    look_of,
    plot_bars,
    plot_pass_at,
    plot_rank_curves,
)
from jaxmoe.reports.report_words import counted, is_finite, shortened
from jaxmoe.text.printable import clean

WIDTH = 4.6
"""Inches; so wide, letters can be read on a phone."""
NAME = 24
"""Characters of a line beside an interval; a name has two lines at most."""


@dataclass(frozen=True)
class Chart:
    """A drawing and what is to be said of it."""

    svg: Markup
    caption: str


def chart_of(picture: Picture, caption: str) -> Chart:
    """What was drawn; `inline_svg` has made text of all that is no drawing."""
    return Chart(Markup(picture.svg), caption)


def curve(identifier: str, comparison: Comparison, name: str) -> Chart:
    """A curve of all runs that have it, each in the look of its place."""
    lines: dict[str, tuple[Sequence[int], Sequence[Interval]]] = {}
    looks = []
    for index, run in enumerate(comparison.runs):
        if name in run.curves:
            found = run.curves[name]
            label = legend_label(run.name, taken=set(lines), line=40)
            lines[label] = found.ks, found.intervals
            looks.append(index)
    title = clean(name)
    picture = Picture(identifier, f"{title} over the number of answers per problem")
    options: dict[str, Any] = {"label": "percent", "width": WIDTH, "places": looks}
    plot_pass_at(lines, picture, title=title, **options)
    caption = f"{name}: means over problems, and their 95 % intervals as bands."
    return chart_of(picture, caption)


def differences(comparison: Comparison) -> list[Chart]:
    """One for each measure, a row for each run; of one pair of runs one with all."""
    known = [d for d in comparison.differences if is_finite(d.interval)]
    alone = len({(d.a, d.b) for d in known}) == 1
    rows: dict[str, list[tuple[str, Interval]]] = {}
    for found in known:
        pair = f"{found.b} less {found.a}"
        part, name = (pair, found.measure) if alone else (found.measure, found.b)
        row = "\n".join(textwrap.wrap(shortened(clean(name), 2 * NAME - 4), NAME))
        rows.setdefault(part, []).append((row, found.interval))
    low = min((d.interval.low for d in known), default=0.0)
    high = max((d.interval.high for d in known), default=0.0)
    room = 4 * max(high - low, 0.01)
    limits = min(100 * low, 0) - room, max(100 * high, 0) + room
    charts = []
    for place, (part, some) in enumerate(rows.items()):
        title = shortened(clean(part), 48)
        picture = Picture(f"difference-{place}", f"differences of {title}")
        options: dict[str, Any] = {"limits": limits, "width": WIDTH}
        plot_bars(some, picture, title=title, **options)
        caption = f"Differences, {part}; hollow: the interval holds 0."
        charts.append(chart_of(picture, caption))
    return charts


def problems(comparison: Comparison) -> list[Chart]:
    """Right answers of the baseline against those of each other run; of one, counts."""
    first, *others = comparison.runs
    if not others:
        return [_counts(first)]
    return [_scatter(f"problems-{i}", first, b, i + 1) for i, b in enumerate(others)]


def sides_in_words(a: RunSummary, b: RunSummary) -> str:
    """On how many problems b has more right answers than a."""
    more, same, less = sides(a, b)
    return (
        f"{b.name} is more often right than {a.name} on {counted(more, 'problem')}, as "
        f"often on {same}, less often on {less}."
    )


def sides(a: RunSummary, b: RunSummary) -> tuple[int, int, int]:
    """Problems that b answers right more often than a, as often, and less often.

    By the share of each run's own n answers.
    """
    signs = [
        (right_b * a.n > right_a * b.n) - (right_b * a.n < right_a * b.n)
        for right_a, right_b in zip(a.right, b.right, strict=True)
    ]
    return signs.count(1), signs.count(0), signs.count(-1)


def _scatter(identifier: str, a: RunSummary, b: RunSummary, index: int) -> Chart:
    """Problems with the same two counts are one circle, whose area is their number."""
    places = Counter(zip(a.right, b.right, strict=True))
    names = [shortened(clean(run.name)) for run in (a, b)]
    picture = Picture(identifier, f"right answers of {names[1]} against {names[0]}")
    with figure_file(picture, 3.6, 3.4) as figure:
        axes = figure.add_subplot()
        axes.plot([0, a.n], [0, b.n], color=GREY, linewidth=1, linestyle="--")
        x, y = np.array(list(places), int).reshape(-1, 2).T
        area = np.minimum(28 * np.array(list(places.values())), 900)
        colour = look_of(index)["color"]
        axes.scatter(x, y, s=area, color=colour, alpha=0.25, edgecolors="none")
        axes.scatter(x, y, s=area, color="none", edgecolors=colour)
        for (across, up), count in places.items():
            if count >= 5:
                style: dict[str, Any] = {
                    "ha": "center",
                    "va": "center",
                    "fontsize": 8,
                    "color": INK,
                }
                axes.text(across, up, str(count), **style)
        margin = 0.08
        for limit, n in ((axes.set_xlim, a.n), (axes.set_ylim, b.n)):
            limit(-margin * max(n, 1), (1 + margin) * max(n, 1))
        for axis, run in ((axes.xaxis, a), (axes.yaxis, b)):
            axis.set_ticks(np.unique(np.linspace(0, run.n, 5).round().astype(int)))
        axes.set_xlabel(names[0])
        axes.set_ylabel(names[1])
    caption = (
        f"Right answers to each problem, of {a.n}: {a.name} across, {b.name} up. Areas "
        "are numbers of problems."
    )
    return chart_of(picture, caption)


def _counts(run: RunSummary) -> Chart:
    """How many problems have 0, 1, ... n right answers."""
    counts = [run.right.count(count) for count in range(run.n + 1)]
    label = f"problems by right answers: {counts[0]} with none, {counts[-1]} with all"
    picture = Picture("problems-0", label)
    with figure_file(picture, WIDTH, 2.6) as figure:
        axes = figure.add_subplot()
        axes.bar(range(run.n + 1), counts, color=look_of(0)["color"], width=0.8)
        axes.set_xticks(np.unique(np.linspace(0, run.n, 9).round().astype(int)))
        axes.locator_params(axis="y", integer=True)
        axes.grid(axis="y")
        axes.set(xlabel=f"right answers of {run.n}", ylabel="problems")
    return chart_of(picture, f"How often problems were answered right by {run.name}.")


def routers(router: Mapping[str, Mapping[str, Any]]) -> Chart:
    """Router probability by rank of the expert, a panel for each layer.

    Raises:
      ValueError: a curve without a mean, low and high for each rank.
    """
    curves = {}
    for layer, found in router.items():
        parts = [np.array([*found[part]], float) for part in ("mean", "low", "high")]
        if len({len(part) for part in parts}) != 1 or not len(parts[0]):
            raise ValueError(
                f"{layer} must have a mean, low and high for each rank, found "
                f"{[len(part) for part in parts]}; pass the three lists of one rank "
                "curve"
            )
        mean, low, high = parts
        least = mean[mean > 0].min(initial=0.1) / 10
        low = np.maximum(low, least)
        total, unknown = np.cumsum(mean), (2, 3, math.nan, math.nan)  # not drawn
        curves[clean(layer)] = RankCurve(mean, low, mean, high, total, *unknown)
    picture = Picture("router", "router probability by rank of the expert")
    plot_rank_curves(curves, picture, title="Router probability by rank")
    caption = (
        "Probability that the router gives to an expert, over the expert"
        "\N{RIGHT SINGLE QUOTATION MARK}s rank: mean over tokens, and a band between "
        "the low and high quantile; log scale."
    )
    return chart_of(picture, caption)
