"""The tables of a comparison as HTML: measures, differences, numbers, manifests."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from jaxmoe.evals.comparison import Comparison, Curve
from jaxmoe.evals.metrics import Interval
from jaxmoe.reports import report_words as words
from jaxmoe.reports.html_parts import element, folded, long_text, name, table, text
from jaxmoe.reports.svg_chart import swatch
from jaxmoe.reports.svg_panels import forest_axis, forest_head, forest_row

MOST_PROBLEMS = 2000
"""Problems up to which each has a row; of more, a page would be slow."""
NOT_THERE = element("span", "\N{EN DASH}", class_="note", title="not recorded")


def run_label(index: int, run: str) -> str:
    """A run's name with the piece of line that stands for it in the figures."""
    return element("span", swatch(index), name(run), class_="run")


def measures(comparison: Comparison) -> str:
    """A row for each measure, a column for each run; percent with intervals."""
    names = _all_keys([run.measures for run in comparison.runs])
    columns = [
        _intervals([run.measures.get(key) for key in names]) for run in comparison.runs
    ]
    rows = [[text(key), *cells] for key, *cells in zip(names, *columns, strict=True)]
    caption = "Measures in percent, with 95 % intervals in brackets."
    return _of_runs("measure", caption, comparison, rows)


def numbers(comparison: Comparison) -> str:
    """A row for each plain number, a column for each run."""
    names = _all_keys([run.numbers for run in comparison.runs])
    rows = []
    for key in names:
        known = [run.numbers[key] for run in comparison.runs if key in run.numbers]
        shown = iter(words.numbers(known))
        cells = [
            next(shown) if key in run.numbers else NOT_THERE for run in comparison.runs
        ]
        rows.append([text(key), *cells])
    caption = "Lengths, answers cut off, variety, and other numbers."
    return _of_runs("number", caption, comparison, rows)


def differences(comparison: Comparison, holm: Sequence[float] | None) -> str:
    """A row for each difference, those of a pair of runs under one heading."""
    if not comparison.differences:
        return ""
    axis = forest_axis(comparison.differences)
    head = ["measure", "difference (points)", "p", "test", "shown", forest_head(axis)]
    if holm is not None:
        head.insert(3, "p after Holm")
    corrected = holm or [None] * len(comparison.differences)
    groups: dict[str, list[list[str]]] = {}
    cells = _intervals([d.interval for d in comparison.differences], words.points)
    for difference, p, cell in zip(
        comparison.differences, corrected, cells, strict=True
    ):
        kind = "exact" if difference.exact else "Monte Carlo"
        value = words.p_value(difference.p_value).removeprefix("= ")
        row = [text(difference.measure), cell, text(value)]
        if p is not None:
            row.append(text(words.p_value(p).removeprefix("= ")))
        shown = words.verdict(difference, p)
        row += [_aside(kind), shown, forest_row(axis, difference, p)]
        heading = f"{difference.b} against {difference.a}"
        groups.setdefault(heading, []).append(row)
    caption = (
        "Differences over the same problems, in percentage points, with 95 % "
        "intervals. p: paired by problem, permutation test, "
        + (
            "not corrected for the number of comparisons."
            if holm is None
            else "as it is and after Holm\N{RIGHT SINGLE QUOTATION MARK}s correction, "
            "which decides what is called shown."
        )
        + " Hollow circles: no difference shown, or unclear."
    )
    return table(caption, head, list(groups.items()), kind="differences")


def curve_values(comparison: Comparison, curve: str) -> str:
    """The numbers of a figure, folded: a row for each k, a column for each run."""
    curves = [run.curves.get(curve) for run in comparison.runs]
    counts = sorted({k for found in curves if found for k in found.ks})
    columns = [_intervals([_at(found, k) for k in counts]) for found in curves]
    rows = [[str(k), *cells] for k, *cells in zip(counts, *columns, strict=True)]
    caption = f"{curve} in percent, with 95 % intervals."
    head = _run_heads("answers", comparison)
    return folded("Values", table(caption, head, [("", rows)], kind="numbers plain"))


