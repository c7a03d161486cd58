"""Draws n answers to one prompt; each prints as soon as it is finished."""

import argparse
import sys

from _answers import Answers
from _interrupt import Interrupt, ends_quietly
from _policy_options import add_policy_options, policy_of
from _prompt_options import add_prompt_options, prompt_of
from _running import input_errors, keep_compiled
from _sampler_options import add_sampler_options, sampler_of
from _sampling_options import add_sampling_options, sampling_of

EPILOG = """\
Answer i is a pure function of checkpoint, prompt, options, seed and i: it is the same
whatever --n and --slots are. Ctrl-C prints what has finished; a second one ends at
once."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG)
    add = parser.add_argument
    add("checkpoint", metavar="CKPT", help="written by `python -m convert`")
    add_prompt_options(parser)
    add_policy_options(parser)
    add_sampler_options(parser)
    add_sampling_options(parser)
    dtype = "of the weights in memory (default: as the checkpoint has them)"
    add("--dtype", choices=("bfloat16", "float32"), help=dtype)
    add("--json", action="store_true", help="one JSON object a line, totals last")
    add("--quiet", action="store_true", help="only the text: no bar, headers, totals")
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs the command: 0 if done, 2 on input that does not fit, 130 on Ctrl-C."""
    args = _parser().parse_args(argv)
    interrupt = Interrupt()

    def progress(now):
        answers.progress(now)
        interrupt.check()

    with ends_quietly():
        with input_errors():
            stream = _start(args, progress)
        answers = Answers(args.n, seed=args.seed, as_json=args.json, quiet=args.quiet)
        with interrupt, answers:
            for answer in stream:
                interrupt.patient = True
                answers.add(answer)
    return 130 if answers.interrupted else 0


def _start(args: argparse.Namespace, progress):
    """The stream of answers; all input has been checked, nothing is computed."""
    import jaxmoe

    keep_compiled()
    policy = policy_of(args)
    model = jaxmoe.load(args.checkpoint, dtype=args.dtype)
    return jaxmoe.stream(
        model,
        prompt_of(args, model),
        policy=policy,
        sampler=sampler_of(args, model),
        progress=progress,
        **sampling_of(args),
    )


if __name__ == "__main__":
    sys.exit(main())
