"""A comparison of runs as one HTML file, which needs nothing but itself."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from jaxmoe.evals.comparison import Comparison, Example
from jaxmoe.reports import html_tables as tables
from jaxmoe.reports import report_words as words
from jaxmoe.reports.html_parts import (
    block,
    element,
    folded,
    name,
    page,
    section,
    text,
)
from jaxmoe.reports.svg_chart import Line, curve_chart
from jaxmoe.reports.svg_panels import (
    histogram,
    router_floor,
    router_panel,
    scatter,
    sides,
)

SHORT = 80
"""Characters of a reference that is shown without being asked for."""


def render(
    comparison: Comparison,
    *,
    title: str | None = None,
    router: Mapping[str, Mapping[str, Any]] | None = None,
    holm: Sequence[float] | None = None,
    date: str | None = None,
) -> str:
    """The report: an HTML5 page in UTF-8 without scripts, that loads nothing.

    Equal arguments give equal text. Whatever stands in them is shown as text, never
    taken for HTML.

    Args:
      comparison: one run or more over the same problems.
      title: of the page; None: made of the task's name.
      router: layer -> "mean", "low" and "high" of the router's probability at each
        rank, the best first, lists or arrays; curves to add. Other names beside
        them are left alone, so `router_scores.to_json` gives what is wanted.
      holm: p-values after Holm's correction, in the order of the differences. They
        then decide which differences are called shown.
      date: as it is to stand in the footer.

    Raises:
      ValueError: no runs, runs with other than one count for each problem, other than
        one corrected p-value for each difference, or a router curve without ranks.
    """
    _require_whole(comparison, holm)
    runs = "Comparison of runs" if len(comparison.runs) > 1 else "A run"
    title = title or f"{runs} on {comparison.task}"
    parts = [
        section("measures", "Measures", tables.measures(comparison)),
        section("curves", "Over the number of answers", _curves(comparison)),
        section("differences", "Differences", tables.differences(comparison, holm)),
        section("numbers", "Other numbers", tables.numbers(comparison)),
        section("runs", "What was run", tables.manifests(comparison)),
        section("problems", "Problem by problem", *_problems(comparison)),
        section("examples", "Solved by one run only", *_examples(comparison)),
        section("router", "Routers", _router(router or {})),
    ]
    head = element(
        "header",
        element("h1", text(title)),
        element("p", _scope(comparison), class_="scope"),
        *_summary(comparison, holm),
    )
    return page(title, element("main", head, *parts), _footer(comparison, holm, date))


def _require_whole(comparison: Comparison, holm: Sequence[float] | None) -> None:
    if not comparison.runs:
        raise ValueError("a report needs at least one run, found none; add one")
    for run in comparison.runs:
        if len(run.right) != len(comparison.problems):
            raise ValueError(
                f"{run.name} must have one count of right answers for each problem, "
                f"found {len(run.right)} for {len(comparison.problems)}; compare runs "
                "over the same problems"
            )
    if holm is not None and len(holm) != len(comparison.differences):
        raise ValueError(
            "holm must have one p-value for each difference, found "
            f"{len(holm)} for {len(comparison.differences)}; correct all of them"
        )


# -- words -------------------------------------------------------------------------


def _scope(comparison: Comparison) -> str:
    """The task, and how much of it was run."""
    parts = [f"Task {name(comparison.task)}", _problem_count(comparison)]
    counts = sorted({run.n for run in comparison.runs})
    answers = " or ".join(f"{n:,}" for n in counts)
    noun = "answer" if counts == [1] else "answers"
    parts.append(f"{answers} {noun} to each")
    if len(comparison.runs) > 1:
        parts.append(words.counted(len(comparison.runs), "run"))
    return " \N{MIDDLE DOT} ".join(parts)


def _problem_count(comparison: Comparison) -> str:
    problems = words.counted(len(comparison.problems), "problem")
    if comparison.groups == len(comparison.problems):
        return problems
    return f"{problems} in {words.counted(comparison.groups, 'group')}"


def _summary(comparison: Comparison, holm: Sequence[float] | None) -> Iterator[str]:
    """What was found, in a sentence for each run that is compared."""
    for index in words.headlines(comparison):
        difference = comparison.differences[index]
        finding = words.finding(difference, holm[index] if holm else None)
        pair = f"{name(difference.b)} against {name(difference.a)}"
        yield element("p", f"{pair}: {_unbroken(text(finding))}.", class_="summary")
    if comparison.differences:
        return
    for run in comparison.runs:
        shown = f"{name(run.name)}: no measures"
        for measure, interval in list(run.measures.items())[:1]:
            mean, bounds = words.percent(interval)
            unit = f"{mean} % {bounds}" if bounds else mean
            shown = f"{name(run.name)}: {text(measure)} {unit}"
        yield element("p", f"{shown}.", class_="summary")


def _unbroken(sentence: str) -> str:
    """HTML whose intervals and p-values are not broken between lines."""
    parts = r"\[[^\]<]*\]|\bp (?:=|&lt;) [\d.]+\d"
    return re.sub(parts, lambda m: element("span", m[0], class_="unbroken"), sentence)


def _footer(
    comparison: Comparison, holm: Sequence[float] | None, date: str | None
) -> str:
    units = "problems"
    if comparison.groups != len(comparison.problems):
        units = "groups of problems"
    notes = [
        f"Intervals: 95 % bootstrap over {units}; they say how far the "
        "numbers would move with other problems of the same kind."
    ]
    names = {key for run in comparison.runs for key in [*run.measures, *run.curves]}
    if any(key.startswith("pass@") for key in names):
        notes.append(
            "pass@k: unbiased estimate from all answers to a problem (Chen et al. "
            "2021, arXiv 2107.03374)."
        )
    if comparison.differences:
        count = words.counted(len(comparison.differences), "comparison")
        notes.append(
            "p-values: permutation test, paired by problem; exact where all changes of "
            "sign were counted, else Monte Carlo. "
            + (f"Not corrected: {count}." if holm is None else f"Holm: over {count}.")
        )
        notes.append(
            "No difference shown: the interval holds 0, which does not show that the "
            f"runs are equal. Unclear: it does not, but p is above {words.SIGNIFICANT}."
        )
    lines = [element("p", text(note)) for note in notes]
    if date:
        lines.append(element("p", text(date), class_="date"))
    heading = element("h2", "Method", id="method-heading")
    return element("footer", heading, *lines, aria_labelledby="method-heading")


# -- figures -----------------------------------------------------------------------


def _curves(comparison: Comparison) -> str:
    names = dict.fromkeys(key for run in comparison.runs for key in run.curves)
    figures = [_curve(f"curve-{i}", comparison, key) for i, key in enumerate(names)]
    kept = list(filter(None, figures))
    return element("div", *kept, class_="figures") if kept else ""


def _curve(identifier: str, comparison: Comparison, key: str) -> str:
    """One figure with all runs that have the curve, its legend and its values."""
    lines = [
        Line(index, run.name, run.curves[key])
        for index, run in enumerate(comparison.runs)
        if key in run.curves
    ]
    drawn = (i for line in lines for i in line.curve.intervals)
    if not any(map(words.is_finite, drawn)):
        return ""
    legend = (element("li", tables.run_label(line.index, line.name)) for line in lines)
    caption = f"{text(key)}: means over problems, and their 95 % intervals as bands."
    figure = element(
        "figure",
        element("h3", text(key)),
        curve_chart(identifier, key, lines),
        element("ul", *legend, class_="legend"),
        element("figcaption", caption),
    )
    return element("div", figure, tables.curve_values(comparison, key))


def _problems(comparison: Comparison) -> Iterator[str]:
    """Right answers of the baseline against those of each other run."""
    if len(comparison.runs) == 1:
        run = comparison.runs[0]
        caption = f"How often problems were answered right by {name(run.name)}."
        drawn = histogram("problems-0", run)
        figures = [element("figure", drawn, element("figcaption", caption))]
    else:
        figures = [_pair(comparison, up) for up in range(1, len(comparison.runs))]
    shape = "figures" if len(comparison.runs) == 1 else "figures square"
    yield element("div", *figures, class_=shape)
    yield tables.problems(comparison)


def _pair(comparison: Comparison, up: int) -> str:
    a, b = comparison.runs[0], comparison.runs[up]
    above, on, below = sides(a, b)
    caption = (
        f"Right answers to each problem: {name(a.name)} across, {name(b.name)} up. "
        f"{words.counted(above, 'problem')} above the line (more often right in the "
        f"latter), {on} on it, {below} below. Areas are numbers of problems."
    )
    drawn = scatter(f"problems-{up}", comparison, 0, up)
    return element("figure", drawn, element("figcaption", caption))


def _router(router: Mapping[str, Mapping[str, Any]]) -> str:
    if not router:
        return ""
    for layer, curve in router.items():
        lengths = [len(curve[part]) for part in ("mean", "low", "high")]
        if len(set(lengths)) != 1 or not lengths[0]:
            raise ValueError(
                f"{layer} must have a mean, low and high for each rank, found "
                f"{lengths}; pass the three lists of one rank curve"
            )
    low = router_floor(router)
    panels = [
        element(
            "div",
            element("h3", text(layer)),
            router_panel(f"router-{index}", layer, curve, low),
        )
        for index, (layer, curve) in enumerate(router.items())
    ]
    caption = (
        "Probability that the router gives to an expert, over the expert"
        "\N{RIGHT SINGLE QUOTATION MARK}s rank: mean over tokens, and a band between "
        "the low and high quantile; log scale."
    )
    grid = element("div", *panels, class_="panels")
    return element("figure", grid, element("figcaption", caption))


# -- examples ----------------------------------------------------------------------


def _examples(comparison: Comparison) -> Iterator[str]:
    places = {run.name: (i, run.n) for i, run in enumerate(comparison.runs)}
    for example in comparison.examples:
        yield element("article", *_example(example, places), class_="example")


def _example(example: Example, places: dict[str, tuple[int, int]]) -> Iterator[str]:
    """The problem, then each run's count and text."""
    yield element("h3", name(example.problem))
    yield element("p", f"Solved by {name(example.solved_by)} only.")
    yield folded("Prompt", block(example.prompt))
    yield _reference(example.reference)
    for run, answer in example.answers.items():
        index, n = places[run]
        right = example.right[run]
        mark = element("span", _mark(right), class_="mark-text")
        count = element("span", f"{right} of {n} right", class_="aside")
        summary = f"{mark} {tables.run_label(index, run)} {count}"
        yield folded(summary, block(answer))


def _reference(reference: str) -> str:
    """In sight where it is short."""
    if "\n" in reference or not 0 < len(reference) <= SHORT:
        return folded("Reference", block(reference))
    shown = element("code", text(reference), dir="auto")
    return element("p", f"Reference: {shown}", class_="reference")


def _mark(right: int) -> str:
    """Of the text that is shown: a right one where there are any, else a wrong one."""
    return "\N{CHECK MARK} right" if right else "\N{BALLOT X} wrong"
