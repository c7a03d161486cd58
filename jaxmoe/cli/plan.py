"""Says which slice a model fits, and what a step takes there, on paper.

`jaxmoe plan 30b --n 32 --context 32768` tries each mesh of each slice. No device is
needed.
"""

import argparse
import json
from typing import Any

from jaxmoe.cli.endings import command
from jaxmoe.cli.plan_options import add_load_options, chips_of, load_of, numbers
from jaxmoe.config import ModelConfig
from jaxmoe.planning import Chip, scale
from jaxmoe.planning.models import config_of
from jaxmoe.planning.plan import check_load
from jaxmoe.planning.rows import mesh_rows, scaling_rows
from jaxmoe.reports.plan_table import heading, plan_text, scaling_text


def parser() -> argparse.ArgumentParser:
    """All options."""
    made = argparse.ArgumentParser(
        "jaxmoe plan",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = made.add_argument
    add("model", help="30b, 235b, demo, a checkpoint directory, or its config.json")
    add_load_options(made, "v5e,v6e,v5p,h200")
    devices = "numbers of devices (default: the slices there are, to 32)"
    add("--devices", type=numbers, metavar="N,N", help=devices)
    scaling = "tables for 1 to 256 chips: n alike, and --per-chip for each"
    add("--scaling", action="store_true", help=scaling)
    return made


@command
def main(argv: list[str] | None = None) -> int:
    """Runs the command: 0 if done, 2 on input that does not fit."""
    args = parser().parse_args(argv)
    config, chips, load = config_of(args.model), chips_of(args.chips), load_of(args)
    check_load(config, load)
    look = _scaling if args.scaling else _meshes
    asked = args.model, config.weights, load, args.rules, args.latency
    found, texts = {}, [heading(*asked)]
    for chip in chips:
        found[chip.name], text = look(args, config, chip)
        texts.append(text)
    print(json.dumps(found, indent=2) if args.json else "\n".join(texts))
    return 0


def _meshes(args: argparse.Namespace, config: ModelConfig, chip: Chip) -> Any:
    """Each mesh of each slice: rows, and a table."""
    rows = mesh_rows(
        config,
        chip,
        load_of(args),
        devices=args.devices,
        rules=args.rules,
        latency=args.latency * 1e-6,
    )
    return rows, plan_text(chip, rows)


def _scaling(args: argparse.Namespace, config: ModelConfig, chip: Chip) -> Any:
    """More and more chips: rows for each kind of scaling, and a table of each."""
    loads = {
        "strong": lambda _: load_of(args),
        "weak": lambda chips: load_of(args, chips * args.per_chip),
    }
    found, texts = {}, []
    for kind, load in loads.items():
        points = scale(
            config, chip, load, rules=args.rules, latency=args.latency * 1e-6
        )
        found[kind] = scaling_rows(points)
        texts.append(f"{chip.name}, {kind} scaling\n\n{scaling_text(found[kind])}\n")
    return found, "\n".join(texts)
