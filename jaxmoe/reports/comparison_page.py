"""A comparison of runs as one HTML file, which needs nothing but itself."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from jaxmoe.evals.comparison import Answer, Comparison, Curve, Example
from jaxmoe.evals.metrics import Interval
from jaxmoe.reports import comparison_charts as charts
from jaxmoe.reports import report_words as words
from jaxmoe.reports.page import render_page
from jaxmoe.reports.plots import has_matplotlib

MOST_PROBLEMS = 2000
"""Problems up to which each has a row; of more, a page would be slow."""
FILTERS = {
    "all": "all",
    "right": "right",
    "wrong": "wrong",
    "unread": "no answer read",
    "cut": "cut off",
    "alone": "solved by one run only",
}
"""What of the answers can be asked for; `templates/style.css` knows them too."""

Cell = tuple[str, str] | None
"""A number and its bounds as text; None where there is none."""


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
    taken for HTML. Without matplotlib there are no charts, which the page says.

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
    draw = has_matplotlib()
    runs = comparison.runs
    first, *others = runs
    kind = "Comparison of runs" if len(runs) > 1 else "A run"
    return render_page(
        "comparison.html",
        title=title or f"{kind} on {comparison.task}",
        task=comparison.task,
        scope=scope(comparison),
        summary=list(_summary(comparison, holm)),
        runs=runs,
        # Across the whole page, one or two columns would be far from their headings.
        few="numbers few" if len(runs) <= 2 else "numbers",
        charts_possible=draw,
        measures=_interval_rows([run.measures for run in runs]),
        curves=list(_curves(comparison, draw)),
        differences=_differences(comparison, holm, draw),
        numbers=_number_rows([run.numbers for run in runs]),
        examples=[_example(comparison, one) for one in comparison.examples],
        examples_note=_examples_note(comparison),
        filters=_filters(comparison),
        problem_charts=charts.problems(comparison) if draw else [],
        sides=[charts.sides_in_words(first, run) for run in others],
        problems=_problems(comparison),
        settings=_settings([run.about for run in runs]),
        router=charts.routers(router) if router and draw else None,
        notes=list(_notes(comparison, holm)),
        date=date,
    )


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


def scope(comparison: Comparison) -> list[str]:
    """How much of the task was run."""
    problems = words.counted(len(comparison.problems), "problem")
    if comparison.groups != len(comparison.problems):
        problems += f" in {words.counted(comparison.groups, 'group')}"
    counts = sorted({run.n for run in comparison.runs})
    answers = " or ".join(f"{n:,}" for n in counts)
    noun = "answer" if counts == [1] else "answers"
    several = len(comparison.runs) > 1
    runs = [words.counted(len(comparison.runs), "run")] if several else []
    return [problems, f"{answers} {noun} to each", *runs]


def _summary(
    comparison: Comparison, holm: Sequence[float] | None
) -> Iterator[dict[str, str | None]]:
    """What was found, in a sentence for each run that is compared."""
    for index in words.headlines(comparison):
        found = comparison.differences[index]
        finding = words.finding(found, holm[index] if holm else None)
        yield {"name": found.b, "against": found.a, "finding": finding}
    if comparison.differences:
        return
    for run in comparison.runs:
        finding = "no measures"
        for measure, interval in list(run.measures.items())[:1]:
            mean, bounds = words.percent(interval)
            finding = f"{measure} {mean} % {bounds}" if bounds else f"{measure} {mean}"
        yield {"name": run.name, "against": None, "finding": finding}


def _notes(comparison: Comparison, holm: Sequence[float] | None) -> Iterator[str]:
    units = "problems"
    if comparison.groups != len(comparison.problems):
        units = "groups of problems"
    yield (
        f"Intervals: 95 %, Student's t with the spread over {units}, and problems made "
        "up at both ends of the scale; they say how far the numbers would move with "
        "other problems of the same kind."
    )
    names = {key for run in comparison.runs for key in [*run.measures, *run.curves]}
    if any(key.startswith("pass@") for key in names):
        yield (
            "pass@k: unbiased estimate from all answers to a problem (Chen et al. "
            "2021, arXiv 2107.03374)."
        )
    if comparison.differences:
        count = words.counted(len(comparison.differences), "comparison")
        yield (
            "p-values: permutation test, paired by problem; exact where all changes of "
            "sign were counted, else Monte Carlo. "
            + (f"Not corrected: {count}." if holm is None else f"Holm: over {count}.")
        )
        yield (
            "No difference shown: the interval holds 0, which does not show that the "
            f"runs are equal. Unclear: it does not, but p is above {words.SIGNIFICANT}."
        )


# -- tables ------------------------------------------------------------------------


def _rows(names: Iterable[str], columns: Sequence[Sequence[Any]]) -> list[dict]:
    cells = zip(*columns, strict=True)
    return [{"name": n, "cells": c} for n, c in zip(names, cells, strict=True)]


def _interval_rows(found: Sequence[Mapping[str, Interval]]) -> list[dict]:
    names = _all_keys(found)
    return _rows(names, [aligned([one.get(n) for n in names]) for one in found])


def _number_rows(found: Sequence[Mapping[str, float]]) -> list[dict]:
    rows = []
    for name in _all_keys(found):
        shown = iter(words.numbers([one[name] for one in found if name in one]))
        cells = [(next(shown), "") if name in one else None for one in found]
        rows.append({"name": name, "cells": cells})
    return rows


def aligned(intervals: Sequence[Interval | None], shown=words.percent) -> list[Cell]:
    """Cells of one column, their numbers padded so that they stand in line."""
    pairs = [shown(interval) if interval else ("", "") for interval in intervals]
    means = words.aligned(mean for mean, _ in pairs)
    bounds = words.aligned(bound for _, bound in pairs)
    return [
        None if interval is None else (mean, bound if pair[1] else "")
        for interval, pair, mean, bound in zip(
            intervals, pairs, means, bounds, strict=True
        )
    ]


def _differences(
    comparison: Comparison, holm: Sequence[float] | None, draw: bool
) -> dict[str, Any] | None:
    """Those of a pair of runs under one heading."""
    if not comparison.differences:
        return None
    head = ["measure", "difference (points)", "shown", "p", "test"]
    caption = (
        "Differences over the same problems, in percentage points, with 95 % "
        "intervals. p: paired by problem, permutation test, "
    )
    if holm is None:
        caption += "not corrected for the number of comparisons."
    else:
        head.insert(4, "p after Holm")
        apostrophe = "\N{RIGHT SINGLE QUOTATION MARK}"
        caption += f"as it is and after Holm{apostrophe}s correction, which decides "
        caption += "what is called shown."
    cells = aligned([d.interval for d in comparison.differences], words.points)
    groups: dict[str, list[dict]] = {}
    for index, found in enumerate(comparison.differences):
        p = None if holm is None else holm[index]
        verdict = words.verdict(found, p)
        p_values = [found.p_value] if p is None else [found.p_value, p]
        row = {
            "measure": found.measure,
            "interval": cells[index],
            "p_values": [words.p_value(v).removeprefix("= ") for v in p_values],
            "test": "exact" if found.exact else "Monte Carlo",
            "verdict": verdict,
            "shown": verdict in ("higher", "lower"),
        }
        groups.setdefault(f"{found.b} against {found.a}", []).append(row)
    return {
        "caption": caption,
        "head": head,
        "groups": [{"heading": h, "rows": rows} for h, rows in groups.items()],
        "charts": charts.differences(comparison) if draw else [],
    }


def _curves(comparison: Comparison, draw: bool) -> Iterator[dict[str, Any]]:
    """Each curve's chart with all runs that have it, and its values."""
    for place, name in enumerate(_all_keys([run.curves for run in comparison.runs])):
        found = [run.curves.get(name) for run in comparison.runs]
        known = [i for curve in found if curve for i in curve.intervals]
        if not any(map(words.is_finite, known)):
            continue
        counts = sorted({k for curve in found if curve for k in curve.ks})
        columns = [aligned([_at(curve, k) for k in counts]) for curve in found]
        drawn = charts.curve(f"curve-{place}", comparison, name) if draw else None
        rows = _rows(map(str, counts), columns)
        yield {"name": name, "rows": rows, "chart": drawn}


