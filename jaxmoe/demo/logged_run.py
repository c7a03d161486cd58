"""A training run of the demo model: what is printed, logged and made."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from jaxmoe import demo
from jaxmoe.demo.model_files import ATTRIBUTES, write_model, write_problems
from jaxmoe.demo.network import demo_config
from jaxmoe.demo.recipe import Recipe, Shapes
from jaxmoe.demo.training_run import Record, Rhythm, train
from jaxmoe.demo.training_start import Start
from jaxmoe.files import write_text

VALIDATION = 128
"""Problems behind the pass rate in the log."""


def run(
    out: Path,
    recipe: Recipe,
    shapes: Shapes = Shapes(),  # noqa: B008  frozen
    start: Start = Start(),  # noqa: B008  frozen
) -> list[Record]:
    """Trains in `out`, or goes on there, and writes the model's files at the end.

    Returns the records of the whole run, those of earlier goes too.
    """
    out.mkdir(parents=True, exist_ok=True)
    if not (out / "problems.json").exists():
        write_problems(out / "problems.json")
    validation = list(demo.bands("validation", out / "problems.json"))[:VALIDATION]
    rhythm = Rhythm(report=min(50, max(1, recipe.steps // 6)))
    log = out / "log.jsonl"
    attributes = ATTRIBUTES | shapes.attributes
    config = demo_config(attributes)
    for item in train(config, recipe, out, validation, start=start, rhythm=rhythm):
        if isinstance(item, Record):
            _note(item, log)
        else:
            _write_hf(out, item, attributes, recipe.balance)
    lines = log.read_text(encoding="utf-8").splitlines()
    return [Record(**json.loads(line)) for line in lines]


def _write_hf(
    out: Path,
    params: dict[str, np.ndarray],
    attributes: dict[str, Any],
    balance: float,
) -> None:
    # transformers sums over the k places, where our loss takes the mean.
    coefficient = balance / attributes["num_experts_per_tok"]
    attributes = attributes | {"router_aux_loss_coef": coefficient}
    partial, final = out / ".hf.partial", out / "hf"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    write_model(partial, params, attributes)
    shutil.rmtree(final, ignore_errors=True)
    partial.rename(final)


def _note(record: Record, log: Path) -> None:
    rate = record.pass_rate
    print(
        f"{record.step:6} updates  {record.seconds:6.0f} s  loss {record.entropy:.4f}  "
        f"balance {record.balance:.3f}  tokens right {record.accuracy:.1%}"
        + ("" if rate is None else f"  greedy answers right {rate:.1%}"),
        flush=True,
    )
    rounded = {
        name: round(value, 5) if isinstance(value, float) else value
        for name, value in asdict(record).items()
    }
    # A run that goes on from a saved state may have reported further than that.
    lines = log.read_text(encoding="utf-8").splitlines() if log.exists() else []
    lines = [line for line in lines if json.loads(line)["step"] < record.step]
    write_text(log, "".join(f"{line}\n" for line in [*lines, json.dumps(rounded)]))
