"""Counterfactual routes as rows of numbers, and as a table of text."""

from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxmoe.analysis.counterfactual import EDGES, Counterfactuals, Importance
from jaxmoe.evals.metrics import Interval

MEASURES = ("utility", "best", "mixed", "better", "found", "logprob")
"""Of `Sums`, as columns."""

NOTE = """\
utility: log p of what follows less that by the own route, nats, mean over alternatives.
best: of the best of them, which is above 0 by chance alone, and the more so the more
there are. mixed: of the mean of their distributions. better: alternatives above 0.
router: correlation of the router's score of an alternative with its utility, within a
token. Intervals: 95 %, over prompts (jackknife)."""


def bins() -> list[tuple[float, float]]:
    """Bounds in nats of each bin of the next token's entropy."""
    return list(zip((0.0, *EDGES), (*EDGES, float("inf")), strict=True))


def bin_name(at: int | None) -> str:
    """What tokens of a bin are called."""
    if at is None:
        return "all tokens"
    low, high = bins()[at]
    if np.isinf(high):
        return f"H >= {low:g}"
    return f"H < {high:g}" if low == 0 else f"{low:g} <= H < {high:g}"


def rows(found: Counterfactuals) -> Iterator[dict[str, Any]]:
    """Each set of layers, of all tokens and of each bin that has any."""
    for name in found.names:
        for at in (None, *range(len(EDGES) + 1)):
            tokens = found.tokens(name, at)
            if not tokens:
                continue
            row: dict[str, Any] = {"layers": name, "tokens": bin_name(at), "at": at}
            row["count"] = tokens
            for measure in MEASURES:
                row[measure] = found.mean(measure, name, at)
            row["router"] = found.correlation(name, at)
            yield row


def table(found: Counterfactuals) -> str:
    """A line for each set of layers, of all tokens; then the bins of the last set."""
    every = list(rows(found))
    last = found.names[-1]
    shown = [r for r in every if r["at"] is None]
    shown += [r for r in every if r["at"] is not None and r["layers"] == last]
    head = (
        f"{'layers':>8}  {'tokens':<16} {'count':>7}  {'utility':>24}  {'best':>7}  "
        f"{'mixed':>7}  {'better':>6}  {'router':>6}"
    )
    lines = [
        f"{r['layers']:>8}  {r['tokens']:<16} {r['count']:7}  "
        f"{with_bounds(r['utility']):>24}  {r['best'].mean:7.4f}  "
        f"{r['mixed'].mean:7.4f}  {100 * r['better'].mean:4.0f} %  "
        f"{r['router'].mean:6.2f}"
        for r in shown
    ]
    return "\n".join([head, *lines, "", NOTE])


def importance_rows(found: Importance) -> Iterator[dict[str, Any]]:
    """Each expert that some token had."""
    count = found.count.sum(axis=0)
    for place, layer in enumerate(found.layers):
        for expert in np.flatnonzero(count[place]).tolist():
            yield {
                "layer": layer,
                "expert": expert,
                "count": int(count[place, expert]),
                "loss": found.expert(layer, expert),
            }


def importance_table(found: Importance) -> str:
    """Loss by the rank of the expert that is left out, a line a layer."""
    ranks = found.by_rank.shape[2]
    head = "layer  " + "".join(f"{f'rank {r + 1}':>9}" for r in range(ranks))
    lines = [
        f"{layer:5}  "
        + "".join(f"{found.rank(layer, r).mean:9.4f}" for r in range(ranks))
        for layer in found.layers
    ]
    note = "log-probability lost without the expert of a rank, nats."
    return "\n".join([head, *lines, "", note])


def with_bounds(found: Interval) -> str:
    """-0.0123 [-0.0150, -0.0100]."""
    if np.isnan(found.low):
        return f"{found.mean:.4f}"
    return f"{found.mean:.4f} [{found.low:.4f}, {found.high:.4f}]"
