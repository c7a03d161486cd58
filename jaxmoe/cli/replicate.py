"""Draws a paper's tables anew: a report of its figures beside one's own."""

import argparse
import math
import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import jaxmoe
from jaxmoe.analysis.passages import Passages
from jaxmoe.analysis.router_pass import accumulate
from jaxmoe.analysis.run_texts import run_rows
from jaxmoe.checkpoints.gcs import require_local
from jaxmoe.cli.bars import EvaluationBar, ProgressBar
from jaxmoe.cli.endings import command, figures_if_possible
from jaxmoe.cli.fields import refuse_unread
from jaxmoe.cli.loading_options import opened
from jaxmoe.cli.mesh_options import add_mesh_options, load_model
from jaxmoe.cli.process_options import add_process_options, join_processes
from jaxmoe.cli.questions import questions_of, task_named
from jaxmoe.cli.sampling_options import seed
from jaxmoe.cli.task_options import (
    DEMO_TASK,
    MAX_NEW_TOKENS,
    add_data_options,
)
from jaxmoe.config import ModelConfig
from jaxmoe.decode.inputs import check_whole
from jaxmoe.decode.sampler import TokenSampler
from jaxmoe.demo.game_runs import room_of
from jaxmoe.evals.draw import Draw
from jaxmoe.evals.evaluate import Status
from jaxmoe.evals.replication.costs import cost_of, hours_on
from jaxmoe.evals.replication.drawing import (
    Watch,
    draw_rows,
    draws_of,
    read_row_scores,
    read_rows,
    score_file,
)
from jaxmoe.evals.replication.recipe import (
    Benchmark,
    Recipe,
    model_of,
    read_recipe,
    require_model,
    twins,
)
from jaxmoe.evals.replication.results import VERIFIER, replicated
from jaxmoe.evals.run import Run
from jaxmoe.evals.score_files import verifier_of
from jaxmoe.evals.shards import WHOLE, Shard
from jaxmoe.evals.tasks.base import Question, Task
from jaxmoe.planning.models import config_of
from jaxmoe.reports.replication_files import write_replication
from jaxmoe.reports.replication_text import costs_text, replication_text
from jaxmoe.reports.router_files import write_routers
from jaxmoe.router.policies import TopK
from jaxmoe.sharding import processes

EPILOG = """\
`jaxmoe list recipes` lists them. Every row of a recipe is a run directory below OUT, as
`jaxmoe evaluate` writes it; the same command goes on where it was stopped, and parts
(--shard 0/2 and --shard 1/2) may be drawn at once. When all answers are there it writes
replication.html, .md and .json. Scores of a verifier are taken from
OUT/scores/ROW.jsonl, where `jaxmoe verify OUT/ROW --out OUT/scores/ROW.jsonl` puts
them. --dry-run says what all of it costs, of a released size such as 30b too."""


OF_DRAWING = (
    *("shard", "graders", "mesh", "rules", "weights", "no_verify", "override"),
    *("ignore", "distributed", "coordinator", "processes", "process"),
)
"""Options that costs do not depend on, or do not read."""


def parser() -> argparse.ArgumentParser:
    """All options."""
    made = argparse.ArgumentParser(
        "jaxmoe replicate", description=__doc__, epilog=EPILOG
    )
    add = made.add_argument
    add("recipe", metavar="RECIPE", help="`jaxmoe list recipes`, or a .toml file")
    add("--checkpoint", metavar="CKPT", help="of one of the recipe's models")
    add("--benchmark", metavar="NAME", help="one of the recipe's (needed if several)")
    add("--out", metavar="OUT", type=Path, help="where runs and the report go")
    add("--dry-run", action="store_true", help="say what it costs, and end")
    mean = "tokens of an answer, for the costs (default: the most there can be)"
    add("--mean-tokens", type=float, metavar="T", help=mean)
    add("--n", type=int, help="answers to each question (default: the recipe's)")
    add("--seed", type=seed, default=0, help="0..2**32 - 1 (default: 0)")
    most = "of an answer (default: the recipe's)"
    add("--max-new-tokens", type=int, metavar="N", help=most)
    add("--slots", type=int, metavar="S", help="side by side (default: the recipe's)")
    add("--shard", metavar="I/M", help="only part I (from 0) of M")
    add("--graders", type=int, default=1, help="threads that grade (default: 1)")
    other = "take a checkpoint of another model than the recipe's"
    add("--any-model", action="store_true", help=other)
    add_data_options(made.add_argument_group("questions"))
    add_mesh_options(made)
    add_process_options(made)
    return made


