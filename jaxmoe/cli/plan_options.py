"""Options: how large a load, on which chips."""

import argparse
from typing import get_args

from jaxmoe.cli.fields import add_field, help_of
from jaxmoe.decode.inputs import check_whole
from jaxmoe.planning import CHIPS, Chip, Load
from jaxmoe.sharding.rules import Preset

DTYPES = ("bfloat16", "float16", "float32")


def numbers(text: str) -> tuple[int, ...]:
    """Numbers above 0 with commas between them."""
    found = tuple(int(part) for part in text.split(","))
    if min(found) < 1:
        raise argparse.ArgumentTypeError(f"expected numbers above 0, found {text}")
    return found


def add_load_options(parser: argparse.ArgumentParser, chips: str) -> None:
    """What is asked for, of which chips."""
    defaults = {"n": 32, "context": 32768, "prompt": Load.prompt}
    for name, value in defaults.items():
        said = f"{help_of(Load)[name]} (default: {value})"
        add_field(parser, Load, name, default=value, help=said)
    add = parser.add_argument
    add("--chips", default=chips, help=f"of {', '.join(CHIPS)} (default: {chips})")
    add(
        "--rules",
        choices=get_args(Preset),
        default="auto",
        help="as --rules of `jaxmoe sample`",
    )
    dtype = "of weights and caches (default: bfloat16)"
    add("--dtype", choices=DTYPES, default="bfloat16", help=dtype)
    latency = "microseconds that a collective takes besides its bytes, assumed"
    add("--latency", type=float, default=10.0, help=f"{latency} (default: 10)")
    per_chip = "samples of each chip, for weak scaling (default: 1)"
    add("--per-chip", type=int, default=1, help=per_chip)
    ensemble = "as --ensemble of `jaxmoe sample`: J + 1 passes a token"
    add("--ensemble", type=int, metavar="J", help=ensemble)
    add("--json", action="store_true", help="print JSON")


def chips_of(text: str) -> list[Chip]:
    """The chips of these names."""
    names = text.split(",")
    unknown = [name for name in names if name not in CHIPS]
    if unknown:
        raise ValueError(
            f"--chips must be among {', '.join(CHIPS)}, found {', '.join(unknown)}"
        )
    return [CHIPS[name] for name in names]


def load_of(args: argparse.Namespace, n: int | None = None) -> Load:
    """What is asked for; n instead of --n."""
    routes = args.ensemble
    passes = 1 if routes is None else 1 + check_whole("--ensemble", routes)
    return Load(n or args.n, args.context, args.prompt, args.dtype, passes)
