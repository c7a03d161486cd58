"""Measures accuracy and pass@n of a model on the demo's problems."""

import argparse
import json
import sys
from pathlib import Path

from _interrupt import ends_quietly
from _judge import DEMO
from _policy_options import add_policy_options, policy_of
from _running import input_errors, keep_compiled
from _sampler_options import add_sampler_options, sampler_of
from _scoreboard import Scoreboard

EPILOG = """\
Prints means over problems with 95 % bootstrap intervals. Every answer is drawn again on
the next run with the same options; --out keeps them, and a killed run goes on there."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG)
    add = parser.add_argument
    checkpoint = "demo, or a directory that `python -m convert` has written"
    add("checkpoint", metavar="CKPT", nargs="?", default=DEMO, help=checkpoint)
    add("--n", type=int, default=32, help="answers to each problem (default: 32)")
    add("--problems", type=int, metavar="P", help="only the first P of the 512")
    add("--split", choices=("test", "validation"), default="test")
    add("--seed", type=int, default=0, help="0..2**32 - 1 (default: 0)")
    add("--slots", type=int, metavar="S", help="side by side (default: 64 or fewer)")
    add("--out", metavar="FILE", type=Path, help="keep the answers in FILE")
    add("--json", action="store_true", help="print one JSON object")
    add_policy_options(parser)
    add_sampler_options(parser)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs the command: 0 if done, 2 on input that does not fit."""
    args = _parser().parse_args(argv)
    with ends_quietly(), input_errors():
        import jaxmoe
        from jaxmoe import demo
        from jaxmoe.demo.game_runs import play, summary
        from jaxmoe.evals.runs import Draw

        keep_compiled()
        policy = policy_of(args)
        model = jaxmoe.load(args.checkpoint)
        bands = demo.bands(args.split)
        problems = list(bands)[: args.problems]
        draw = Draw(policy, sampler_of(args, model), args.n, 1, args.seed, args.slots)
        about = {"checkpoint": args.checkpoint}
        with Scoreboard(len(problems), quiet=args.json) as board:
            outcome = play(
                model, problems, draw, args.out, about=about, progress=board.show
            )
        rows = summary(outcome, bands)
    if args.json:
        values = {n: [i.mean, i.low, i.high] for n, i in rows.items()}
        print(json.dumps(values | {"problems": len(problems), "n": args.n}))
        return 0
    print(f"{len(problems)} problems, {args.n} answers each, {policy}")
    for name, interval in rows.items():
        print(f"{name:>16}  {interval}")
    distinct = float(outcome.distinct.mean())
    print(f"{'distinct':>16}  {distinct:.2f} right answers that differ, a problem")
    return 0


if __name__ == "__main__":
    sys.exit(main())
