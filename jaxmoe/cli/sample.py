"""Draws n answers to one prompt; each prints as soon as it is finished.

Without arguments: the demo model and a demo problem, each answer marked right or wrong.
"""

import argparse
from collections.abc import Iterator

from jaxmoe import demo
from jaxmoe.checkpoints.bundled import is_bundled
from jaxmoe.cli.endings import Interrupt, command
from jaxmoe.cli.mesh_options import add_mesh_options, load_model
from jaxmoe.cli.policy_options import add_policy_options, policy_of
from jaxmoe.cli.prompt_options import (
    add_prompt_options,
    check_prompt_options,
    has_prompt,
    prompt_of,
)
from jaxmoe.cli.sample_output import Answers
from jaxmoe.cli.sampler_options import add_sampler_options, sampler_of
from jaxmoe.cli.sampling_options import add_sampling_options, sampling_of
from jaxmoe.demo.judge import Judge
from jaxmoe.sampling import Finished, stream

EPILOG = """\
Answer i is a pure function of checkpoint, prompt, options, seed and i, whatever --n and
--slots are. Ctrl-C prints what has finished; a second one ends at once."""


def parser() -> argparse.ArgumentParser:
    """All options."""
    made = argparse.ArgumentParser("jaxmoe sample", description=__doc__, epilog=EPILOG)
    add = made.add_argument
    checkpoint = "made by `jaxmoe convert`, or Hugging Face's (default: demo)"
    add("checkpoint", metavar="CKPT", nargs="?", default="demo", help=checkpoint)
    problem = (
        "ask demo, or demo-tries, test problem N, 0 to 511 (default: 0), and mark the "
        "answers; --prompt 2,5,8,12=27: asks one of your own"
    )
    add("--problem", type=int, metavar="N", help=problem)
    add_prompt_options(made)
    add_policy_options(made)
    add_sampler_options(made)
    add_sampling_options(made)
    add_mesh_options(made)
    dtype = "of the weights in memory (default: as the checkpoint has them)"
    add("--dtype", choices=("bfloat16", "float32"), help=dtype)
    add("--json", action="store_true", help="one JSON object a line, totals last")
    add("--quiet", action="store_true", help="only the text: no bar, headers, totals")
    return made


@command
def main(argv: list[str] | None = None) -> int:
    """Runs the command: 0 if done, 2 on input that does not fit, 130 on Ctrl-C."""
    args = parser().parse_args(argv)
    interrupt = Interrupt()

    def progress(now):
        answers.progress(now)
        interrupt.check()

    judge = judge_of(args)
    drawn = _start(args, judge, progress)
    shown = {"seed": args.seed, "as_json": args.json, "quiet": args.quiet}
    answers = Answers(args.n, judge=judge, **shown)
    with interrupt, answers:
        for answer in drawn:
            interrupt.patient = True
            answers.add(answer)
    return 130 if answers.interrupted else 0


def judge_of(args: argparse.Namespace) -> Judge | None:
    """Who judges answers of a demo model; None for another model or prompt.

    Raises:
      ValueError: options of a prompt that do not fit.
    """
    plays = is_bundled(args.checkpoint)
    if not plays and args.problem is not None:
        raise ValueError(
            "--problem goes with the demo models; leave out CKPT, or name one"
        )
    check_prompt_options(args, needed=not plays)
    if not plays:
        return None
    if not has_prompt(args):
        problems = demo.problems()
        number = args.problem or 0
        if not 0 <= number < len(problems):
            raise ValueError(
                f"--problem must be from 0 to {len(problems) - 1}, found {number}"
            )
        return Judge(problems[number])
    if args.problem is not None:
        raise ValueError("--problem stands for a prompt; leave out the other one")
    return None if args.prompt is None else Judge(demo.Problem.parse(args.prompt))


def _start(
    args: argparse.Namespace, judge: Judge | None, progress
) -> Iterator[Finished]:
    """The stream of answers; all input has been checked, nothing is computed."""
    policy = policy_of(args)
    model = load_model(args, dtype=args.dtype)
    return stream(
        model,
        prompt_of(args, model) if judge is None else judge.problem.prompt,
        policy=policy,
        sampler=sampler_of(args, model),
        progress=progress,
        **sampling_of(args),
    )
