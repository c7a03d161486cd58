"""What became of a recipe's answers: measures beside published ones, and verdicts."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float

from jaxmoe.evals.claims import Claim, Evidence, Finding, findings
from jaxmoe.evals.comparison import Comparison
from jaxmoe.evals.replication.recipe import Figure, Recipe
from jaxmoe.evals.run import Run, shared
from jaxmoe.evals.score_files import Identity
from jaxmoe.evals.summary import Values, scores_of, summarise, values_of

Scores = Mapping[str, Float[np.ndarray, "P n"]]
"""Name of a score -> each answer's."""

VERIFIER = "verifier"
"""The name of a verifier's scores, in measures."""


@dataclass(frozen=True)
class Judged:
    """A claim, and what the answers say of it.

    found: None where a row, or the measure, is not there. stated: what the source says
    of the difference, None where that is not known.
    """

    claim: Claim
    found: Finding | None
    stated: str | None


@dataclass(frozen=True)
class Replication:
    """All that a report shows.

    model: the recipe's name of it; None for another model. comparison: its runs are in
    the recipe's order, and it has no differences. measures: of the table, in order.
    figures: (row, measure) -> the published one. verifiers: row -> whose scores its
    answers have, None where that is not known.
    """

    recipe: Recipe
    model: str | None
    benchmark: str
    comparison: Comparison
    measures: tuple[str, ...]
    figures: Mapping[tuple[str, str], Figure]
    judged: tuple[Judged, ...]
    verifiers: Mapping[str, Identity | None] = field(default_factory=dict)


def replicated(
    recipe: Recipe,
    runs: Mapping[str, Run],
    *,
    model: str | None,
    benchmark: str,
    scores: Mapping[str, Scores] | None = None,
    verifiers: Mapping[str, Identity | None] | None = None,
    n: int | None = None,
) -> Replication:
    """What the runs of a recipe come to.

    Args:
      runs: row -> its answers; rows may be missing.
      model, benchmark: whose published figures are shown.
      scores: row -> further scores of its answers.
      verifiers: row -> whose those are.
      n: answers to a problem instead of the recipe's.

    Raises:
      ValueError: no runs, or runs of different problems.
    """
    names = [row.name for row in recipe.rows if row.name in runs]
    given = shared([replace(runs[name], name=name) for name in names])
    more = {name: (scores or {}).get(name, {}) for name in names}
    cut = {run.name: _cut(more[run.name], runs[run.name], run) for run in given}
    values = {run.name: values_of(run, scores_of(run, cut[run.name])) for run in given}
    count = n or recipe.n
    figures = {
        (figure.row, _filled(figure.measure, count)): figure
        for figure in recipe.figures
        if (figure.model, figure.benchmark) == (model, benchmark)
    }
    judged = _judged(recipe, values, given[0].groups, count, figures, model)
    return Replication(
        recipe,
        model,
        benchmark,
        Comparison(
            task=str(given[0].manifest["task"]),
            problems=given[0].ids,
            groups=len(set(given[0].groups)),
            runs=tuple(summarise(run, scores=cut[run.name]) for run in given),
            differences=(),
            examples=(),
        ),
        tuple(_filled(measure, count) for measure in recipe.measures),
        figures,
        judged,
        verifiers or {},
    )


def _cut(scores: Scores, run: Run, to: Run) -> Scores:
    """Scores of the problems that all rows have, in their order."""
    rows = [run.ids.index(id) for id in to.ids]
    return {name: score[rows] for name, score in scores.items()}


def _filled(measure: str, n: int) -> str:
    return measure.replace("{n}", str(n))


def _judged(
    recipe: Recipe,
    values: Mapping[str, Values],
    groups: Sequence[str],
    n: int,
    figures: Mapping[tuple[str, str], Figure],
    model: str | None,
) -> tuple[Judged, ...]:
    """Every claim; all of a recipe's are one family, also those without answers."""
    claims = [replace(c, measure=_filled(c.measure, n)) for c in recipe.claims]
    pairs = [(c, values.get(c.a, {}), values.get(c.b, {})) for c in claims]
    known = [
        Evidence(c, a[c.measure], b[c.measure], groups)
        for c, a, b in pairs
        if c.measure in a and c.measure in b
    ]
    found = {f.claim: f for f in findings(known, size=len(claims))}
    return tuple(Judged(c, found.get(c), _stated(c, figures, model)) for c in claims)


def _stated(
    claim: Claim, figures: Mapping[tuple[str, str], Figure], model: str | None
) -> str | None:
    """What is published of a claim's difference; None where nothing is known.

    Of a model that the recipe does not have nothing is.
    """
    if model is None:
        return None
    a, b = (figures.get((row, claim.measure)) for row in (claim.a, claim.b))
    return "; ".join(filter(None, (_points(a, b), claim.stated))) or None


def _points(a: Figure | None, b: Figure | None) -> str:
    """The difference of two published figures; empty where one is not known."""
    if a is None or b is None:
        return ""
    return f"{a.percent - b.percent:+.1f} ({b.percent:g} to {a.percent:g})"
