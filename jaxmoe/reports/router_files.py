"""The files of a router report: all statistics as JSON, and figures."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxmoe.analysis.router_pass import LayerStats
from jaxmoe.analysis.router_stats import to_json
from jaxmoe.files import write_text
from jaxmoe.reports import router_figures
from jaxmoe.reports.router_table import summary


@dataclass(frozen=True)
class Against:
    """Two checkpoints on the same tokens, both routed by top-k.

    digest: of the other one's weights. names: of the two, in the figure.
    layers, other: statistics of the first and of the other.
    """

    digest: str
    names: tuple[str, str]
    layers: LayerStats
    other: LayerStats


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


def write_routers(
    out: Path,
    layers: LayerStats,
    *,
    k: int,
    digest: str,
    policy: Mapping[str, str | None],
    against: Against | None = None,
) -> None:
    """Writes router.json, and a PNG for each figure.

    Args:
      out: a folder that is there.
      layers: what `jaxmoe.analysis.router_pass.accumulate` returns.
      k: experts per token.
      digest: of the checkpoint's weights.
      policy: how experts were chosen, of "drawn" and of "given" texts.
      against: another checkpoint to compare with.

    Raises:
      ImportError: without matplotlib; router.json has been written.
    """
    results: dict[str, Any] = {
        "checkpoint": digest,
        "policy": dict(policy),
        "experts_per_token": k,
        "layers": _as_json(layers, k),
    }
    if against is not None:
        pair = (against.layers, against.other)
        results["against"] = {
            "checkpoint": against.digest,
            "routed by top-k": [_as_json(part, k) for part in pair],
        }
    write_text(out / "router.json", json.dumps(results, allow_nan=False) + "\n")
    plot_routers(out, layers, k)
    if against is not None:
        router_figures.plot_comparison(
            against.layers,
            against.other,
            out / "comparison.png",
            names=against.names,
            title="Mean log-probability by rank, and its difference",
        )


def plot_routers(out: Path, layers: LayerStats, k: int) -> None:
    """Writes scores.png, mass.png, loads.png, coactivation.png and heads.png.

    Raises:
      ImportError: without matplotlib.
    """
    spread = "(median, 10 to 90 %)"
    router_figures.plot_scores(
        layers, out / "scores.png", k=k, title=f"Router probability by rank {spread}"
    )
    router_figures.plot_mass(
        layers, out / "mass.png", k=k, title="Probability of the best experts together"
    )
    router_figures.plot_loads(
        layers,
        out / "loads.png",
        title="Load of the experts (heading: entropy, 1 is even)",
    )
    router_figures.plot_coactivation(
        layers, out / "coactivation.png", title="Experts chosen together"
    )
    router_figures.plot_heads(
        layers,
        out / "heads.png",
        k=k,
        title=f"Experts that reach a probability {spread}",
    )


def _as_json(layers: LayerStats, k: int) -> dict[str, Any]:
    """Summaries and all statistics, by layer and class."""
    return {
        str(layer): {
            name: {"summary": summary(stats, k), "statistics": to_json(stats)}
            for name, stats in classes.items()
        }
        for layer, classes in layers.items()
    }
