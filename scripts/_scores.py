"""What an evaluation prints."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxmoe.demo import Problem
    from jaxmoe.demo.game_runs import Outcome
    from jaxmoe.evals.metrics import Interval
    from jaxmoe.evals.runs import Draw


def score(outcome: "Outcome", bands: "Mapping[Problem, str]") -> "dict[str, Any]":
    """Accuracy and pass@n, over all problems and by band; distinct right answers."""
    from jaxmoe.demo.game_runs import of_band

    rows: dict[str, Interval] = outcome.measures()
    for band in ("easy", "hard"):
        if some := of_band(outcome, bands, band):
            rows[f"accuracy, {band}"] = some.interval("accuracy")
    return {
        "problems": len(outcome.problems),
        "rows": rows,
        "distinct": float(outcome.distinct.mean()),
    }


def as_text(found: dict[str, Any], draw: "Draw") -> str:
    """A few lines for people."""
    lines = [
        f"{found['problems']} problems, {draw.n} answers each",
        f"{draw.policy}",
        f"{draw.sampler}",
        *(f"{name:>16}  {interval}" for name, interval in found["rows"].items()),
        f"{'distinct':>16}  {found['distinct']:.2f} right answers a problem",
    ]
    return "\n".join(lines)


def as_json(found: dict[str, Any], draw: "Draw", about: dict[str, Any]) -> str:
    """One line: means with the bounds of their intervals, and what they are of."""
    rows = {name: [i.mean, i.low, i.high] for name, i in found["rows"].items()}
    rest = {"problems": found["problems"], "distinct": found["distinct"]}
    return json.dumps(rows | rest | draw.describe() | about)
