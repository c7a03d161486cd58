"""Measures jaxmoe on this machine: `python scripts/bench.py convert --help`."""

import argparse
import sys
import tempfile
from pathlib import Path


def add_convert(commands) -> None:
    """Adds the sub-command that compares conversion with copying."""
    parser = commands.add_parser(
        "convert",
        help="conversion against copying the same files",
        description="Makes a random checkpoint of --gb, then copies and converts it in "
        "turn, each time from a cold page cache. Needs twice that space.",
    )
    parser.add_argument("--gb", type=float, default=6.5, help="size (default: 6.5)")
    parser.add_argument("--rounds", type=int, default=3, help="default: 3")
    parser.add_argument("--jobs", type=int, default=8, help="default: 8")
    parser.add_argument(
        "--dir", type=Path, help="where to write (default: the temporary directory)"
    )
    parser.set_defaults(run=run_convert)


def run_convert(args: argparse.Namespace) -> int:
    """Runs the comparison and prints it."""
    from convert import benchmark

    # 1.29 GB a layer, and a quarter GB for embedding and head.
    layers = max(1, round((args.gb - 0.26) / 1.25))
    model = benchmark.MODEL | {"num_hidden_layers": layers}
    with tempfile.TemporaryDirectory(dir=args.dir) as scratch:
        source = Path(scratch) / "source"
        nbytes = benchmark.write_random(source, model, shard_bytes=2 << 30)
        rounds = []
        for _ in range(args.rounds):
            rounds.append(benchmark.one_round(source, Path(scratch), args.jobs))
            print(rounds[-1], flush=True)
        print(benchmark.summary(nbytes, rounds))
    return 0


def main() -> int:
    """Each benchmark is a sub-command: a function that adds it, one that runs it."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for add in (add_convert,):
        add(commands)
    args = parser.parse_args()
    return args.run(args)


if __name__ == "__main__":
    sys.exit(main())
