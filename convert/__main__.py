"""The command line: `python -m convert SRC DST` and `--export CKPT OUT`."""

import argparse
import sys
import warnings

import jax

from convert.to_hf import export
from convert.to_jaxmoe import convert, find_source

EPILOG = """\
SRC is a directory with config.json and safetensors (one file, or shards and their
index), or the name of a model on the Hugging Face hub. The output appears when it is
complete; killed before, the same command goes on where it stopped, but for an
export, which begins anew."""


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m convert",
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
        help="store weights in this type (default: each in the type it has)",
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
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs the command; 0 if done, 1 on an error, 130 when interrupted."""
    parser = _parser()
    args = parser.parse_args(argv)
    if args.jobs < 1:
        parser.error(f"--jobs must be 1 or more, found {args.jobs}")
    if args.export and (args.dtype or args.verify):
        parser.error("--dtype and --verify do not go with --export")
    with warnings.catch_warnings():
        warnings.showwarning = _show
        return _run(args)


def _show(message, *_):
    print(f"warning: {message}", file=sys.stderr)


def _run(args: argparse.Namespace) -> int:
    try:
        if args.export:
            options = {"jobs": args.jobs, "force": args.force}
            totals = export(args.source, args.out, **options, show=True)
        else:
            totals = convert(
                find_source(args.source),
                args.out,
                dtype=args.dtype,
                jobs=args.jobs,
                force=args.force,
                verify=args.verify,
                show=True,
            )
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        how = "begins anew" if args.export else "goes on from here"
        print(f"interrupted; the same command {how}", file=sys.stderr)
        return 130
    print(f"{args.out}: {totals}")
    return 0


if __name__ == "__main__":
    # Nothing is computed here: leave accelerators to others.
    jax.config.update("jax_platforms", "cpu")
    sys.exit(main())