def _at(curve: Curve | None, k: int) -> Interval | None:
    if curve is None or k not in curve.ks:
        return None
    return curve.intervals[curve.ks.index(k)]


def _problems(comparison: Comparison) -> list[tuple]:
    """Right answers to each problem; none where there are too many."""
    if len(comparison.problems) > MOST_PROBLEMS:
        return []
    columns = [run.right for run in comparison.runs]
    return list(zip(comparison.problems, *columns, strict=True))


def _settings(manifests: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """What was run: first what differs between the runs, then what is the same."""
    flat = [flattened(about) for about in manifests]
    differ, same = [], []
    for key in _all_keys(flat):
        found = [manifest.get(key) for manifest in flat]
        if set(found) == {"null"}:
            continue  # says no more than an option that was not given
        if len(set(found)) == 1:
            same.append({"name": key, "cells": found[:1]})
        else:
            differ.append({"name": key, "cells": found})
    if not differ and not same:
        return None
    sign = "\N{NOT EQUAL TO}"
    caption = f"What was run; {sign} marks what differs between the runs."
    heads = "Differs between the runs", "The same in all runs"
    if len(flat) == 1:
        caption, heads = "What was run.", ("", "")
    groups = [
        {"heading": head, "rows": rows, "differs": differs}
        for head, rows, differs in zip(
            heads, (differ, same), (True, False), strict=True
        )
        if rows
    ]
    return {"caption": caption, "groups": groups}


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


def _all_keys(mappings: Sequence[Mapping[str, Any]]) -> list[str]:
    """The keys of all, each once, in the order they first come in."""
    return list(dict.fromkeys(key for mapping in mappings for key in mapping))


# -- questions and answers ---------------------------------------------------------


def _example(comparison: Comparison, example: Example) -> dict[str, Any]:
    """The problem, then each run's count and some of its answers."""
    runs = [
        {
            "index": index,
            "name": run.name,
            "n": run.n,
            "right": example.right[run.name],
            "answers": [
                vars(answer) | {"kinds": " ".join(kinds_of(answer))}
                for answer in example.answers[run.name]
            ],
        }
        for index, run in enumerate(comparison.runs)
    ]
    found = {k for some in example.answers.values() for a in some for k in kinds_of(a)}
    kinds = {*found, *(["alone"] if example.solved_by else [])}
    return vars(example) | {"runs": runs, "kinds": " ".join(sorted(kinds))}


def kinds_of(answer: Answer) -> list[str]:
    """Names of `FILTERS` that show the answer."""
    kinds = ["right" if answer.right else "wrong"]
    if answer.read is None:
        kinds.append("unread")
    if answer.cut:
        kinds.append("cut")
    return kinds


def _filters(comparison: Comparison) -> list[dict[str, str]]:
    left_out = {"alone"} if len(comparison.runs) == 1 else set()
    return [
        {"kind": kind, "name": name}
        for kind, name in FILTERS.items()
        if kind not in left_out
    ]


def _examples_note(comparison: Comparison) -> str:
    """How many of the answers are here, and where the others are."""
    texts = [some for e in comparison.examples for some in e.answers.values()]
    shown = sum(map(len, texts))
    total = len(comparison.problems) * sum(run.n for run in comparison.runs)
    if shown == total:
        return f"All {total:,} answers."
    return (
        f"{shown:,} of {total:,} answers, to {len(comparison.examples):,} of "
        f"{words.counted(len(comparison.problems), 'problem')}: those that one run "
        "solved alone come first, the others are spread over the file; of each "
        "problem, some answers of every kind. All answers are in the records-*.jsonl "
        "of each run's folder, one a line."
    )
