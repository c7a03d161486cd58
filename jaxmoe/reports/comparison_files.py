"""The files of a comparison: a report, its tables as CSV, and a figure beside it."""

from collections.abc import Mapping
from datetime import date
from pathlib import Path

from jaxmoe.analysis.router_stats import from_json
from jaxmoe.evals.comparison import Comparison
from jaxmoe.files import parse_json, write_text
from jaxmoe.reports.comparison_csv import differences_csv, measures_csv, problems_csv
from jaxmoe.reports.comparison_page import render

Curves = Mapping[str, dict[str, list[float]]]
"""Layer -> mean, low and high of the router's probability by rank."""


def write_comparison(
    found: Comparison,
    html: Path,
    *,
    title: str | None = None,
    router: Path | None = None,
) -> None:
    """Writes the report, its tables as CSV, and the pass@n figure as PNG.

    Args:
      html: the report; the other files stand beside it under its name.
      title: of the report; None for its own.
      router: router.json of `jaxmoe routers`, whose curves the report shows.

    Raises:
      ValueError: `router` is no such file.
      ImportError: without matplotlib; all but the figure has been written.
    """
    curves = None if router is None else router_curves(router)
    several = len(found.runs) > 2
    corrected = [d.adjusted for d in found.differences] if several else None
    today = date.today().isoformat()
    page = render(found, title=title, router=curves, holm=corrected, date=today)
    write_text(html, page)
    beside = html.with_suffix
    write_text(beside(".measures.csv"), measures_csv(found))
    write_text(beside(".problems.csv"), problems_csv(found))
    write_text(beside(".differences.csv"), differences_csv(found))
    if not any(run.curves for run in found.runs):
        return  # one answer each: there is no curve to draw
    # Imported late: it fails where there is no matplotlib.
    from jaxmoe.reports.comparison_figures import plot_pass_curves

    plot_pass_curves(found, beside(".png"))


def router_curves(path: Path) -> Curves:
    """Router probability by rank, from the router.json of `jaxmoe routers`.

    Of generated tokens; of the prompts' where it measured no others.

    Raises:
      ValueError: another file.
    """
    try:
        layers = parse_json(path.read_text(encoding="utf-8"))["layers"]
        stats = {
            name: from_json(
                (classes.get("generated") or classes["prompt"])["statistics"]
            )
            for name, classes in layers.items()
        }
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"the routers must be the router.json of `jaxmoe routers`, found {path}, "
            f"which is not ({error!r}); run `jaxmoe routers` and give its file"
        ) from None
    return {
        f"layer {name}": {
            "mean": found.probability.tolist(),
            "low": found.quantile(0.1).tolist(),
            "high": found.quantile(0.9).tolist(),
        }
        for name, found in stats.items()
    }
