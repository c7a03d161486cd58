"""The command line: `python -m convert SRC DST` and `--export CKPT OUT`."""

import argparse
import json
import sys
import warnings
from typing import Any

import jax

from convert import destination
from convert.errors import ConversionError
from convert.processes import convert_in_processes
from convert.to_hf import export
from convert.to_jaxmoe import Changes, convert
from convert.together import convert_share
from convert.workers import Worker
from jaxmoe.checkpoints.hub import find_directory
from jaxmoe.files import printable

EPILOG = """\
SRC is a directory with config.json and safetensors (one file, or shards and their
index), or the name of a model on the Hugging Face hub. The output appears when it is
complete; killed before, the same command goes on where it stopped, but for an
export, which begins anew.

Several hosts that share a disk convert together: each runs the same command with a
--worker of its own, and the last to finish completes DST. The disk has to carry locks
(flock) between hosts; where it does not, use --processes on one of them."""


PROG = "python -m convert"


def make_parser(prog: str = PROG) -> argparse.ArgumentParser:
    """All options of the command that is called `prog`."""
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Convert a Hugging Face checkpoint to a jaxmoe checkpoint.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", metavar="SRC", help="what to read")
    parser.add_argument("out", metavar="DST", help="the directory to make")
    parser.add_argument(
        "--export",
        action="store_true",
        help="the other way: SRC is a jaxmoe checkpoint, DST gets safetensors",
    )
    parser.add_argument(
        "--dtype",
        choices=("bfloat16", "float32"),
        help="store weights in this type, FP8 dequantised for good (default: as is)",
    )
    parser.add_argument(
        "--weights",
        choices=("int8",),
        help="quantise experts, projections and head; cannot be exported",
    )
    parser.add_argument(
        "--jobs",
        type=int,
        default=8,
        metavar="N",
        help="parameters in flight (default: 8)",
    )
    parser.add_argument("--force", action="store_true", help="replace DST if it exists")
    parser.add_argument(
        "--verify", action="store_true", help="read everything again and compare"
    )
    add_changes(parser)
    add_workers(parser)
    return parser


def add_changes(parser: Any):
    """Adds --override and --ignore to a parser, or a group of one."""
    parser.add_argument(
        "--override",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="another value in config.json; VALUE is JSON, else text; a.b=1 is b in a",
    )
    parser.add_argument(
        "--ignore",
        action="append",
        default=[],
        metavar="KEY",
        help="leave KEY out of config.json, though it may change the answers",
    )


def read_override(text: str) -> tuple[str, Any]:
    """Name and value of KEY=VALUE.

    Raises:
      ConversionError: no such thing.
    """
    name, equals, value = text.partition("=")
    if not (name and equals):
        raise ConversionError(f"--override is KEY=VALUE, found {text!r}")
    try:
        return name, json.loads(value)
    except (ValueError, RecursionError):
        return name, value


def add_workers(parser: argparse.ArgumentParser):
    """The two ways to convert in several processes."""
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument(
        "--worker",
        metavar="I/M",
        help="convert part I of M (from 0) of the parameters, with M-1 other processes",
    )
    ways.add_argument(
        "--processes",
        type=int,
        metavar="N",
        help="start N such workers on this machine and wait for them",
    )


def main(argv: list[str] | None = None, prog: str = PROG) -> int:
    """Runs the command; 0 if done, 1 on an error, 130 when interrupted."""
    parser = make_parser(prog)
    args = parser.parse_args(argv)
    if args.jobs < 1:
        parser.error(f"--jobs must be 1 or more, found {args.jobs}")
    if args.export and (args.override or args.ignore):
        parser.error("--override and --ignore do not go with --export")
    if args.export and (args.dtype or args.weights or args.verify):
        parser.error("--dtype, --weights and --verify do not go with --export")
    if args.export and (args.worker is not None or args.processes is not None):
        parser.error("--worker and --processes do not go with --export")
    if args.force and (args.worker is not None or args.processes is not None):
        # One worker would begin anew what another has just completed.
        parser.error("--force goes with one process only; remove DST and DST.partial")
    if args.processes is not None and args.processes < 1:
        parser.error(f"--processes must be 1 or more, found {args.processes}")
    with warnings.catch_warnings():
        warnings.showwarning = _show
        return _run(args)


def _show(message, *_):
    print(f"warning: {printable(str(message))}", file=sys.stderr)


def _run(args: argparse.Namespace) -> int:
    try:
        totals = _work(args)
    except (ValueError, OSError) as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        how = "begins anew" if args.export else "goes on from here"
        print(f"interrupted; the same command {how}", file=sys.stderr)
        return 130
    print(f"{args.out}: {totals}")
    return 0


def _work(args: argparse.Namespace) -> object:
    """Does what is asked for; the totals to print."""
    if args.export:
        options = {"jobs": args.jobs, "force": args.force}
        return export(args.source, args.out, **options, show=True)
    source = find_directory(args.source)
    overrides = dict(map(read_override, args.override))
    if args.processes is not None:
        out, options = destination.absolute(args.out), _options(args)
        changes = Changes(overrides, tuple(args.ignore))
        return convert_in_processes(source, out, args.processes, options, changes)
    options = {
        "dtype": args.dtype,
        "weights": args.weights,
        "jobs": args.jobs,
        "force": args.force,
        "verify": args.verify,
        "show": True,
        "overrides": overrides,
        "ignore": args.ignore,
    }
    if args.worker is None:
        return convert(source, args.out, **options)
    worker = Worker.parse(args.worker)
    return convert_share(source, destination.absolute(args.out), worker, **options)


def _options(args: argparse.Namespace) -> list[str]:
    """The options that each of several processes is started with."""
    options = ["--jobs", str(args.jobs)]
    options += ["--dtype", args.dtype] if args.dtype else []
    options += ["--weights", args.weights] if args.weights else []
    options += [f"--override={text}" for text in args.override]
    options += [f"--ignore={name}" for name in args.ignore]
    return [*options, "--verify"] if args.verify else options


if __name__ == "__main__":
    # Nothing is computed here: leave accelerators to others.
    jax.config.update("jax_platforms", "cpu")
    sys.exit(main())
