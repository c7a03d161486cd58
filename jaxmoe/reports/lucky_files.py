"""Lucky routes of several answers: a CSV file of all, and a table of the first."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxmoe.analysis.lucky_routes import LuckyRoute, LuckyRoutes
from jaxmoe.files import write_text
from jaxmoe.reports.comparison_csv import csv_text

Named = Sequence[tuple[str, LuckyRoutes]]
"""(name of the answer, its routes)."""

HEAD = ("answer", *LuckyRoute._fields)
NOTE = """\
own, other: log-probability of the route under the policy that drew the answer, and
under the other one. loss: log-probability of what follows, less that where the other
policy chooses there. Of many routes the largest loss is large by chance too."""


def write_lucky(out: Path, found: Named) -> None:
    """Writes lucky.csv: every route that differs, the largest loss of each first."""
    rows = (
        (name, *route)
        for name, routes in found
        for route in routes.ranked(most=routes.loss.size)
    )
    write_text(out / "lucky.csv", csv_text(HEAD, rows))


def lucky_table(found: Named, most: int = 20) -> str:
    """The routes of all answers that were worth most, and the mean of each layer."""
    every = [(name, route) for name, routes in found for route in routes.ranked()]
    every.sort(key=lambda pair: -pair[1].loss)
    head = f"{'position':>8}  {'layer':>5}  {'token':>6}  {'own':>8}  {'other':>8}  "
    lines = [
        f"{r.position:8}  {r.layer:5}  {r.token:6}  {r.own:8.3f}  {r.other:8.3f}  "
        f"{r.loss:8.4f}  {name}"
        for name, r in every[:most]
    ]
    return "\n".join(
        [head + f"{'loss':>8}  answer", *lines, "", _by_layer(found), NOTE]
    )


def _by_layer(found: Named) -> str:
    layers = found[0][1].layers
    loss = np.concatenate([routes.loss for _, routes in found]).sum(axis=0)
    differs = np.concatenate([routes.differs for _, routes in found]).sum(axis=0)
    shown = ", ".join(
        f"{layer}: {total / max(count, 1):.4f} ({count})"
        for layer, total, count in zip(layers, loss, differs, strict=True)
    )
    return f"mean loss by layer (routes that differ): {shown}"
