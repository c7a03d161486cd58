"""Puts a task's questions to a model; accuracy, pass@n and votes with intervals."""

import argparse
import tempfile
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from jaxmoe.checkpoints.gcs import place_of
from jaxmoe.cli.bars import EvaluationBar
from jaxmoe.cli.deep_conf_options import add_deep_conf_options, deep_conf_of
from jaxmoe.cli.endings import command
from jaxmoe.cli.loading_options import digest_of
from jaxmoe.cli.mesh_options import add_mesh_options, load_model
from jaxmoe.cli.policy_options import add_policy_options, policy_of
from jaxmoe.cli.process_options import add_process_options, join_processes
from jaxmoe.cli.questions import questions_of
from jaxmoe.cli.sampler_options import add_sampler_options, sampler_of
from jaxmoe.cli.task_options import add_draw_options, add_task_options, draw_of
from jaxmoe.evals import evaluate as evaluation
from jaxmoe.evals.run import read_run
from jaxmoe.evals.shards import WHOLE, Shard
from jaxmoe.evals.summary import summarise
from jaxmoe.reports.comparison_json import as_json
from jaxmoe.reports.comparison_text import as_text
from jaxmoe.sharding import processes

EPILOG = """\
Means over questions with 95 % intervals (Student's t over groups of questions, with
some made up at both ends of the scale). Every answer is a pure function of the
options. --out keeps them, as they come; the same command goes on where it was
stopped. Parts of a run: --shard 0/2 and --shard 1/2, into one directory, at once."""


def parser() -> argparse.ArgumentParser:
    """All options."""
    made = argparse.ArgumentParser(
        "jaxmoe evaluate", description=__doc__, epilog=EPILOG
    )
    add = made.add_argument
    checkpoint = (
        "demo, demo-tries, or a directory or gs:// path that `jaxmoe convert` has made"
    )
    add("checkpoint", metavar="CKPT", nargs="?", default="demo", help=checkpoint)
    add_draw_options(made)
    out = "keep the answers in DIR, which may be gs://bucket/folder"
    add("--out", metavar="DIR", type=Path, help=out)
    add("--shard", metavar="I/M", help="only part I (from 0) of M; needs --out")
    add("--keep-tokens", action="store_true", help="keep token ids too")
    add("--keep-routes", action="store_true", help="keep every token's experts too")
    add("--graders", type=int, default=1, help="threads that grade (default: 1)")
    add("--json", action="store_true", help="print one JSON object")
    add_task_options(made)
    add_policy_options(made)
    add_sampler_options(made)
    add_deep_conf_options(made)
    add_mesh_options(made)
    add_process_options(made)
    return made


@command
def main(argv: list[str] | None = None) -> int:
    """Runs the command: 0 if done, 2 on input that does not fit."""
    args = parser().parse_args(argv)
    join_processes(args)
    text = _evaluate(args)
    if processes.is_first():
        print(text)
    processes.wait_for_all()
    return 0


def _evaluate(args: argparse.Namespace) -> str:
    """Draws and grades; what is to be said of the run, in the first process."""
    if args.shard is not None and args.out is None:
        raise ValueError("--shard needs --out, where the parts come together")
    shard = WHOLE if args.shard is None else Shard.parse(args.shard)
    policy, deep_conf = policy_of(args), deep_conf_of(args)
    task, questions, data = questions_of(args)
    digest = digest_of(args, args.checkpoint)
    model = load_model(args)
    draw = draw_of(args, policy, sampler_of(args, model))
    draw = replace(draw, deep_conf=deep_conf)
    place = tempfile.TemporaryDirectory() if args.out is None else nullcontext()
    with place as temporary:
        out = args.out or Path(temporary or "") / "run"
        with EvaluationBar(quiet=args.json or not processes.is_first()) as bar:
            evaluation.evaluate(
                model,
                task,
                questions,
                draw,
                out,
                checkpoint=digest,
                data=data,
                shard=shard,
                keep=evaluation.Keep(args.keep_tokens, args.keep_routes),
                thinking=args.thinking,
                graders=args.graders,
                progress=bar.show,
            )
        if not processes.is_first():
            return ""
        if shard.count > 1:
            shown = place_of(out) or out
            return (
                f"part {args.shard} is done; `jaxmoe compare {shown}` reads all parts"
            )
        found = summarise(read_run(out))
    return as_json(found) if args.json else as_text(found)
