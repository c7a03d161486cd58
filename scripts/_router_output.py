"""What a router report leaves behind."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _router_figures import plot_against, plot_routers
from _router_table import summary
from _running import digest_of

from jaxmoe.files import write_text

if TYPE_CHECKING:
    from jaxmoe.analysis.router_pass import LayerStats


def check_folder(out: Path) -> None:
    """Makes the folder; an OSError if nothing can be written there."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        trial = out / ".router.partial"
        trial.write_bytes(b"")
        trial.unlink()
    except OSError as error:
        raise OSError(
            f"--out must be a folder that can be written, found {out} ({error}); "
            "choose another"
        ) from error


def write_report(
    args: argparse.Namespace,
    policy: dict[str, str | None],
    layers: "LayerStats",
    pair: "Sequence[LayerStats] | None",
    k: int,
) -> None:
    """Writes router.json, and figures where there is matplotlib.

    policy: how experts were chosen. pair: what --against compares.
    """
    results: dict[str, Any] = {
        "checkpoint": digest_of(args.checkpoint),
        "policy": policy,
        "experts_per_token": k,
        "layers": _as_json(layers, k),
    }
    if pair is not None:
        results["against"] = {
            "checkpoint": digest_of(args.against),
            "routed by top-k": [_as_json(part, k) for part in pair],
        }
    text = json.dumps(results, allow_nan=False)
    write_text(args.out / "router.json", text + "\n")
    try:
        plot_routers(args.out, layers, k)
        if pair is not None:
            names = (args.checkpoint, f"against {args.against}")
            plot_against(args.out, pair[0], pair[1], names)
    except ImportError as error:
        print(f"no figures: {error}", file=sys.stderr)


def _as_json(layers: "LayerStats", k: int) -> dict[str, Any]:
    """Summaries and all statistics, by layer and class."""
    from jaxmoe.analysis.router_stats import to_json

    return {
        str(layer): {
            name: {"summary": summary(stats, k), "statistics": to_json(stats)}
            for name, stats in classes.items()
        }
        for layer, classes in layers.items()
    }
