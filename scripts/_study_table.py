"""The study's results as Markdown."""

from typing import Any

HEAD = ("configuration", "accuracy", "pass@8", "pass@32", "pass@64", "distinct right")


def tables(results: dict[str, Any]) -> str:
    """The configurations, stability, the claims, and the router."""
    return "\n".join(
        [
            *_rows(HEAD, _configurations(results["configurations"])),
            "",
            *_rows(
                (
                    f"on the {results['greedy_solves']} problems greedy solves",
                    "accuracy",
                ),
                ((n, percent(v)) for n, v in results["stability"].items()),
            ),
            "",
            *_rows(
                ("claim of the paper", "difference", "value", "here"),
                (
                    (c["claim"], c["difference"], points(c["value"]), c["verdict"])
                    for c in results["claims"]
                ),
            ),
            "",
            *_rows(
                (
                    *("layer", "p of rank 1", "mass of 1-5", "mass of 1-8"),
                    *("gap 1-5 a rank", "gap 5-32 a rank", "load entropy"),
                ),
                _router(results["router"]),
            ),
            "",
        ]
    )


def percent(value: list[float]) -> str:
    """ "41.2 [38.9, 43.6]", in percent."""
    mean, low, high = (100 * part for part in value)
    return f"{mean:.1f} [{low:.1f}, {high:.1f}]"


def points(value: list[float]) -> str:
    """As `percent`, with signs: percentage points."""
    mean, low, high = (100 * part for part in value)
    return f"{mean:+.1f} [{low:+.1f}, {high:+.1f}]"


def _configurations(rows: dict[str, Any]):
    for name, row in rows.items():
        measured = (percent(row[m]) if m in row else "" for m in HEAD[1:-1])
        yield (name, *measured, f"{row['distinct_right'][0]:.2f} of {row['n']}")


def _router(router: dict[str, Any]):
    for weights, layers in router.items():
        for name, curve in layers.items():
            mass = curve["cumulative"]
            yield (
                f"{name}, {weights}",
                *(f"{v:.3f}" for v in (curve["mean"][0], mass[4], mass[7])),
                *(f"{curve[f'gap_{part}_per_rank']:.3f}" for part in ("head", "tail")),
                f"{curve['load_entropy']:.3f}",
            )


def _rows(head, rows):
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(row) + " |"