@command
def main(argv: list[str] | None = None) -> int:
    """Runs the command: 0 if done, 2 on input that does not fit."""
    made = parser()
    args = made.parse_args(argv)
    recipe = read_recipe(args.recipe)
    name, benchmark = _benchmark(args, recipe)
    _fill(args, recipe, benchmark)
    if args.dry_run:
        refuse_unread(made, args, OF_DRAWING, "does nothing with --dry-run")
        print(_costs(args, recipe, name, benchmark))
        return 0
    if args.out is None:
        raise ValueError("--out is needed, where runs and the report go")
    require_local(args.out)
    join_processes(args)
    text = _replicate(args, recipe, name, benchmark)
    if processes.is_first():
        print(text)
    processes.wait_for_all()
    return 0


# -- what is asked for -----------------------------------------------------------------


def _benchmark(args: argparse.Namespace, recipe: Recipe) -> tuple[str, Benchmark]:
    known = recipe.benchmarks
    name: str = args.benchmark or ""
    if not name and len(known) == 1:
        return next(iter(known.items()))
    if name not in known:
        raise ValueError(
            f"--benchmark must be one of {', '.join(known)} with recipe "
            f"{recipe.name}, found {name or 'none'}"
        )
    return name, known[name]


def _fill(args: argparse.Namespace, recipe: Recipe, benchmark: Benchmark) -> None:
    """Puts what the recipe says where an option was not given."""
    args.task = benchmark.task
    args.checkpoint = args.checkpoint or recipe.checkpoint
    if args.checkpoint is None:
        raise ValueError(
            f"--checkpoint is needed, of one of {', '.join(recipe.models)}"
        )
    if args.problems is None:
        args.problems = recipe.problems
    game = benchmark.task == DEMO_TASK
    default = room_of(args.checkpoint) if game else MAX_NEW_TOKENS
    said = {
        "n": recipe.n,
        "max_new_tokens": benchmark.max_new_tokens or default,
        "slots": recipe.slots,
    }
    for name, value in said.items():
        given = getattr(args, name)
        setattr(args, name, check_whole(name, value if given is None else given))
    if args.mean_tokens is not None and not 0 < args.mean_tokens < math.inf:
        raise ValueError(f"--mean-tokens must be above 0, found {args.mean_tokens}")


def _draws(
    args: argparse.Namespace, recipe: Recipe, config: ModelConfig
) -> dict[str, Draw]:
    """Each row as it is drawn, by the options."""
    return draws_of(
        replace(recipe, n=args.n),
        config,
        max_new_tokens=args.max_new_tokens,
        seed=args.seed,
        slots=args.slots,
    )


def _questions(
    args: argparse.Namespace, benchmark: Benchmark
) -> tuple[Task, list[Question], dict[str, Any]]:
    if args.data is None and args.task != DEMO_TASK:
        fields = "; ".join(f"{k}: {v}" for k, v in task_named(args.task).fields.items())
        raise ValueError(
            f"--data is needed, a file with a row for each question ({fields}): "
            f"{benchmark.about}"
        )
    return questions_of(args)


def _model(args: argparse.Namespace, recipe: Recipe, config: ModelConfig) -> str | None:
    """The recipe's name of the model, which it must be unless --any-model is given."""
    if args.any_model:
        return model_of(recipe, config)
    return require_model(recipe, config, args.checkpoint)


# -- costs -----------------------------------------------------------------------------


def _costs(
    args: argparse.Namespace, recipe: Recipe, name: str, benchmark: Benchmark
) -> str:
    """What all of it takes; no weights are read, and no data where it can be done."""
    config = config_of(args.checkpoint)
    _model(args, recipe, config)
    return _priced(args, recipe, name, benchmark, config, _problems(args, benchmark))


def _problems(args: argparse.Namespace, benchmark: Benchmark) -> int:
    """How many problems there are to be."""
    if args.problems is not None:
        check_whole("--problems", args.problems)
    if args.data is not None or args.task == DEMO_TASK:
        return len(_questions(args, benchmark)[1])
    known = [n for n in (benchmark.problems, args.problems) if n is not None]
    if not known:
        raise ValueError(
            "how many problems there are is not known without them: give --data, or "
            "--problems"
        )
    return min(known)


