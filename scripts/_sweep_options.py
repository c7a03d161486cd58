"""The command line of sweep.py, and the points that it asks for."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from jaxmoe.cli.sample import DEMO
from jaxmoe.cli.sampler_options import add_sampler_options
from jaxmoe.cli.task_options import add_draw_options, add_task_options

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


def parser_of(about: str | None) -> argparse.ArgumentParser:
    """All options; `about` is what the script does."""
    parser = argparse.ArgumentParser(description=about, epilog=EPILOG)
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


def points_of(args: argparse.Namespace, config: "ModelConfig") -> "list[Point]":
    """The grid asked for; what one of three numbers is not given is the default."""
    from jaxmoe.evals.sweeps import grid

    k, experts = config.experts_per_token, config.num_experts
    keep, reach, tau = args.k_keep, args.r, args.tau
    if keep or reach or tau:
        keep, reach = keep or (k // 2 + 1,), reach or (min(4 * k, experts),)
        tau = tau or (1.0,)
    hot = args.temperatures
    return grid(k_keep=keep, r=reach, tau=tau, temperature=hot, k=args.k)
