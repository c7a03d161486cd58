"""Sweeps Expert-Sample's numbers, token temperature and k over a task's questions."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jaxmoe.checkpoints.gcs import require_local
from jaxmoe.cli.bars import EvaluationBar
from jaxmoe.cli.endings import command, figures_if_possible
from jaxmoe.cli.loading_options import add_loading_options, digest_of, load
from jaxmoe.cli.questions import questions_of
from jaxmoe.cli.sampler_options import add_sampler_options, sampler_of
from jaxmoe.cli.task_options import add_draw_options, add_task_options, draw_of
from jaxmoe.config import ModelConfig
from jaxmoe.evals.evaluate import evaluate
from jaxmoe.evals.run import read_run
from jaxmoe.evals.sweeps import Point, check_points, compare_points, grid
from jaxmoe.reports.comparison_text import comparison_text
from jaxmoe.reports.sweep_files import write_sweep

EPILOG = """\
Every combination is a run directory below --out, as `jaxmoe evaluate` writes it; the
baseline is topk. The same command goes on where it was stopped. sweep.json holds all
numbers; with matplotlib there are heat maps of the differences from the baseline."""


def _several(kind: Callable[[str], Any]) -> Callable[[str], tuple[Any, ...]]:
    def parse(text: str) -> tuple[Any, ...]:
        return tuple(kind(part) for part in text.split(","))

    return parse


def parser() -> argparse.ArgumentParser:
    """All options."""
    made = argparse.ArgumentParser("jaxmoe sweep", description=__doc__, epilog=EPILOG)
    add = made.add_argument
    checkpoint = "demo, demo-tries, or a directory that `jaxmoe convert` has written"
    add("checkpoint", metavar="CKPT", nargs="?", default="demo", help=checkpoint)
    add("--out", metavar="DIR", type=Path, required=True, help="where all runs go")
    keep = "numbers of experts that are always taken"
    add("--k-keep", type=_several(int), default=(), metavar="K,K,..", help=keep)
    reach = "numbers of the best experts that the others are drawn from"
    add("--r", type=_several(int), default=(), metavar="R,R,..", help=reach)
    tau = "how noisy the choice is"
    add("--tau", type=_several(float), default=(), metavar="T,T,..", help=tau)
    hot = "token temperatures, each with a baseline of its own"
    add("--temperatures", type=_several(float), default=(), metavar="T,T,..", help=hot)
    fewer = "also topk with so many experts (reduction study)"
    add("--k", type=_several(int), default=(), metavar="K,K,..", help=fewer)
    add_draw_options(made)
    add_task_options(made)
    add_sampler_options(made)
    add_loading_options(made)
    return made


@command
def main(argv: list[str] | None = None) -> int:
    """Runs the command: 0 if done, 2 on input that does not fit."""
    args = parser().parse_args(argv)
    require_local(args.out)
    task, questions, data = questions_of(args)
    model = load(args, args.checkpoint)
    points = points_of(args, model.config)
    check_points(points, model.config)
    digest = digest_of(args, args.checkpoint)
    sampler = sampler_of(args, model)
    for index, point in enumerate(points):
        print(f"[{index + 1}/{len(points)}] {point.name}", flush=True)
        draw = draw_of(args, point.policy, point.sampler(sampler))
        with EvaluationBar(quiet=False) as bar:
            evaluate(
                model,
                task,
                questions,
                draw,
                args.out / point.name,
                checkpoint=digest,
                data=data,
                progress=bar.show,
            )
    runs = [read_run(args.out / point.name) for point in points]
    found = compare_points(points, runs)
    with figures_if_possible("no heat maps"):
        write_sweep(args.out, points, found)
    print(comparison_text(found))
    return 0


def points_of(args: argparse.Namespace, config: ModelConfig) -> list[Point]:
    """The grid asked for; what one of three numbers is not given is the default."""
    k, experts = config.experts_per_token, config.num_experts
    keep, reach, tau = args.k_keep, args.r, args.tau
    if keep or reach or tau:
        keep, reach = keep or (k // 2 + 1,), reach or (min(4 * k, experts),)
        tau = tau or (1.0,)
    hot = args.temperatures
    return grid(k_keep=keep, r=reach, tau=tau, temperature=hot, k=args.k)
