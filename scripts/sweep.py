"""Sweeps Expert-Sample's numbers, token temperature and k over a task's questions."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from _evaluation_bar import EvaluationBar
from _interrupt import ends_quietly
from _judge import DEMO
from _run_text import comparison_text
from _running import digest_of, input_errors, keep_compiled
from _sampler_options import add_sampler_options, sampler_of
from _sweep_files import write_sweep
from _task_options import add_draw_options, add_task_options, draw_of, questions_of

if TYPE_CHECKING:
    from jaxmoe.config import ModelConfig
    from jaxmoe.evals.sweeps import Point

EPILOG = """\
Every combination is a run directory below --out, as evaluate.py writes it; the baseline
is topk. The same command goes on where it was stopped. sweep.json holds all numbers;
with matplotlib there are heat maps of the differences from the baseline."""


def _numbers(kind):
    def parse(text: str) -> tuple:
        return tuple(kind(part) for part in text.split(","))

    return parse


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG)
    add = parser.add_argument
    checkpoint = "demo, or a directory that `python -m convert` has written"
    add("checkpoint", metavar="CKPT", nargs="?", default=DEMO, help=checkpoint)
    add("--out", metavar="DIR", type=Path, required=True, help="where all runs go")
    add("--k-keep", type=_numbers(int), default=(), metavar="K,K,..")
    add("--r", type=_numbers(int), default=(), metavar="R,R,..")
    add("--tau", type=_numbers(float), default=(), metavar="T,T,..")
    hot = "token temperatures, each with a baseline of its own"
    add("--temperatures", type=_numbers(float), default=(), metavar="T,T,..", help=hot)
    fewer = "also topk with so many experts (reduction study)"
    add("--k", type=_numbers(int), default=(), metavar="K,K,..", help=fewer)
    add_draw_options(parser)
    add_task_options(parser)
    add_sampler_options(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs the command: 0 if done, 2 on input that does not fit."""
    args = _parser().parse_args(argv)
    with ends_quietly(), input_errors():
        import jaxmoe
        from jaxmoe.evals.evaluation import evaluate
        from jaxmoe.evals.run import read_run
        from jaxmoe.evals.sweeps import check_points, compare_points

        keep_compiled()
        task, questions, data = questions_of(args)
        model = jaxmoe.load(args.checkpoint)
        points = _points(args, model.config)
        check_points(points, model.config)
        sampler, digest = sampler_of(args, model), digest_of(args.checkpoint)
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
        write_sweep(args.out, points, found)
    print(comparison_text(found))
    return 0


def _points(args: argparse.Namespace, config: "ModelConfig") -> "list[Point]":
    """The grid asked for; what one of three numbers is not given is the default."""
    from jaxmoe.evals.sweeps import grid

    k, experts = config.experts_per_token, config.num_experts
    keep, reach, tau = args.k_keep, args.r, args.tau
    if keep or reach or tau:
        keep, reach = keep or (k // 2 + 1,), reach or (min(4 * k, experts),)
        tau = tau or (1.0,)
    hot = args.temperatures
    return grid(k_keep=keep, r=reach, tau=tau, temperature=hot, k=args.k)


if __name__ == "__main__":
    sys.exit(main())
