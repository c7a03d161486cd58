"""Puts a task's questions to a model; accuracy, pass@n and votes with intervals."""

import argparse
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

from _evaluation_bar import EvaluationBar
from _interrupt import ends_quietly
from _judge import DEMO
from _policy_options import add_policy_options, policy_of
from _run_text import as_json, as_text
from _running import digest_of, input_errors, keep_compiled
from _sampler_options import add_sampler_options, sampler_of
from _task_options import add_draw_options, add_task_options, draw_of, questions_of

EPILOG = """\
Means over questions with 95 % bootstrap intervals. Every answer is a pure function of
the options. --out keeps them, as they come; the same command goes on where it was
stopped. Parts of a run: --shard 0/2 and --shard 1/2, into one directory, at once."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG)
    add = parser.add_argument
    checkpoint = "demo, or a directory that `python -m convert` has written"
    add("checkpoint", metavar="CKPT", nargs="?", default=DEMO, help=checkpoint)
    add_draw_options(parser)
    add("--out", metavar="DIR", type=Path, help="keep the answers in DIR")
    add("--shard", metavar="I/M", help="only part I (from 0) of M; needs --out")
    add("--keep-tokens", action="store_true", help="keep token ids too")
    add("--keep-routes", action="store_true", help="keep every token's experts too")
    add("--graders", type=int, default=1, help="threads that grade (default: 1)")
    add("--json", action="store_true", help="print one JSON object")
    add_task_options(parser)
    add_policy_options(parser)
    add_sampler_options(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs the command: 0 if done, 2 on input that does not fit."""
    args = _parser().parse_args(argv)
    with ends_quietly(), input_errors():
        import jaxmoe
        from jaxmoe.evals.evaluation import Keep, evaluate
        from jaxmoe.evals.run import read_run
        from jaxmoe.evals.shards import WHOLE, Shard
        from jaxmoe.evals.summary import summarise

        keep_compiled()
        if args.shard is not None and args.out is None:
            raise ValueError("--shard needs --out, where the parts come together")
        shard = WHOLE if args.shard is None else Shard.parse(args.shard)
        policy = policy_of(args)
        task, questions, data = questions_of(args)
        model = jaxmoe.load(args.checkpoint)
        draw = draw_of(args, policy, sampler_of(args, model))
        place = tempfile.TemporaryDirectory() if args.out is None else nullcontext()
        with place as temporary:
            out = args.out or Path(temporary or "") / "run"
            with EvaluationBar(quiet=args.json) as bar:
                evaluate(
                    model,
                    task,
                    questions,
                    draw,
                    out,
                    checkpoint=digest_of(args.checkpoint),
                    data=data,
                    shard=shard,
                    keep=Keep(args.keep_tokens, args.keep_routes),
                    thinking=args.thinking,
                    graders=args.graders,
                    progress=bar.show,
                )
            if shard.count > 1:
                print(f"part {args.shard} is done; `compare.py {out}` reads all parts")
                return 0
            found = summarise(read_run(out))
    print(as_json(found) if args.json else as_text(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
