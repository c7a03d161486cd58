"""Puts a task's questions to a model; accuracy, pass@n and votes with intervals."""

import argparse
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

from _evaluation_options import parser_of
from _run_json import as_json
from _run_text import as_text
from _running import digest_of

from jaxmoe.cli.bars import EvaluationBar
from jaxmoe.cli.endings import ends_quietly, input_errors
from jaxmoe.cli.mesh_options import load_model
from jaxmoe.cli.policy_options import policy_of
from jaxmoe.cli.process_options import join_processes
from jaxmoe.cli.questions import questions_of
from jaxmoe.cli.sampler_options import sampler_of
from jaxmoe.cli.task_options import draw_of


def main(argv: list[str] | None = None) -> int:
    """Runs the command: 0 if done, 2 on input that does not fit."""
    args = parser_of(__doc__).parse_args(argv)
    with ends_quietly(), input_errors():
        from jaxmoe.sharding import processes

        join_processes(args)
        text = _evaluate(args)
        if processes.is_first():
            print(text)
        processes.wait_for_all()
    return 0


def _evaluate(args: argparse.Namespace) -> str:
    """Draws and grades; what is to be said of the run, in the first process."""
    from jaxmoe.evals.evaluate import Keep, evaluate
    from jaxmoe.evals.run import read_run
    from jaxmoe.evals.shards import WHOLE, Shard
    from jaxmoe.evals.summary import summarise
    from jaxmoe.sharding import processes

    if args.shard is not None and args.out is None:
        raise ValueError("--shard needs --out, where the parts come together")
    shard = WHOLE if args.shard is None else Shard.parse(args.shard)
    policy = policy_of(args)
    task, questions, data = questions_of(args)
    origin = {"checkpoint": digest_of(args.checkpoint), "data": data}
    model = load_model(args)
    draw = draw_of(args, policy, sampler_of(args, model))
    options = {"keep": Keep(args.keep_tokens, args.keep_routes), **origin}
    options |= {"thinking": args.thinking, "graders": args.graders, "shard": shard}
    place = tempfile.TemporaryDirectory() if args.out is None else nullcontext()
    with place as temporary:
        out = args.out or Path(temporary or "") / "run"
        with EvaluationBar(quiet=args.json or not processes.is_first()) as bar:
            evaluate(model, task, questions, draw, out, progress=bar.show, **options)
        if not processes.is_first():
            return ""
        if shard.count > 1:
            return f"part {args.shard} is done; `compare.py {out}` reads all parts"
        found = summarise(read_run(out))
    return as_json(found) if args.json else as_text(found)


if __name__ == "__main__":
    sys.exit(main())
