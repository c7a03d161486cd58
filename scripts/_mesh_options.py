"""Options that scripts share: on which devices, and with which other processes."""

import argparse
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import jaxmoe

PRESETS = ("auto", "data", "tensor", "expert", "data-expert")


def add_mesh_options(parser: argparse.ArgumentParser) -> None:
    """Adds --mesh and --rules, and how processes find each other."""
    group = parser.add_argument_group(
        "devices",
        "Without --mesh one device computes. With several processes (hosts), start the "
        "same command in each.",
    )
    add = group.add_argument
    mesh = (
        "DATA x MODEL devices, such as 2x4: samples are divided over DATA, heads and "
        "vocabulary over MODEL, experts over all; all for one DATA and all MODEL"
    )
    add("--mesh", metavar="DxM", help=mesh)
    rules = "another way to divide the model (default: auto; README, Many devices)"
    add("--rules", choices=PRESETS, default="auto", help=rules)
    distributed = "join the processes of a TPU pod, Slurm or Open MPI, found out"
    add("--distributed", action="store_true", help=distributed)
    add("--coordinator", metavar="HOST:PORT", help="of process 0, to join by hand")
    add("--processes", type=int, metavar="N", help="how many processes there are")
    add("--process", type=int, metavar="I", help="which one this is, from 0")


def join_processes(args: argparse.Namespace) -> None:
    """Joins the other processes, if any are asked for; before JAX is used."""
    by_hand = (args.coordinator, args.processes, args.process)
    if not args.distributed and by_hand == (None, None, None):
        return
    if args.mesh is None:
        raise ValueError("several processes need --mesh, over the devices of all")
    from jaxmoe import hosts

    _keep_output_clean()
    hosts.initialize(args.coordinator, processes=args.processes, process=args.process)


def _keep_output_clean() -> None:
    """What this script prints stays alone on standard output.

    The library that connects CPU devices (Gloo) speaks there too; it gets standard
    error instead.
    """
    sys.stdout.flush()
    own = os.dup(1)
    os.dup2(2, 1)
    sys.stdout = os.fdopen(own, "w", buffering=1, encoding="utf-8")


def load_model(args: argparse.Namespace, **options: Any) -> "jaxmoe.Model":
    """The checkpoint, or what Hugging Face has it made of, on the mesh asked for."""
    import jaxmoe

    options |= {"mesh": None if args.mesh is None else _mesh(args.mesh)}
    path = Path(args.checkpoint)
    if (path / "config.json").exists() and not (path / "jaxmoe.json").exists():
        import convert

        return convert.load(path, rules=args.rules, **options)
    return jaxmoe.load(args.checkpoint, rules=args.rules, **options)


def _mesh(text: str) -> Any:
    import jax

    devices = jax.device_count()
    if text == "all":
        text = f"1x{devices}"
    if not re.fullmatch(r"[1-9]\d*x[1-9]\d*", text):
        raise ValueError(f"--mesh must be like 2x4, or all, found {text!r}")
    data, model = map(int, text.split("x"))
    if data * model > devices or (data * model < devices and jax.process_count() > 1):
        raise ValueError(
            f"--mesh {text} is of {data * model} devices, found {devices}; make its "
            f"numbers multiply to {devices}"
        )
    kinds = (jax.sharding.AxisType.Auto,) * 2
    some = jax.devices()[: data * model]
    return jax.make_mesh((data, model), ("data", "model"), kinds, devices=some)
