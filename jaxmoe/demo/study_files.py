"""The files of a study: results as JSON, a table, and figures."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxmoe.demo import router_study
from jaxmoe.demo.configuration_names import BASE
from jaxmoe.demo.game_runs import Outcome
from jaxmoe.demo.network import first_params
from jaxmoe.demo.recipe import Recipe
from jaxmoe.demo.study import report
from jaxmoe.demo.study_figures import plot_outcomes, plot_router
from jaxmoe.demo.study_table import tables
from jaxmoe.files import write_text
from jaxmoe.model import Model

ROUTED = 512
"""Answers whose tokens the router's curves are of."""


def answers_folder(out: Path, name: str) -> Path:
    """The run directory of a configuration."""
    return out / "answers" / re.sub("[ ,]+", "-", name)


def write_study(
    out: Path,
    model: Model,
    outcomes: Mapping[str, Outcome],
    about: dict[str, Any],
    slots: int,
) -> str:
    """Writes results.json, table.md, pass_at.png, router.png and differences.png.

    Returns:
      The text of table.md.
    """
    texts = outcomes[BASE].first_texts()[:ROUTED]
    trained = router_study.router_logits(model.config, model.params, texts)
    params = first_params(model.config, Recipe().seed)
    untrained = router_study.router_logits(model.config, params, texts)
    router = {
        "trained": router_study.describe(*trained),
        "untrained": router_study.describe(*untrained),
    }
    passes = {"router_passes": trained[0].shape[1]}
    results = about | report(outcomes, slots) | passes | {"router": router}
    write_text(out / "results.json", as_compact(results))
    text = tables(results)
    write_text(out / "table.md", text)
    plot_outcomes(out, outcomes)
    plot_router(out, model, trained[0])
    return text


def as_compact(results: dict[str, Any]) -> str:
    """JSON with one line for each list."""
    text = json.dumps(results, indent=1)
    return re.sub(r"\[[^][{]*\]", lambda m: " ".join(m[0].split()), text) + "\n"
