"""A replication as Markdown: measures beside published ones, claims, costs."""

from collections.abc import Iterable, Mapping

from jaxmoe.evals.draw import Draw, as_fields, in_words
from jaxmoe.evals.metrics import Interval
from jaxmoe.evals.replication.costs import Cost, Hours
from jaxmoe.evals.replication.results import Judged, Replication
from jaxmoe.evals.score_files import Identity, verifier_in_words
from jaxmoe.reports import report_words as words
from jaxmoe.reports.text_table import markdown_table, number

CLAIM_HEAD = (
    *("claim", "by", "difference", "expected", "stated (points)", "here (points)"),
    *("p (Holm)", "verdict"),
)
NOT_MEASURED = "not measured"


def measure_head(found: Replication) -> list[str]:
    """Columns of the table: each measure, and the published one where any is known."""
    head = ["row"]
    for measure in found.measures:
        head.append(f"{measure} (%)")
        if _is_published(found, measure):
            head.append("published")
    return head


def measure_rows(found: Replication) -> list[list[str]]:
    """A row for each run; cells of what is not known are empty."""
    rows = []
    for run in found.comparison.runs:
        cells = [run.name]
        for measure in found.measures:
            cells.append(_percent(run.measures.get(measure)))
            if _is_published(found, measure):
                figure = found.figures.get((run.name, measure))
                cells.append("" if figure is None else f"{figure.percent:g}")
        rows.append(cells)
    return rows


def claim_row(judged: Judged) -> list[str]:
    """A claim's cells, under `CLAIM_HEAD`."""
    claim, found = judged.claim, judged.found
    return [
        claim.text,
        claim.by,
        str(claim),
        f"{claim.expects}, margin {100 * claim.margin:g}",
        judged.stated or "",
        "" if found is None else " ".join(words.points(found.difference)),
        "" if found is None else words.p_value(found.adjusted).removeprefix("= "),
        NOT_MEASURED if found is None else found.verdict,
    ]


def title_of(found: Replication) -> str:
    """What the report is called."""
    model = found.model or "another model"
    return f"{found.recipe.name}: {model} on {found.benchmark}"


def notes_of(found: Replication) -> list[str]:
    """How to read the numbers."""
    known = [figure.note for figure in found.figures.values() if figure.note]
    published = "Empty cells: no published figure is known."
    if known:
        published += f" Of those known: {'; '.join(dict.fromkeys(known))}."
    return [
        "Means over problems in percent, with 95 % intervals over problems, or groups "
        "of those that are alike (Student's t, with problems made up at both ends of "
        "the scale). Differences are paired by problem.",
        "Verdicts hold together: the chance that any of them is false is 5 %. Higher: "
        "yes where the difference is significant, no where an effect of the margin is "
        "ruled out. No worse: yes where a loss of the margin is ruled out, no where "
        "one is significant. Bounds that rule out have level 1 - 0.05 / claims: wider "
        "than those shown; p: permutation test, after Holm's correction.",
        published,
        _policies(found),
        *_verifiers(found.verifiers),
    ]


def _policies(found: Replication) -> str:
    """What "0.75k" came to, of this model's experts per token."""
    runs = found.comparison.runs
    said = (f"{run.name}: {in_words(run.about.get('policy'))}" for run in runs)
    return f"Policies: {'; '.join(said)}."


def _verifiers(verifiers: Mapping[str, Identity | None]) -> Iterable[str]:
    """Whose the scores are; a comparison of two verifiers is none of two rows."""
    said = {row: verifier_in_words(identity) for row, identity in verifiers.items()}
    for verifier in dict.fromkeys(said.values()):
        rows = ", ".join(row for row, own in said.items() if own == verifier)
        yield f"Scores of {rows}: {verifier}."


def replication_text(found: Replication) -> str:
    """The whole report as Markdown."""
    compared = found.comparison
    problems = words.counted(len(compared.problems), "problem")
    groups = words.counted(compared.groups, "group")
    parts = [
        f"# {title_of(found)}\n",
        f"{found.recipe.about}: {problems} in {groups}.\n",
        markdown_table(measure_head(found), measure_rows(found)),
    ]
    if found.judged:
        claims = markdown_table(CLAIM_HEAD, map(claim_row, found.judged))
        parts += ["", claims]
    return "\n".join([*parts, "", *notes_of(found)]) + "\n"


def costs_text(
    title: str,
    draws: Mapping[str, Draw],
    same: Mapping[str, str],
    problems: int,
    cost: Cost,
    hours: Mapping[str, Hours | None],
) -> str:
    """What a recipe costs, for people.

    Args:
      draws: row -> how its answers are drawn.
      same: row that is not drawn -> the one that has its answers.
    """
    tokens = f"{number(cost.tokens)} tokens"
    if cost.tokens < cost.most:
        tokens += f" (at most {number(cost.most)})"
    if cost.passes > cost.tokens:
        tokens += f" by {number(cost.passes)} passes"
    rows = words.counted(len(draws), "row")
    head = (
        f"{title}: {rows}, {words.counted(problems, 'problem')}, "
        f"{number(cost.answers)} answers, {tokens}"
    )
    note = (
        "Time on paper, of decoding alone: stated bandwidths, full caches, all slots "
        "busy. None were measured."
    )
    table = markdown_table(
        ("slice", "mesh", "slots", "ms a step", "time"), _hours(hours)
    )
    policies = [
        f"- {row}: {in_words(as_fields(draw.policy))}" for row, draw in draws.items()
    ]
    policies += [f"- {row}: not drawn, as {other}" for row, other in same.items()]
    listed = "\n".join(policies)
    return f"{head}\n\n{listed}\n\n{table}\n\n{note}\n"


def _hours(hours: Mapping[str, Hours | None]) -> Iterable[tuple[str, ...]]:
    for place, found in hours.items():
        if found is None:
            yield place, "", "", "", "does not fit"
            continue
        slots, time = f"{found.slots}", _time(found.hours)
        yield place, found.mesh, slots, number(found.ms), time


def _time(hours: float) -> str:
    """In a unit that needs no power of ten; the table is of hours."""
    seconds = 3600 * hours
    if seconds < 1:
        return "under 1 s"
    if seconds < 60:
        return f"{number(round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 3600 else f"{number(hours)} h"


def _is_published(found: Replication, measure: str) -> bool:
    return any(known == measure for _, known in found.figures)


def _percent(interval: Interval | None) -> str:
    return "" if interval is None else " ".join(words.percent(interval)).strip()
