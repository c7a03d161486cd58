"""Says which slice a model fits, and what a step takes there, on paper.

`python scripts/plan.py 30b --n 32 --context 32768` tries each mesh of each slice. No
device is needed.
"""

import argparse
import json
import sys

from _plan_options import add_load_options, chips_of, config_of, load_of, numbers

from jaxmoe.cli.endings import ends_quietly, input_errors


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("model", help="30b, 235b, demo, a checkpoint directory, or its config.json")
    add_load_options(add, "v5e,v6e,v5p,h200")
    devices = "numbers of devices (default: the slices there are, to 32)"
    add("--devices", type=numbers, metavar="N,N", help=devices)
    scaling = "tables for 1 to 256 chips: n alike, and --per-chip for each"
    add("--scaling", action="store_true", help=scaling)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Runs the command: 0 if done, 2 on input that does not fit."""
    args = _parser().parse_args(argv)
    with ends_quietly(), input_errors():
        from _plan_rows import rows_of
        from _plan_scaling import scaling_rows, scaling_text
        from _plan_table import as_text, heading

        from jaxmoe.planning.plan import check_load

        config, chips, load = config_of(args.model), chips_of(args.chips), load_of(args)
        check_load(config, load)
        latency = args.latency * 1e-6
        found = {}
        texts = [heading(args.model, load, args.rules, args.latency)]
        for chip in chips:
            if not args.scaling:
                found[chip.name] = rows_of(
                    config,
                    chip,
                    load,
                    devices=args.devices,
                    rules=args.rules,
                    latency=latency,
                )
                texts.append(as_text(chip, found[chip.name]))
                continue
            kinds = {
                "strong": lambda _: load,
                "weak": lambda chips: load_of(args, chips * args.per_chip),
            }
            found[chip.name] = tables = {
                kind: scaling_rows(config, chip, asked, args.rules, latency)
                for kind, asked in kinds.items()
            }
            for kind, rows in tables.items():
                texts.append(f"{chip.name}, {kind} scaling\n\n{scaling_text(rows)}\n")
        print(json.dumps(found, indent=2) if args.json else "\n".join(texts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
