"""Options: on which devices."""

import argparse
import re
from typing import Any, get_args

import jax

import jaxmoe
from jaxmoe.cli.loading_options import add_loading_options, loading_of
from jaxmoe.sharding.rules import Preset


def add_mesh_options(parser: argparse.ArgumentParser) -> None:
    """Adds --mesh and --rules, and how the checkpoint is loaded."""
    add_loading_options(parser)
    group = parser.add_argument_group("devices", "Without --mesh one device computes.")
    add = group.add_argument
    mesh = (
        "DATA x MODEL devices, such as 2x4: samples are divided over DATA, heads and "
        "vocabulary over MODEL, experts over all; all for one DATA and all MODEL"
    )
    add("--mesh", metavar="DxM", help=mesh)
    rules = "another way to divide the model (default: auto; jaxmoe/docs/devices.md)"
    add("--rules", choices=get_args(Preset), default="auto", help=rules)


def load_model(args: argparse.Namespace, **options: Any) -> jaxmoe.Model:
    """The checkpoint, on the mesh asked for."""
    options |= {"mesh": None if args.mesh is None else _mesh(args.mesh)}
    options |= loading_of(args)
    return jaxmoe.load(args.checkpoint, rules=args.rules, **options)


def _mesh(text: str) -> Any:
    devices = jax.device_count()
    if text == "all":
        text = f"1x{devices}"
    if not re.fullmatch(r"[1-9]\d*x[1-9]\d*", text):
        raise ValueError(f"--mesh must be like 2x4, or all, found {text!r}")
    data, model = map(int, text.split("x"))
    if data * model > devices or (data * model < devices and jax.process_count() > 1):
        raise ValueError(
            f"--mesh {text} is of {data * model} devices, found {devices}; make its "
            f"numbers multiply to {devices}, or to less in a single process"
        )
    kinds = (jax.sharding.AxisType.Auto,) * 2
    some = jax.devices()[: data * model]
    return jax.make_mesh((data, model), ("data", "model"), kinds, devices=some)
