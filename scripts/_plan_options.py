"""The command line of scripts/plan.py and scripts/scaling.py."""

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from jaxmoe.cli.mesh_options import Preset

if TYPE_CHECKING:
    from jaxmoe.config import ModelConfig
    from jaxmoe.planning import Chip, Load

DTYPES = ("bfloat16", "float16", "float32")


def numbers(text: str) -> tuple[int, ...]:
    """Numbers above 0 with commas between them."""
    found = tuple(int(part) for part in text.split(","))
    if min(found) < 1:
        raise argparse.ArgumentTypeError(f"expected numbers above 0, found {text}")
    return found


def add_load_options(add: Callable, chips: str) -> None:
    """What is asked for, of which chips."""
    add("--n", type=int, default=32, help="samples side by side (default: 32)")
    context = "positions of a sample, prompt and answer (default: 32768)"
    add("--context", type=int, default=32768, help=context)
    add("--prompt", type=int, default=1024, help="tokens of it (default: 1024)")
    add("--chips", default=chips, help=f"v5e, v6e, v5p, v4, h100, h200, a100 ({chips})")
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
    add("--json", action="store_true", help="print JSON")


def config_of(model: str) -> "ModelConfig":
    """The shapes of `30b`, `235b`, `demo`, or of a config.json."""
    from jaxmoe.checkpoints.bundled import BUNDLED
    from jaxmoe.families.config_json import from_hf, load_hf_config
    from jaxmoe.families.registry import released_config

    if (released := released_config(model)) is not None:
        return from_hf(released)
    path = BUNDLED.get(model, Path(model))
    if not path.exists():
        raise ValueError(
            f"the model must be 30b, 235b, demo, a checkpoint directory or its "
            f"config.json, found {model!r}"
        )
    return load_hf_config(path if path.is_dir() else path.parent)


def chips_of(text: str) -> "list[Chip]":
    """The chips of these names."""
    from jaxmoe.planning import CHIPS

    names = text.split(",")
    unknown = [name for name in names if name not in CHIPS]
    if unknown:
        raise ValueError(
            f"--chips must be among {', '.join(CHIPS)}, found {', '.join(unknown)}"
        )
    return [CHIPS[name] for name in names]


def load_of(args: argparse.Namespace, n: int | None = None) -> "Load":
    """What is asked for; n instead of --n."""
    from jaxmoe.planning import Load

    return Load(n or args.n, args.context, args.prompt, args.dtype)
