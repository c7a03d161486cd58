"""What a run comes to: measures with intervals, curves, plain numbers."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from jaxmoe.evals.comparison import Curve, RunSummary
from jaxmoe.evals.diversity import distinct, mean_route_jaccard
from jaxmoe.evals.equal_answers import codes_of
from jaxmoe.evals.grading import ENDED
from jaxmoe.evals.metrics import Interval, bootstrap, pass_at
from jaxmoe.evals.rad import route_agreement
from jaxmoe.evals.run import Run, routes_of
from jaxmoe.evals.votes import (
    AGGREGATIONS,
    CERTAINTY,
    CONFIDENCE,
    best_of_k,
    codes,
    majority_at,
    majority_vote,
    weights_from,
)
from jaxmoe.typing import Float

ACCURACY = "accuracy"
MAJORITY = "majority vote"
LOGPROB = "mean log-probability"
LOGPROB_SUM = "sum of log-probabilities"
AGREEMENT = "route agreement at the first tokens"
"""RAD (`jaxmoe.evals.rad`); at another anchor it is a score that the caller gives."""


SECONDS = "seconds, compiling included"
SPEED = "tokens a second, compiling included"


def majority_of(n: int) -> str:
    """The name of the measure: a vote of more answers is another one."""
    return f"{MAJORITY} of {n}"


PER_PROBLEM = ("problems", "groups", "prompts", "references")
"""Entries of a manifest with one value for each problem; a summary leaves them out."""

Values = Mapping[str, Float[np.ndarray, "P"]]
"""Measure -> one number for each problem."""


def budgets(n: int) -> tuple[int, ...]:
    """Numbers of answers to report: 1, 2, 4, ... and n."""
    powers = [1 << i for i in range(n.bit_length())]
    return tuple(powers if powers[-1] == n else [*powers, n])


def scores_of(
    run: Run, more: Mapping[str, Float[np.ndarray, "P n"]] | None = None
) -> dict[str, Float[np.ndarray, "P n"]]:
    """The scores that answers can be ranked by; those that the run has, and `more`."""
    own = {
        LOGPROB: run.logprob_mean,
        LOGPROB_SUM: run.logprob_sum,
        CERTAINTY: run.self_certainty,
        CONFIDENCE: run.confidence,
    }
    if run.n > 1 and all(r.routes is not None for row in run.records for r in row):
        own[AGREEMENT] = route_agreement(run)
    known = {name: s for name, s in own.items() if not np.isnan(s).all()}
    return known | dict(more or {})


def values_of(run: Run, scores: Mapping[str, Float[np.ndarray, "P n"]]) -> Values:
    """Every measure of each problem, of all n answers (pass@k: unbiased, for each k).

    scores: name -> score of each answer, higher is better: what each of `AGGREGATIONS`
      makes of it. Log-probabilities are summed as probabilities (`weights_from`);
      other scores that may be negative are only averaged, since each vote would count
      against its answer.
    """
    correct, answers = run.correct, codes_of(run)
    n = correct.shape[1]
    right = correct.sum(axis=1)
    values = {ACCURACY: right / n}
    values |= {f"pass@{k}": pass_at(right, n, k) for k in budgets(n)[1:]}
    if n == 1:
        return values
    values[majority_of(n)] = majority_vote(answers, correct)
    for name, score in scores.items():
        logprobs = name in (LOGPROB, LOGPROB_SUM)
        for one in AGGREGATIONS:
            weights = weights_from(score) if logprobs and one.added else score
            if one.takes(name, weights):
                measure = one.measure.format(n=n, score=name)
                values[measure] = one.elect(answers, correct, weights)
    return values


def curves_of(
    run: Run,
    scores: Mapping[str, Float[np.ndarray, "P n"]],
    interval: Callable[[np.ndarray], Interval],
) -> dict[str, Curve]:
    """Measures against the number of answers."""
    correct, answers = run.correct, codes_of(run)
    n, right = correct.shape[1], correct.sum(axis=1)
    kinds: dict[str, Callable[[int], np.ndarray]] = {
        "pass@k": partial(pass_at, right, n),
        "majority@k": partial(majority_at, answers, correct),
    }
    for name, score in scores.items():
        kinds[f"best of k, {name}"] = partial(best_of_k, correct, score)
    ks = budgets(n)
    return {
        name: Curve(ks, tuple(interval(at(k)) for k in ks))
        for name, at in kinds.items()
    }


def numbers_of(run: Run) -> dict[str, float]:
    """Plain numbers beside the measures."""
    correct = run.correct
    answered = np.array([[a is not None for a in row] for row in run.answers])
    cut = np.array([[f == "length" for f in row] for row in run.finish])
    rights = [
        [a if ok else None for a, ok in zip(row, marks, strict=True)]
        for row, marks in zip(run.answers, correct, strict=True)
    ]
    numbers = {
        "mean tokens": float(run.lengths.mean()),
        "tokens in all": float(run.lengths.sum()),
        **_times(run),
        "share cut off": float(cut.mean()),
        "share without an answer": float(1 - answered.mean()),
        "distinct answers": float(distinct(codes_of(run)).mean()),
        "distinct right answers": float(distinct(codes(rights)).mean()),
    }
    for layer, overlap in route_overlap(run).items():
        numbers[f"route overlap (Jaccard), layer {layer}"] = overlap
    ended = np.array([[f == ENDED for f in row] for row in run.finish])
    if ended.any():
        numbers["share ended early"] = float(ended.mean())
    for name in _flags(run):
        marks = [r.details.get(name) for row in run.records for r in row]
        numbers[f"share {name}"] = float(np.mean([bool(m) for m in marks]))
    return numbers


def _times(run: Run) -> dict[str, float]:
    """Speed of what was timed; seconds in all, where that was the whole run.

    Shards count as drawn side by side, so the longest one's seconds are the run's.
    """
    timed = [go for go in run.goes if go.seconds > 0]
    if not timed:
        return {}
    shards = dict.fromkeys([go.shard for go in timed], 0.0)
    for go in timed:
        shards[go.shard] += go.seconds
    seconds = max(shards.values())
    speed = sum(go.tokens for go in timed) / seconds
    whole = sum(go.answers for go in timed) == len(run.manifest["problems"]) * run.n
    return {**({SECONDS: seconds} if whole else {}), SPEED: speed}


def summarise(
    run: Run,
    *,
    name: str | None = None,
    scores: Mapping[str, Float[np.ndarray, "P n"]] | None = None,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> RunSummary:
    """Measures and curves of a run, with bootstrap intervals over its groups.

    Args:
      name: None for the run's own.
      scores: further scores of its answers, such as a verifier's.
      level, resamples, seed: as in `jaxmoe.evals.metrics.bootstrap`.
    """
    options = {"level": level, "resamples": resamples, "seed": seed}
    interval = partial(bootstrap, groups=run.groups, **options)
    ranked = scores_of(run, scores)
    values = values_of(run, ranked)
    return RunSummary(
        name=name or run.name,
        about={k: v for k, v in run.manifest.items() if k not in PER_PROBLEM},
        n=run.correct.shape[1],
        measures={key: interval(value) for key, value in values.items()},
        numbers=numbers_of(run),
        curves=curves_of(run, ranked, interval) if run.correct.shape[1] > 1 else {},
        right=tuple(run.correct.sum(axis=1).tolist()),
    )


def route_overlap(run: Run, *, max_pairs: int = 64) -> dict[int, float]:
    """Layer -> mean Jaccard similarity of two answers' experts, over problems.

    At equal positions, of pairs of one problem's answers, `max_pairs` of them at most;
    1 where all go the same way. The first position is left out: its route is that of
    the prompt's last token, which all share. Empty where routes were not kept, one
    answer was drawn, or none has a second token.
    """
    if run.n == 1 or any(r.routes is None for row in run.records for r in row):
        return {}
    found = []
    for row in run.records:
        routes = [routes_of(record)[1:] for record in row]
        lengths = np.array([len(one) for one in routes])
        if np.sort(lengths)[-2] == 0:
            continue
        padded = np.full((run.n, lengths.max(), *routes[0].shape[1:]), -1, np.int16)
        for one, into in zip(routes, padded, strict=True):
            into[: len(one)] = one
        found.append(mean_route_jaccard(padded, lengths, max_pairs=max_pairs))
    if not found:
        return {}
    means = np.mean(found, axis=0)
    return {layer: float(v) for layer, v in enumerate(means) if not np.isnan(v)}


def _flags(run: Run) -> Sequence[str]:
    """Details of the grades that are true or false throughout."""
    records = [record for row in run.records for record in row]
    names = sorted({name for record in records for name in record.details})
    return [
        name
        for name in names
        if all(isinstance(r.details.get(name), bool) for r in records)
    ]
