"""Heads of routers, of one or several checkpoints: rows, a table, a figure."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxmoe.analysis.cutting import Cutting
from jaxmoe.analysis.router_heads import PLACES, Heads
from jaxmoe.analysis.router_pass import LayerStats
from jaxmoe.analysis.router_stats import RouterStats, merge
from jaxmoe.evals.metrics import Interval
from jaxmoe.reports.comparison_csv import csv_text
from jaxmoe.reports.counterfactual_table import with_bounds
from jaxmoe.reports.plots import GREY, Target, figure_file, look_of, require_rows

HEAD = ("checkpoint", "layer", "tokens", "positions", "count", "normal")
MEASURES = ("steepness", "head", "tail", "mass")
NOTE = """\
steepness: fall of log p over the head's ranks (1 to k // 2 + 1), over the fall behind
them (to 4 k), a rank each. normal: the same of scores without structure, independent
normal numbers; above it, with the interval, there is a head. mass: probability of the
head. Intervals: 95 %, over prompts (jackknife)."""


Row = dict[str, Any]


def rows(heads: Mapping[str, Heads], *, whole: bool = False) -> Iterator[Row]:
    """All layers, classes and positions of each checkpoint, together and apart.

    whole: only those of all layers and positions together.
    """
    for name, found in heads.items():
        for layer in (None, *(() if whole else found.layers)):
            for of_class in (None, *found.classes):
                for place in (None, *range(0 if whole else len(PLACES) + 1)):
                    of = {"layer": layer, "of_class": of_class, "place": place}
                    if not (count := found.tokens(**of)):
                        continue
                    row: dict[str, Any] = {
                        "checkpoint": name,
                        "layer": "all" if layer is None else layer,
                        "tokens": of_class or "all",
                        "positions": place_name(place),
                        "count": count,
                        "normal": found.ranks.normal,
                        "steepness": found.steepness(**of),
                    }
                    yield row | {m: found.mean(m, **of) for m in MEASURES[1:]}


def place_name(place: int | None) -> str:
    """Which positions a bin has: from the first to before the last."""
    if place is None:
        return "all"
    bounds = (0, *PLACES)
    if place == len(PLACES):
        return f"{bounds[place]}.."
    return f"{bounds[place]}..{bounds[place + 1] - 1}"


def heads_csv(every: Sequence[Row]) -> str:
    """The rows; three columns for each measure."""
    bounds = [n for m in MEASURES for n in (m, f"{m} low", f"{m} high")]
    cells = (
        (*(row[n] for n in HEAD), *(v for m in MEASURES for v in _three(row[m])))
        for row in every
    )
    return csv_text((*HEAD, *bounds), cells)


def as_json(every: Sequence[Row]) -> list[Row]:
    """Rows with intervals as [mean, low, high], null where there is none."""
    return [{name: _or_null(value) for name, value in row.items()} for row in every]


def shown_rows(every: Sequence[Row]) -> list[list[str]]:
    """Those of a page: by class, all positions; then by layer."""
    return [
        [*(str(row[n]) for n in HEAD[:-1]), f"{row['normal']:.2f}"]
        + [with_bounds(row[m]) for m in MEASURES]
        for row in every
        if row["positions"] == "all"
        and (row["layer"] == "all" or row["tokens"] == "all")
    ]


def heads_table(heads: Mapping[str, Heads]) -> str:
    """A line a checkpoint and class, all layers together."""
    lines = [
        f"{row['tokens']:<10} {row['count']:8}  {with_bounds(row['steepness']):>24}  "
        f"{row['normal']:6.2f}  {row['mass'].mean:6.3f}  {row['checkpoint']}"
        for row in rows(heads, whole=True)
    ]
    head = f"{'tokens':<10} {'count':>8}  {'steepness':>24}  {'normal':>6}  {'mass':>6}"
    head += "  checkpoint"
    return "\n".join([head, *lines, "", NOTE])


CUTTING_HEAD = ("experts", "mass", "log p lost (nats)", "accuracy lost (next token)")


def cutting_rows(found: Cutting, layers: LayerStats) -> list[Row]:
    """By m: the mean probability of the best m experts, and what is lost with them.

    layers: of the same checkpoint; all layers and classes count alike by token.
    """
    every = [stats for classes in layers.values() for stats in classes.values()]
    mass = _merged(every).mass
    return [
        {
            "experts": size,
            "mass": float(mass[size - 1]),
            "log p lost": found.logprob_lost(size),
            "accuracy lost": found.accuracy_lost(size),
        }
        for size in found.sizes[:-1]
    ]


def cutting_table(found: Cutting, layers: LayerStats) -> str:
    """What each number of experts loses on next tokens."""
    lines = [
        f"{row['experts']:7}  {row['mass']:5.3f}  "
        f"{with_bounds(row['log p lost']):>26}  {row['accuracy lost']}"
        for row in cutting_rows(found, layers)
    ]
    head = f"experts   mass  {'log p lost (nats)':>26}  next-token accuracy lost"
    said = (
        f"of {found.tokens} tokens that are there, against {found.sizes[-1]} experts."
    )
    return "\n".join([head, *lines, "", said])


def plot_steepness(heads: Mapping[str, Heads], path: Target, *, title: str) -> None:
    """Steepness over relative depth, a line a checkpoint; dotted: normal scores."""
    require_rows(list(heads), "checkpoints")
    with figure_file(path, 6.4, 3.8) as figure:
        axes = figure.add_subplot()
        for index, (name, found) in enumerate(heads.items()):
            depth = np.array(found.layers) / max(found.layers[-1], 1)
            each = [found.steepness(layer=layer) for layer in found.layers]
            look = look_of(index)
            normal: Any = {"color": look["color"], "linestyle": ":", "linewidth": 1.2}
            axes.axhline(found.ranks.normal, **normal)
            axes.plot(depth, [one.mean for one in each], label=name, **look)
            bounds = np.array([(one.low, one.high) for one in each])
            if np.isfinite(bounds).any():
                axes.vlines(depth, *bounds.T, color=look["color"], linewidth=1.2)
        axes.set_ylim(bottom=0)
        axes.grid(axis="y")
        axes.set(xlabel="depth (layer over the last one)", ylabel="steepness")
        figure.legend(loc="outside lower center", ncols=2)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)


def cutting_cells(every: Sequence[Row]) -> list[list[str]]:
    """Rows of a page."""
    return [
        [
            str(row["experts"]),
            f"{row['mass']:.3f}",
            with_bounds(row["log p lost"]),
            str(row["accuracy lost"]),
        ]
        for row in every
    ]


def plot_cutting(every: Sequence[Row], path: Target, *, title: str) -> None:
    """What so few experts lose, over the probability that they have."""
    require_rows(every, "rows")
    with figure_file(path, 6.4, 3.4) as figure:
        panels = figure.subplots(1, 2)
        mass = [row["mass"] for row in every]
        for axes, name, scale, label in (
            (panels[0], "log p lost", 1, "log p lost (nats)"),
            (panels[1], "accuracy lost", 100, "accuracy lost (points)"),
        ):
            three = scale * np.array([_three(row[name]) for row in every])
            axes.axhline(0, color=GREY, linewidth=0.8)
            axes.plot(mass, three[:, 0], **look_of(1))
            axes.vlines(mass, three[:, 1], three[:, 2], color=look_of(1)["color"])
            for row, at, value in zip(every, mass, three[:, 0], strict=True):
                place: Any = {"xytext": (4, 4), "textcoords": "offset points"}
                axes.annotate(str(row["experts"]), (at, value), fontsize=8, **place)
            axes.grid(axis="y")
            axes.set(xlabel="probability of the experts kept", ylabel=label)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)


def _merged(every: list[RouterStats]) -> RouterStats:
    whole = every[0]
    for stats in every[1:]:
        whole = merge(whole, stats)
    return whole


def _three(found: Interval) -> tuple[float, float, float]:
    return found.mean, found.low, found.high


def _or_null(value: Any) -> Any:
    if not isinstance(value, Interval):
        return value
    return [number if math.isfinite(number) else None for number in _three(value)]
