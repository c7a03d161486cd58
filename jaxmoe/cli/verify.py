"""Asks a chat model how good a run's answers are; keeps its scores in a file."""

import argparse
import os
import shlex
from pathlib import Path

from jaxmoe.cli.bars import ProgressBar
from jaxmoe.cli.endings import command, say_error
from jaxmoe.evals.chat_verifier import ChatVerifier
from jaxmoe.evals.run import read_run
from jaxmoe.evals.score_files import score_run
from jaxmoe.evals.verifiers import VerifierError

EPILOG = """\
Works with any endpoint that takes OpenAI's chat completions, one request an answer.
Scores are kept as they come; the same command goes on where it was stopped. Give each
run and each model its own file."""


def parser() -> argparse.ArgumentParser:
    """All options."""
    made = argparse.ArgumentParser("jaxmoe verify", description=__doc__, epilog=EPILOG)
    add = made.add_argument
    add("run", metavar="RUN", type=Path, help="a run directory")
    url = "up to and without /chat/completions, such as http://localhost:8000/v1"
    add("--url", required=True, help=url)
    add("--model", metavar="NAME", required=True, help="the model's name there")
    key = "the environment variable that holds the key (default: no key)"
    add("--key-env", metavar="VAR", help=key)
    workers = "problems scored at once (default: 4)"
    add("--workers", type=int, default=4, help=workers)
    out = "the file of scores (JSON lines)"
    add("--out", metavar="FILE", type=Path, required=True, help=out)
    return made


@command
def main(argv: list[str] | None = None) -> int:
    """Runs the command: 0 if done, 1 if scores did not come, 2 on unfit input."""
    args = parser().parse_args(argv)
    verifier = ChatVerifier(args.url, args.model, _key(args.key_env))
    run = read_run(args.run)
    try:
        with ProgressBar(len(run.ids), quiet=False) as bar:
            score_run(run, verifier, args.out, workers=args.workers, progress=bar.show)
    except VerifierError as error:
        say_error(error)
        return 1
    scores = ["--scores", f"{run.name}={args.out}"]
    print(f"{args.out} holds {run.n} scores for each of {len(run.ids)} problems; now:")
    print(shlex.join(["jaxmoe", "compare", str(args.run), *scores]))
    return 0


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
