"""Figures of a comparison as PNG files, in the style of `plots`."""

import textwrap
from pathlib import Path

from jaxmoe.evals.comparison import Comparison
from jaxmoe.reports.plots import plot_pass_at
from jaxmoe.text.printable import clean

LINE = 70
"""Characters of a name in one line of the legend."""


def plot_pass_curves(
    comparison: Comparison,
    path: Path,
    *,
    title: str | None = None,
    curve: str = "pass@k",
) -> None:
    """The runs' pass@n over n with bands of 95 %, as one PNG.

    Args:
      comparison: its runs without the curve are left out.
      path: the PNG file, replaced if it is there.
      title: of the figure; None: made of the task's name.
      curve: name of the curve in each run.

    Raises:
      ValueError: no run has the curve.
      ImportError: matplotlib is missing.
    """
    curves = {}
    for run in comparison.runs:
        if curve in run.curves:
            found = run.curves[curve]
            curves[legend_label(run.name, taken=set(curves))] = (
                found.ks,
                found.intervals,
            )
    if not curves:
        names = sorted({name for run in comparison.runs for name in run.curves})
        raise ValueError(
            f"expected a run with the curve {curve}, found "
            f"{', '.join(names) or 'none'}; draw more than one answer to each "
            "problem, or name another curve"
        )
    if title is None:
        runs = "run" if len(comparison.runs) == 1 else "runs"
        title = f"{comparison.task}, {len(comparison.runs)} {runs}"
    plot_pass_at(curves, path, title=clean(title))


def legend_label(name: str, taken: set[str], line: int = LINE) -> str:
    """A run's name for the legend, in lines; one that is not taken yet."""
    label = "\n".join(textwrap.wrap(clean(name), line)) or "(no name)"
    # A legend leaves out what begins with an underscore.
    label = f" {label}" if label.startswith("_") else label
    while label in taken:
        label += " "
    return label
