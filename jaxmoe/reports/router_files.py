"""The files of a router report: all statistics as JSON, a page, and figures."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxmoe.analysis.cutting import Cutting
from jaxmoe.analysis.router_heads import Heads
from jaxmoe.analysis.router_pass import LayerStats
from jaxmoe.analysis.router_stats import to_json
from jaxmoe.files import write_text
from jaxmoe.reports import router_figures, router_page
from jaxmoe.reports.plots import Picture, has_matplotlib, require_matplotlib
from jaxmoe.reports.router_table import summary
from jaxmoe.reports.steepness import (
    as_json,
    cutting_cells,
    cutting_rows,
    heads_csv,
    plot_cutting,
    plot_steepness,
    rows,
    shown_rows,
)


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
    heads: Mapping[str, Heads] | None = None,
    cutting: Cutting | None = None,
) -> None:
    """Writes router.json, router.html, heads.csv, and a PNG for each figure.

    Args:
      out: a folder that is there.
      layers: what `jaxmoe.analysis.router_pass.accumulate` returns.
      k: experts per token.
      digest: of the checkpoint's weights.
      policy: how experts were chosen, of "drawn" and of "given" texts.
      against: another checkpoint to compare with.
      heads: by name, of this checkpoint and of those beside it.
      cutting: what fewer experts lose on the same texts.

    Raises:
      ImportError: without matplotlib; all but the figures has been written.
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
    every = list(rows(heads or {}))
    if every:
        results["heads"] = as_json(every)
        write_text(out / "heads.csv", heads_csv(every))
    cuts = [] if cutting is None else cutting_rows(cutting, layers)
    if cuts:
        results["cutting"] = as_json(cuts)
    write_text(out / "router.json", json.dumps(results, allow_nan=False) + "\n")
    pictures = _drawn(out, layers, k, against) if has_matplotlib() else {}
    if heads and pictures:
        pictures["steepness"] = _picture(out, "steepness")
        title = "How much steeper the head falls than the tail"
        plot_steepness(heads, pictures["steepness"], title=title)
    if cuts and pictures:
        pictures["cutting"] = _picture(out, "cutting")
        title = "What fewer experts lose (numbers: experts kept)"
        plot_cutting(cuts, pictures["cutting"], title=title)
    page = router_page.render(
        layers,
        pictures,
        k=k,
        checkpoint=digest,
        policy=policy,
        heads=shown_rows(every),
        cutting=cutting_cells(cuts),
    )
    write_text(out / "router.html", page)
    require_matplotlib()


def _drawn(
    out: Path, layers: LayerStats, k: int, against: Against | None
) -> dict[str, Picture]:
    """All figures, for the page and as scores.png, mass.png, loads.png and so on."""
    extra = ("comparison", "steepness", "cutting")
    names = [name for name in router_page.FIGURES if name not in extra]
    pictures = {name: _picture(out, name) for name in names}
    spread = "(median, 10 to 90 %)"
    title = f"Router probability by rank {spread}"
    router_figures.plot_scores(layers, pictures["scores"], k=k, title=title)
    title = "Probability of the best experts together"
    router_figures.plot_mass(layers, pictures["mass"], k=k, title=title)
    title = "Load of the experts (heading: entropy, 1 is even)"
    router_figures.plot_loads(layers, pictures["loads"], title=title)
    title = "Experts chosen together"
    router_figures.plot_coactivation(layers, pictures["coactivation"], title=title)
    title = f"Experts that reach a probability {spread}"
    router_figures.plot_heads(layers, pictures["heads"], k=k, title=title)
    if against is not None:
        pictures["comparison"] = _picture(out, "comparison")
        router_figures.plot_comparison(
            against.layers,
            against.other,
            pictures["comparison"],
            names=against.names,
            title="Mean log-probability by rank, and its difference",
        )
    return pictures


def _picture(out: Path, name: str) -> Picture:
    heading, _ = router_page.FIGURES[name]
    return Picture(name, heading, out / f"{name}.png")


def _as_json(layers: LayerStats, k: int) -> dict[str, Any]:
    """Summaries and all statistics, by layer and class."""
    return {
        str(layer): {
            name: {"summary": summary(stats, k), "statistics": to_json(stats)}
            for name, stats in classes.items()
        }
        for layer, classes in layers.items()
    }
