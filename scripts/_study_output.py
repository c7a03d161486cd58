"""What a study leaves behind: results as JSON, a table, and figures."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from _study_figures import plot_outcomes
from _study_table import tables

if TYPE_CHECKING:
    import jaxmoe
    from jaxmoe.demo.game_runs import Outcome


def write_study(
    out: Path, model: "jaxmoe.Model", outcomes: "Mapping[str, Outcome]"
) -> None:
    """Writes results.json, table.md, pass_at.png, router.png and differences.png."""
    from jaxmoe.demo.study import report

    results = report(outcomes) | {"router": _router(out, model)}
    _write(out / "results.json", _compact(results))
    text = tables(results)
    _write(out / "table.md", text)
    plot_outcomes(out, outcomes)
    print(text)


def _router(out: Path, model: "jaxmoe.Model") -> dict:
    """Score curves of the model, and of the weights that training began from."""
    from jaxmoe.analysis.plots import plot_rank_curves
    from jaxmoe.demo import router_study
    from jaxmoe.demo.network import first_params
    from jaxmoe.router.policies import ExpertSample, for_model

    config = model.config
    lines = (out / "answers" / "top-k-0.7.jsonl").read_text("utf-8").splitlines()
    prompts = json.loads(lines[0])["prompts"]
    rows = [json.loads(line) for line in lines[1:]]
    texts = [prompts[row["prompt"]] + row["answers"][0] for row in rows]
    found = router_study.router_logits(config, model.params, texts)
    untrained = router_study.router_logits(config, first_params(config, 0), texts)
    policy = for_model(ExpertSample(), config)
    plot_rank_curves(
        router_study.curves(found[0]),
        out / "router.png",
        k_keep=int(policy.k_keep[0]),
        k=config.experts_per_token,
        r=int(policy.r[0]),
        title="Router probability by rank (median, 10 to 90 %)",
    )
    return {
        "trained": router_study.describe(*found),
        "untrained": router_study.describe(*untrained),
    }


def _compact(results: dict) -> str:
    """JSON with one line for each list."""
    text = json.dumps(results, indent=1)
    return re.sub(r"\[[^][{]*\]", lambda m: " ".join(m[0].split()), text) + "\n"


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
