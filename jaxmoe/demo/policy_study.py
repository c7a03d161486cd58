"""Every policy on the demo model, and what makes one answer of many, in one table.

Answers are drawn with the paper's token sampler. Aggregations are all those of
`jaxmoe.evals.votes.AGGREGATIONS` that the records allow: DeepConf's votes need
confidences of groups, and RAD routes, which these runs do not keep.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxmoe.demo.countdown import Countdown
from jaxmoe.demo.game_runs import MAX_NEW_TOKENS
from jaxmoe.demo.study import NORMAL
from jaxmoe.demo.study_table import percent, points
from jaxmoe.evals.draw import Draw, in_words
from jaxmoe.evals.evaluate import Status, evaluate
from jaxmoe.evals.metrics import Interval, bootstrap, paired_difference
from jaxmoe.evals.run import Run, read_run
from jaxmoe.evals.summary import Values, scores_of, values_of
from jaxmoe.evals.tasks.base import Question
from jaxmoe.model import Model
from jaxmoe.reports.text_table import markdown_table
from jaxmoe.router.ensemble import RouteEnsemble
from jaxmoe.router.modifiers import Biased, Gated
from jaxmoe.router.policies import (
    AdaptiveHead,
    Dropout,
    ExpertSample,
    GumbelTopK,
    Policy,
    TopK,
    TopP,
)

BASE = "top-k"


@dataclass(frozen=True)
class Row:
    """One policy; alpha: of `Model.weighing`."""

    policy: Policy
    alpha: float = 1.0


def rows(layers: int, experts: int) -> dict[str, Row]:
    """Name -> row, the baseline first; every policy and modifier is in one."""
    banned = np.zeros(experts)
    banned[np.random.default_rng(0).permutation(experts)[: experts // 4]] = -np.inf
    falling = np.linspace(2, 0, layers, dtype=np.float32)
    mild, more = GumbelTopK(0.3), TopK(12)
    return {
        BASE: Row(TopK()),
        "top-k, 6 experts": Row(TopK(6)),
        "top-k, 12 experts": Row(more),
        "top-k, 12 experts, extra ones at alpha 0.5": Row(more, alpha=0.5),
        "top-p 0.6": Row(TopP(0.6)),
        "expert-sample": Row(ExpertSample()),
        "expert-sample, drawn ones at alpha 0.5": Row(ExpertSample(), alpha=0.5),
        "expert-sample, tau 2 to 0 by layer": Row(ExpertSample(tau=falling)),
        "expert-sample, gated by entropy above 3.5": Row(
            Gated(ExpertSample(), threshold=3.5)
        ),
        "expert-sample, gated by margin below 0.05": Row(
            Gated(ExpertSample(), by="margin", threshold=0.05)
        ),
        "adaptive-head": Row(AdaptiveHead()),
        "gumbel-topk, tau 0.3": Row(mild),
        "gumbel-topk, tau 1": Row(GumbelTopK()),
        "dropout 0.1": Row(Dropout(0.1)),
        "top-k, a quarter of the experts banned": Row(Biased(TopK(), banned)),
        "4 routes of expert-sample": Row(RouteEnsemble(ExpertSample(), 4)),
        "4 routes of gumbel-topk, tau 0.3 (RoE)": Row(RouteEnsemble(mild, 4)),
        "4 routes of gumbel-topk, tau 1 (RoE)": Row(RouteEnsemble(GumbelTopK(), 4)),
    }


def measures(values: Values, n: int) -> list[str]:
    """Of `values_of`: one answer, any of n, then all ways to make one of n."""
    return [m for m in values if m == f"pass@{n}" or not m.startswith("pass@")]


def draw_row(
    model: Model,
    row: Row,
    questions: Sequence[Question],
    path: Path,
    *,
    n: int,
    slots: int,
    checkpoint: str,
    progress: Callable[[Status], None] | None = None,
) -> Run:
    """The answers of one row, in the run directory `path`; goes on there.

    Args:
      n: answers to each question, drawn with equal keys in every row.
      slots: answers drawn side by side.
      checkpoint: digest of the model's files.
      progress: called now and then.
    """
    evaluate(
        model.weighing(alpha=row.alpha),
        Countdown(),
        questions,
        Draw(row.policy, NORMAL, n, MAX_NEW_TOKENS, slots=slots),
        path,
        checkpoint=f"{checkpoint}, alpha {row.alpha}",
        data={"file": "the demo's own problems"},
        progress=progress,
    )
    return read_run(path)


def table_of(runs: Mapping[str, Run]) -> str:
    """Markdown: measures of every row, and what sets it apart from the first.

    Intervals of 95 % resample whole sets of numbers; differences are paired.
    """
    base = next(iter(runs.values()))
    values = {name: values_of(run, scores_of(run)) for name, run in runs.items()}
    groups, first = base.groups, values[next(iter(runs))]
    names = measures(first, base.n)
    cells = []
    for name, own in values.items():
        shown = [_shown(own, measure, groups) for measure in names]
        apart = [_difference(own, first, m, groups) for m in names[:2]]
        cells.append([name, *shown, *(apart if own is not first else ["", ""])])
    less = [f"{name} less {BASE}" for name in names[:2]]
    sampler = in_words(base.manifest["sampler"])
    return "\n".join(
        [
            f"{len(base.ids)} problems of {len(set(groups))} sets of numbers, {base.n} "
            f"answers each, {sampler}; percent, differences in points, not corrected "
            "for their number.",
            "",
            markdown_table(["policy", *names, *less], cells),
            "",
        ]
    )


def _shown(own: Values, measure: str, groups: Sequence[str]) -> str:
    """Empty where a row's records do not allow it."""
    if measure not in own:
        return ""
    return percent(_numbers(bootstrap(own[measure], groups=groups)))


def _difference(own: Values, first: Values, measure: str, groups: Sequence[str]) -> str:
    found = paired_difference(own[measure], first[measure], groups=groups)
    return points(_numbers(found))


def _numbers(found: Interval) -> list[float]:
    return [found.mean, found.low, found.high]