def _priced(
    args: argparse.Namespace,
    recipe: Recipe,
    name: str,
    benchmark: Benchmark,
    config: ModelConfig,
    problems: int,
) -> str:
    draws = _draws(args, recipe, config)
    cost = cost_of([*draws.values()], problems, args.mean_tokens)
    hours = hours_on(
        config,
        cost.by_passes,
        slots=args.slots,
        prompt=benchmark.prompt,
        answer=args.max_new_tokens,
    )
    head = f"{recipe.name} on {name}"
    return costs_text(head, draws, twins(recipe, config), problems, cost, hours)


# -- drawing ---------------------------------------------------------------------------


def _replicate(
    args: argparse.Namespace, recipe: Recipe, name: str, benchmark: Benchmark
) -> str:
    """Draws what is missing; the report, where all answers are there."""
    shard = WHOLE if args.shard is None else Shard.parse(args.shard)
    asked = _questions(args, benchmark)
    source = opened(args, args.checkpoint)
    model_name = _model(args, recipe, source.config)
    draws = _draws(args, recipe, source.config)
    digest = source.digest()
    if processes.is_first():
        count = len(asked[1])
        print(_priced(args, recipe, name, benchmark, source.config, count), flush=True)
    task, questions, data = asked
    model = load_model(args)
    draw_rows(
        model,
        task,
        questions,
        draws,
        args.out,
        routers=recipe.routers,
        watch=_watched([*draws]),
        checkpoint=digest,
        data=data,
        shard=shard,
        thinking=args.thinking,
        graders=args.graders,
    )
    if not processes.is_first():
        return ""
    runs, missing = read_rows(args.out, draws)
    if missing:
        return (
            f"part {args.shard} is done; answers of {', '.join(missing)} are missing. "
            "When all parts are done, the same command without --shard reports"
        )
    if recipe.routers is not None:
        _measure_routers(args, model, recipe.routers, digest)
    return _report(args, recipe, name, model_name, runs)


def _watched(rows: list[str]) -> Watch:
    """A line and a bar for each row."""

    @contextmanager
    def watch(row: str) -> Iterator[Callable[[Status], None]]:
        if processes.is_first():
            print(f"[{rows.index(row) + 1}/{len(rows)}] {row}", flush=True)
        with EvaluationBar(quiet=not processes.is_first()) as bar:
            yield bar.show

    return watch


def _measure_routers(
    args: argparse.Namespace, model: jaxmoe.Model, row: str, digest: str
) -> None:
    """Router curves on a row's answers, as `jaxmoe routers` writes them."""
    out, run = args.out / "routers", args.out / row
    if model.layout is not None:
        again = shlex.join(["jaxmoe", "routers", args.checkpoint, "--data", str(run)])
        print(f"routers are measured on one device: {again} --out {out}")
        return
    passages = Passages(
        model,
        run_rows(run, digest, task_named),
        policy=TopK(),
        sampler=TokenSampler(),
        seed=args.seed,
        n=1,
        max_new_tokens=0,
    )
    with ProgressBar(len(passages), quiet=False) as bar:
        routing = passages.routing()
        layers = accumulate(model, passages, policy=routing, progress=bar.show)
    out.mkdir(parents=True, exist_ok=True)
    with figures_if_possible("no figures of routers"):
        write_routers(
            out,
            layers,
            k=model.config.experts_per_token,
            digest=digest,
            policy=passages.described(),
        )


# -- the report ------------------------------------------------------------------------


def _report(
    args: argparse.Namespace,
    recipe: Recipe,
    name: str,
    model_name: str | None,
    runs: Mapping[str, Run],
) -> str:
    """Writes the report; what it says, and how to get scores that are missing."""
    scores = read_row_scores(args.out, runs)
    found = replicated(
        recipe,
        runs,
        model=model_name,
        benchmark=name,
        scores=scores,
        verifiers={row: verifier_of(score_file(args.out, row)) for row in scores},
        n=args.n,
    )
    write_replication(args.out, found)
    text = replication_text(found)
    wanted = any(VERIFIER in measure for measure in recipe.measures)
    if wanted and (missing := [row for row in runs if row not in scores]):
        text += "\nNo verifier's scores of " + ", ".join(missing) + ":\n"
        for row in missing:
            run, file = str(args.out / row), str(score_file(args.out, row))
            asked = shlex.join(["jaxmoe", "verify", run, "--out", file])
            text += f"  {asked} --verifier CKPT\n"
    return f"{text}\nwritten: {args.out / 'replication.html'}, .md, .json"
