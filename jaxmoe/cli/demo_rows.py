"""Drawing a row of one of the demo's studies, with a bar."""

import time
from collections.abc import Collection, Sequence
from pathlib import Path

from jaxmoe.cli.bars import EvaluationBar
from jaxmoe.demo import game_runs
from jaxmoe.demo.game_runs import Outcome
from jaxmoe.demo.held_out import HeldOut, problems_of
from jaxmoe.demo.study_files import answers_folder
from jaxmoe.evals.draw import Draw
from jaxmoe.files import read_object
from jaxmoe.model import Model


def play_row(
    out: Path,
    name: str,
    model: Model,
    asked: Sequence[HeldOut],
    draw: Draw,
    checkpoint: str,
) -> Outcome:
    """Draws a row's answers, or goes on with them, and says how it did."""
    began = time.perf_counter()
    with EvaluationBar(quiet=False) as bar:
        outcome = game_runs.play(
            model,
            problems_of(asked),
            draw,
            answers_folder(out, name),
            checkpoint=checkpoint,
            progress=bar.show,
        )
    accuracy, seconds = outcome.values("accuracy").mean(), time.perf_counter() - began
    print(f"{name:24} accuracy {accuracy:.1%}  {seconds:.0f} s", flush=True)
    return outcome


def check_kept(out: Path, rows: Collection[str]) -> None:
    """Raises ValueError where results in `out` have rows that these do not."""
    if not (path := out / "results.json").exists():
        return
    before = read_object(path).get("configurations")
    if not isinstance(before, dict):
        raise ValueError(f"{path}: expected a study's results; name another OUT")
    if lost := [name for name in before if name not in rows]:
        raise ValueError(
            f"{path} has rows that this run would leave out, {lost}: ask for them "
            "too (their answers are kept), or name another OUT"
        )


def first_asked(asked: list[HeldOut], count: int | None) -> list[HeldOut]:
    """The first `count` of the problems that are asked; None for all."""
    if count is not None and not 1 <= count <= len(asked):
        raise ValueError(f"--problems must be 1 to {len(asked)}, found {count}")
    return asked[:count]
