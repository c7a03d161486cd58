"""The command line of evaluate.py."""

import argparse
from pathlib import Path

from jaxmoe.cli.mesh_options import add_mesh_options
from jaxmoe.cli.policy_options import add_policy_options
from jaxmoe.cli.process_options import add_process_options
from jaxmoe.cli.sample import DEMO
from jaxmoe.cli.sampler_options import add_sampler_options
from jaxmoe.cli.task_options import add_draw_options, add_task_options

EPILOG = """\
Means over questions with 95 % bootstrap intervals. Every answer is a pure function of
the options. --out keeps them, as they come; the same command goes on where it was
stopped. Parts of a run: --shard 0/2 and --shard 1/2, into one directory, at once."""


def parser_of(about: str | None) -> argparse.ArgumentParser:
    """All options; `about` is what the script does."""
    parser = argparse.ArgumentParser(description=about, epilog=EPILOG)
    add = parser.add_argument
    checkpoint = "demo, or a directory or gs:// path that `python -m convert` has made"
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
    add_mesh_options(parser)
    add_process_options(parser)
    return parser
