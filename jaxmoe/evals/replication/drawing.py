"""Drawing a recipe's answers: a run directory a row, gone on with where it was stopped.

draws = draws_of(recipe, model.config, max_new_tokens=4096)
draw_rows(model, task, questions, draws, out, checkpoint=digest, data={"file": name})
runs, missing = read_rows(out, draws)
found = replicated(recipe, runs, model=None, benchmark="mine")
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

from jaxmoe.config import ModelConfig
from jaxmoe.evals.draw import Draw
from jaxmoe.evals.evaluate import Keep, Status, evaluate
from jaxmoe.evals.replication.recipe import Recipe, twins
from jaxmoe.evals.replication.results import VERIFIER, Scores
from jaxmoe.evals.run import IncompleteRunError, Run, read_run
from jaxmoe.evals.score_files import read_scores_of
from jaxmoe.evals.tasks.base import Question, Task
from jaxmoe.model import Model

Watch = Callable[[str], AbstractContextManager[Callable[[Status], None]]]
"""From a row that is begun to what is told, until it is done, how far it has come."""


def draws_of(
    recipe: Recipe,
    config: ModelConfig,
    *,
    max_new_tokens: int,
    seed: int = 0,
    slots: int | None = None,
) -> dict[str, Draw]:
    """Each row as it is drawn, but for those that draw what another does (`twins`).

    Raises:
      ValueError: a row that does not fit the model.
    """
    same = twins(recipe, config)
    how = {"max_new_tokens": max_new_tokens, "seed": seed, "slots": slots}
    return {
        row.name: recipe.draw_of(row, config, **how)
        for row in recipe.rows
        if row.name not in same
    }


def draw_rows(
    model: Model,
    task: Task,
    questions: Sequence[Question],
    draws: Mapping[str, Draw],
    out: Path,
    *,
    routers: str | None = None,
    watch: Watch = lambda row: nullcontext(lambda status: None),
    **options: Any,
) -> None:
    """Draws what is missing of each row, into its folder in `out`.

    Args:
      routers: the row whose tokens are kept, for measuring routers on them.
      watch: called at the start of each row.
      options: of `jaxmoe.evals.evaluate.evaluate`: checkpoint and data, and shard,
        thinking and graders.

    Raises:
      ValueError, OSError: as of `evaluate`.
    """
    for row, draw in draws.items():
        keep = Keep(tokens=row == routers)
        with watch(row) as show:
            evaluate(
                model,
                task,
                questions,
                draw,
                out / row,
                keep=keep,
                progress=show,
                **options,
            )


def read_rows(out: Path, rows: Iterable[str]) -> tuple[dict[str, Run], list[str]]:
    """The runs that are whole, and the rows that are not."""
    runs, missing = {}, []
    for row in rows:
        try:
            runs[row] = read_run(out / row)
        except IncompleteRunError:  # answers of another part
            missing.append(row)
    return runs, missing


def score_file(out: Path, row: str) -> Path:
    """Where a verifier's scores of a row's answers are looked for."""
    return out / "scores" / f"{row}.jsonl"


def read_row_scores(out: Path, runs: Mapping[str, Run]) -> dict[str, Scores]:
    """Row -> a verifier's scores of its answers, where they are there."""
    files = {row: score_file(out, row) for row in runs}
    return {
        row: {VERIFIER: read_scores_of(runs[row], file)}
        for row, file in files.items()
        if file.exists()
    }
