"""The study's results as Markdown."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from jaxmoe.reports.text_table import markdown_table

MEASURES = ("accuracy", "pass@8", "pass@32", "pass@64")
CLAIM = ("claim", "difference", "points", "p", "after Holm", "verdict")
ROUTER = (
    *("layer", "p of rank 1", "mass of 1-5", "mass of 1-8"),
    *("gap 1-5 a rank", "gap 5-32 a rank", "evenness of load"),
)


def tables(results: Mapping[str, Any]) -> str:
    """Configurations, both families of claims, and the router."""
    parts = (
        f"{results['problems']} problems of {results['number_sets']} sets of numbers, "
        f"of which greedy solves {results['greedy_solves']}; percent, with 95 % "
        "intervals over sets of numbers.",
        configurations_table(results["configurations"], MEASURES),
        "Primary claims, corrected for their number:",
        claims_table(results["primary"]),
        "Secondary claims, corrected for theirs:",
        claims_table(results["secondary"]),
        *left_out(results.get("left_out", {})),
        "The router:",
        markdown_table(ROUTER, _router(results["router"])),
    )
    return "\n\n".join(parts) + "\n"


def left_out(missing: Mapping[str, list[str]]) -> Iterator[str]:
    """What is not in the tables; nothing where all is."""
    for kind, found in missing.items():
        if found:
            yield f"Left out ({kind}): {'; '.join(found)}."


def percent(value: list[float]) -> str:
    """ "41.2 [38.9, 43.6]", in percent."""
    mean, low, high = (100 * part for part in value)
    return f"{mean:.1f} [{low:.1f}, {high:.1f}]"


def points(value: list[float]) -> str:
    """As `percent`, with signs: percentage points."""
    mean, low, high = (100 * part for part in value)
    return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]"


def _p_value(value: float) -> str:
    """Three digits; results hold five decimals."""
    return f"{value:.3g}" if value else "< 0.00001"


def claims_table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Claims as `jaxmoe.demo.study.found_as_json` gives them."""
    return markdown_table(CLAIM, map(_claim, rows))


def _claim(row: Mapping[str, Any]) -> tuple[str, ...]:
    p_values = (_p_value(row[name]) for name in ("p", "p after Holm"))
    return (
        *(row["claim"], row["difference"], points(row["value"])),
        *p_values,
        row["verdict"],
    )


def configurations_table(rows: Mapping[str, Any], measures: Sequence[str]) -> str:
    """Name -> row as `jaxmoe.demo.study.row_as_json` gives it, in percent."""
    cells = (
        (
            name,
            str(row["problems"]),
            *(percent(row[m]) if m in row else "" for m in measures),
        )
        for name, row in rows.items()
    )
    return markdown_table(("configuration", "problems", *measures), cells)


def _router(router: Mapping[str, Any]):
    for weights, layers in router.items():
        for name, curve in layers.items():
            mass = curve["cumulative"]
            yield (
                f"{name}, {weights}",
                *(f"{v:.3f}" for v in (curve["mean"][0], mass[4], mass[7])),
                *(f"{curve[f'gap_{part}_per_rank']:.3f}" for part in ("head", "tail")),
                f"{curve['load_entropy']:.3f}",
            )
