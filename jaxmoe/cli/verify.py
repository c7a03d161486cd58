"""Scores a run's answers by a chat model or a process-reward one, kept in a file."""

import argparse
import os
import shlex
from pathlib import Path

from jaxmoe.cli.bars import ProgressBar
from jaxmoe.cli.endings import command, say_error
from jaxmoe.cli.fields import refuse_unread
from jaxmoe.cli.loading_options import add_loading_options, digest_of, load
from jaxmoe.evals.chat_verifier import ChatVerifier
from jaxmoe.evals.process_reward import REDUCTIONS, ProcessReward
from jaxmoe.evals.run import read_run
from jaxmoe.evals.score_files import Identity, score_run
from jaxmoe.evals.verifiers import Verifier, VerifierError

EPILOG = """\
--url asks any endpoint that takes OpenAI's chat completions, one request an answer.
--verifier runs a process-reward model such as Qwen2.5-Math-PRM-7B in this process: each
step of an answer, between blank lines, gets a probability. Scores are kept as they
come; the same command goes on where it was stopped. The file's first line says whose
scores they are, and those of another verifier are not added. Give each run its own."""

OF_URL = ("model", "key_env", "workers")
OF_VERIFIER = ("reduce", "cut", "override", "ignore", "no_verify", "weights")
"""Options that only one kind of verifier reads."""


def parser() -> argparse.ArgumentParser:
    """All options."""
    made = argparse.ArgumentParser("jaxmoe verify", description=__doc__, epilog=EPILOG)
    add = made.add_argument
    add("run", metavar="RUN", type=Path, help="a run directory")
    either = made.add_mutually_exclusive_group(required=True)
    url = "up to and without /chat/completions, such as http://localhost:8000/v1"
    either.add_argument("--url", help=url)
    verifier = "the checkpoint of a process-reward model"
    either.add_argument("--verifier", metavar="CKPT", help=verifier)
    add("--model", metavar="NAME", help="the model's name there; needed with --url")
    key = "the environment variable that holds the key (default: no key)"
    add("--key-env", metavar="VAR", help=key)
    workers = "problems scored at once (default: 4)"
    add("--workers", type=int, default=4, help=workers)
    reduce = "how steps' probabilities become a score (default: product)"
    add("--reduce", choices=REDUCTIONS, default="product", help=reduce)
    cut = "of answers too long for --verifier take the last steps that fit"
    add("--cut", action="store_true", help=cut)
    out = "the file of scores (JSON lines)"
    add("--out", metavar="FILE", type=Path, required=True, help=out)
    add_loading_options(made)
    return made


@command
def main(argv: list[str] | None = None) -> int:
    """Runs the command: 0 if done, 1 if scores did not come, 2 on unfit input."""
    made = parser()
    args = made.parse_args(argv)
    if args.verifier is None:
        refuse_unread(made, args, OF_VERIFIER, "is for --verifier, found --url")
    else:
        refuse_unread(made, args, OF_URL, "is for --url, found --verifier")
    # One queue of work on the device: threads would only wait for each other.
    workers = args.workers if args.verifier is None else 1
    verifier, identity = _verifier(args)
    run = read_run(args.run)
    try:
        with ProgressBar(len(run.ids), quiet=False) as bar:
            score_run(
                run,
                verifier,
                args.out,
                identity=identity,
                workers=workers,
                progress=bar.show,
            )
    except VerifierError as error:
        say_error(error)
        return 1
    scores = ["--scores", f"{run.name}={args.out}"]
    print(f"{args.out} holds {run.n} scores for each of {len(run.ids)} problems; now:")
    print(shlex.join(["jaxmoe", "compare", str(args.run), *scores]))
    return 0


def _verifier(args: argparse.Namespace) -> tuple[Verifier, Identity]:
    """What scores, and what tells its scores from another's."""
    if args.verifier is not None:
        model = load(args, args.verifier)
        identity = {"checkpoint": digest_of(args, args.verifier)}
        if args.weights is not None:
            identity["weights"] = args.weights
        how = {"reduce": args.reduce, "cut": args.cut}
        return ProcessReward(model, **how), identity | how
    if args.model is None:
        raise ValueError("--model is needed with --url, the model's name there")
    identity = {"url": args.url, "model": args.model}
    return ChatVerifier(**identity, key=_key(args.key_env)), identity


def _key(variable: str | None) -> str | None:
    """The key, which must not stand on a command line, where others can read it."""
    if variable is None:
        return None
    if not (key := os.environ.get(variable)):
        # Not shown: someone may have given the key itself.
        raise ValueError(
            "--key-env must name an environment variable that holds the key, found "
            "none of this name, or an empty one; export it first"
        )
    return key
