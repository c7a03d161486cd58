"""Draws n answers to one prompt; each prints as soon as it is finished.

Without arguments: the demo model and a demo problem, each answer marked right or wrong.
"""

import argparse
import sys

from _answers import Answers
from _interrupt import Interrupt, ends_quietly
from _judge import DEMO, Judge, add_problem_option, judge_of
from _mesh_options import add_mesh_options, load_model
from _policy_options import add_policy_options, policy_of
from _prompt_options import add_prompt_options, prompt_of
from _running import input_errors
from _sampler_options import add_sampler_options, sampler_of
from _sampling_options import add_sampling_options, sampling_of

EPILOG = """\
Answer i is a pure function of checkpoint, prompt, options, seed and i, whatever --n and
--slots are. Ctrl-C prints what has finished; a second one ends at once."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, epilog=EPILOG)
    add = parser.add_argument
    checkpoint = "made by `python -m convert`, or Hugging Face's (default: demo)"
    add("checkpoint", metavar="CKPT", nargs="?", default=DEMO, help=checkpoint)
    add_problem_option(parser)
    add_prompt_options(parser)
    add_policy_options(parser)
    add_sampler_options(parser)
    add_sampling_options(parser)
    add_mesh_options(parser)
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
            judge = judge_of(args)
            stream = _start(args, judge, progress)
        answers = Answers(args, judge)
        with interrupt, answers:
            for answer in stream:
                interrupt.patient = True
                answers.add(answer)
    return 130 if answers.interrupted else 0


def _start(args: argparse.Namespace, judge: Judge | None, progress):
    """The stream of answers; all input has been checked, nothing is computed."""
    import jaxmoe

    policy = policy_of(args)
    model = load_model(args, dtype=args.dtype)
    return jaxmoe.stream(
        model,
        prompt_of(args, model) if judge is None else judge.problem.prompt,
        policy=policy,
        sampler=sampler_of(args, model),
        progress=progress,
        **sampling_of(args),
    )


if __name__ == "__main__":
    sys.exit(main())
