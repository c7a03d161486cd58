"""Measures accuracy and pass@n of a model on the demo's problems."""

import argparse
import sys
from pathlib import Path

from _interrupt import ends_quietly
from _judge import DEMO
from _policy_options import add_policy_options, policy_of
from _problem_options import add_problems_option, first_problems
from _progress_bar import ProgressBar
from _running import digest_of, input_errors, keep_compiled
from _sampler_options import add_sampler_options, sampler_of
from _sampling_options import seed
from _scores import as_json, as_text, score

EPILOG = """\
Prints means over problems with 95 % bootstrap intervals. Every answer is drawn again on
the next run with the same options; --out keeps them, and a killed run goes on there."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG)
    add = parser.add_argument
    checkpoint = "demo, or a directory that `python -m convert` has written"
    add("checkpoint", metavar="CKPT", nargs="?", default=DEMO, help=checkpoint)
    add("--n", type=int, default=32, help="answers to each problem (default: 32)")
    add_problems_option(parser)
    add("--split", choices=("test", "validation"), default="test")
    add("--seed", type=seed, default=0, help="0..2**32 - 1 (default: 0)")
    add("--slots", type=int, metavar="S", help="side by side (default: 64 or fewer)")
    add("--out", metavar="FILE", type=Path, help="keep the answers in FILE")
    add("--noisy-prefill", action="store_true", help="route prompts with noise too")
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
        from jaxmoe.demo.game_runs import MAX_NEW_TOKENS, play
        from jaxmoe.evals.runs import Draw

        keep_compiled()
        policy = policy_of(args)
        problems = first_problems(args.split, args.problems)
        model = jaxmoe.load(args.checkpoint)
        sampler = sampler_of(args, model)
        numbers = (args.n, MAX_NEW_TOKENS, args.seed, args.slots, args.noisy_prefill)
        draw = Draw(policy, sampler, *numbers)
        about = {"checkpoint": digest_of(args.checkpoint)}
        with ProgressBar(len(problems), quiet=args.json) as bar:
            outcome = play(
                model, problems, draw, args.out, about=about, progress=bar.show
            )
        found = score(outcome, demo.bands(args.split))
    print(as_json(found, draw, about) if args.json else as_text(found, draw))
    return 0


if __name__ == "__main__":
    sys.exit(main())
