"""Every policy on the demo model, and what makes one answer of many, in one table.

Answers are drawn with the paper's token sampler. Aggregations are all those that
`jaxmoe list aggregations` names: the records hold self-certainty, DeepConf's
confidences (a group is as long as a step of an answer) and routes, whose agreement RAD
measures at the answer's first tokens.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from jaxmoe.demo.countdown import Countdown
from jaxmoe.demo.encoding import STEP_LENGTH
from jaxmoe.demo.study import NORMAL
from jaxmoe.demo.study_table import percent, points
from jaxmoe.evals.deep_conf import DeepConf
from jaxmoe.evals.draw import Draw, in_words
from jaxmoe.evals.evaluate import Keep, Status, evaluate
from jaxmoe.evals.metrics import Interval, bootstrap, paired_difference
from jaxmoe.evals.run import Run, read_run
from jaxmoe.evals.summary import Values, majority_of, scores_of, values_of
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
TOGETHER = "mean of all"
"""The row of ways to choose that has each problem's mean over all policies."""


@dataclass(frozen=True)
class Row:
    """One policy, or one of each answer; alpha: of `Model.weighing`."""

    policy: Policy | tuple[Policy, ...]
    alpha: float = 1.0


GROUP = STEP_LENGTH
"""Tokens of DeepConf's groups: a step of an answer."""


def rows(layers: int, experts: int, n: int) -> dict[str, Row]:
    """Name -> row, the baseline first; every policy and modifier is in one.

    n: answers to each question.
    """
    banned = np.zeros(experts)
    banned[np.random.default_rng(0).permutation(experts)[: experts // 4]] = -np.inf
    falling = np.linspace(2, 0, layers, dtype=np.float32)
    mild, more = GumbelTopK(0.3), TopK(12)
    own_k = tuple(TopK(4 + i % 5) for i in range(n))
    return {
        BASE: Row(TopK()),
        "top-k, 6 experts": Row(TopK(6)),
        "top-k, 12 experts": Row(more),
        "top-k, 12 experts, extra ones at alpha 0.5": Row(more, alpha=0.5),
        "top-k, 4 to 8 experts by answer (DES)": Row(own_k),
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


def draw_of(row: Row, n: int, slots: int, most: int) -> Draw:
    """How a row's n answers to each question are drawn, so many side by side.

    most: tokens of an answer.
    """
    rule = DeepConf(warm_up=n, group=GROUP)
    how = (row.policy, NORMAL, n, most)
    return Draw(*how, slots=slots, deep_conf=rule)


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
    most: int,
    checkpoint: str,
    progress: Callable[[Status], None] | None = None,
) -> Run:
    """The answers of one row, in the run directory `path`; goes on there.

    Args:
      n: answers to each question, drawn with equal keys in every row.
      slots: answers drawn side by side.
      most: tokens of an answer.
      checkpoint: digest of the model's files.
      progress: called now and then.
    """
    evaluate(
        model.weighing(alpha=row.alpha),
        Countdown(),
        questions,
        draw_of(row, n, slots, most),
        path,
        checkpoint=f"{checkpoint}, alpha {row.alpha}",
        data={"file": "the demo's own problems"},
        keep=Keep(routes=True),
        progress=progress,
    )
    return read_run(path)


def table_of(runs: Mapping[str, Run]) -> str:
    """Markdown: measures of every row, what sets rows apart, and ways to choose.

    Intervals of 95 % resample whole sets of numbers; differences are paired.
    """
    base = next(iter(runs.values()))
    values = {name: values_of(run, scores_of(run)) for name, run in runs.items()}
    groups, first = base.groups, values[next(iter(runs))]
    names = measures(first, base.n)
    vote = majority_of(base.n)
    rivals, means, choices = _rivals(names, vote), [], []
    for name, own in values.items():
        shown = [_shown(own, measure, groups) for measure in names]
        apart = [_difference(own, m, first, m, groups) for m in names[:2]]
        means.append([name, *shown, *(apart if own is not first else ["", ""])])
    for name, own in (values | {TOGETHER: _mean(values.values())}).items():
        less = [_difference(own, m, own, vote, groups) for m in rivals]
        choices.append([name, *less])
    less = [f"{name} less {BASE}" for name in names[:2]]
    sampler = in_words(base.manifest["sampler"])
    return "\n".join(
        [
            f"{len(base.ids)} problems of {len(set(groups))} sets of numbers, {base.n} "
            f"answers each, {sampler}; percent, differences in points, not corrected "
            "for their number.",
            "",
            markdown_table(["policy", *names, *less], means),
            "",
            f"Ways to choose, each less the {vote} of the same answers:",
            "",
            markdown_table(["policy", *rivals], choices),
            "",
        ]
    )


def _mean(values: Iterable[Values]) -> Values:
    """Each problem's mean over rows, of the measures that all of them have."""
    every = list(values)
    shared = [name for name in every[0] if all(name in own for own in every)]
    return {name: np.mean([own[name] for own in every], axis=0) for name in shared}


def _rivals(names: Sequence[str], vote: str) -> list[str]:
    """What is set against the majority vote: one answer, and the other ways."""
    return [name for name in names if name != vote and not name.startswith("pass@")]


def _shown(own: Values, measure: str, groups: Sequence[str]) -> str:
    """Empty where a row's records do not allow it."""
    if measure not in own:
        return ""
    return percent(_numbers(bootstrap(own[measure], groups=groups)))


def _difference(
    own: Values, measure: str, other: Values, less: str, groups: Sequence[str]
) -> str:
    """own's measure less the other's; empty where a row's records do not allow it."""
    if measure not in own or less not in other:
        return ""
    found = paired_difference(own[measure], other[less], groups=groups)
    return points(_numbers(found))


def _numbers(found: Interval) -> list[float]:
    return [found.mean, found.low, found.high]