def problems(comparison: Comparison) -> str:
    """Right answers to each problem, folded; "" where there are too many."""
    if len(comparison.problems) > MOST_PROBLEMS:
        return ""
    columns = [run.right for run in comparison.runs]
    rows = [
        [name(problem), *map(str, counts)]
        for problem, *counts in zip(comparison.problems, *columns, strict=True)
    ]
    head = ["problem"] + [
        run_label(index, run.name) + _aside(f"of {run.n}")
        for index, run in enumerate(comparison.runs)
    ]
    caption = "Right answers to each problem."
    return folded(
        "Right answers to each problem",
        table(caption, head, [("", rows)], kind="numbers plain"),
    )


def manifests(comparison: Comparison) -> str:
    """What was run: first what differs between the runs, then what is the same."""
    flat = [flattened(run.about) for run in comparison.runs]
    differ, same = [], []
    for key in _all_keys(flat):
        found = [manifest.get(key) for manifest in flat]
        heading = text(key)
        if len(set(found)) == 1:
            same.append([heading, long_text(found[0] or "")])
        else:
            mark = element("span", "\N{NOT EQUAL TO}", class_="differs")
            cells = (NOT_THERE if v is None else long_text(v) for v in found)
            differ.append([f"{mark}\N{NO-BREAK SPACE}{heading}", *cells])
    if not differ and not same:
        return ""
    groups = [("Differs between the runs", differ), ("The same in all runs", same)]
    caption = "What was run; \N{NOT EQUAL TO} marks what differs between the runs."
    if len(flat) == 1:
        groups, caption = [("", same)], "What was run."
    return table(caption, _run_heads("setting", comparison), groups, kind="texts")


def flattened(about: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """A manifest's values as text, those within others under names with dots.

    Texts as they are, all else as JSON.

    >>> flattened({"n": 8, "versions": {"jax": "0.10.2"}})
    {"n": "8", "versions.jax": "0.10.2"}
    """
    flat: dict[str, str] = {}
    for key, value in about.items():
        path = f"{prefix}{key}"
        if isinstance(value, Mapping) and value:
            flat |= flattened(value, f"{path}.")
        elif isinstance(value, str):
            flat[path] = value
        else:
            flat[path] = json.dumps(value, ensure_ascii=False, default=str)
    return flat


def _at(curve: Curve | None, k: int) -> Interval | None:
    if curve is None or k not in curve.ks:
        return None
    return curve.intervals[curve.ks.index(k)]


def _all_keys(mappings: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys of all, each once, in the order they first come in."""
    return list(dict.fromkeys(key for mapping in mappings for key in mapping))


def _run_heads(first: str, comparison: Comparison) -> list[str]:
    runs = enumerate(comparison.runs)
    return [first, *(run_label(index, run.name) for index, run in runs)]


def _of_runs(
    first: str, caption: str, comparison: Comparison, rows: Sequence[Sequence[str]]
) -> str:
    """A table of numbers with a column for each run; "" without rows."""
    # Across the whole page, one or two columns would be far from their headings.
    kind = "numbers few" if len(comparison.runs) <= 2 else "numbers"
    head = _run_heads(first, comparison)
    return table(caption, head, [("", rows)], kind=kind) if rows else ""


def _intervals(intervals: Sequence[Interval | None], shown=words.percent) -> list[str]:
    """Cells of one column, their numbers padded so that they stand in line."""
    pairs = [shown(interval) if interval else (None, "") for interval in intervals]
    means = words.aligned(mean or "" for mean, _ in pairs)
    bounds = words.aligned(bound for _, bound in pairs)
    return [
        NOT_THERE if pair[0] is None else f"{mean} {_aside(bound)}" if pair[1] else mean
        for pair, mean, bound in zip(pairs, means, bounds, strict=True)
    ]


def _aside(content: str) -> str:
    return element("span", text(content), class_="aside")
