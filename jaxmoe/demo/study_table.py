"""The study's results as Markdown."""

from typing import Any

HEAD = ("configuration", "accuracy", "pass@8", "pass@32", "pass@64", "pass@8, hard")
CLAIM = ("claim", "by", "difference", "expected", "found", "here")
ROUTER = (
    *("layer", "p of rank 1", "mass of 1-5", "mass of 1-8"),
    *("gap 1-5 a rank", "gap 5-32 a rank", "evenness of load"),
)


def tables(results: dict[str, Any]) -> str:
    """The configurations, stability, the claims, and the router; in percent."""
    solved = f"on the {results['greedy_solves']} problems greedy solves"
    stable = ((n, percent(v)) for n, v in results["stability"].items())
    lines = [
        f"{results['problems']} problems of {results['number_sets']} sets of numbers; "
        "percent, with 95 % intervals over sets of numbers.\n",
        *_rows(HEAD, _configurations(results["configurations"])),
        "",
        *_rows((solved, "accuracy"), stable),
        "",
        *_rows(CLAIM, map(_claim, results["claims"])),
        "",
        *_rows(ROUTER, _router(results["router"])),
        "",
    ]
    return "\n".join(lines)


def _claim(claim: dict[str, Any]) -> tuple[str, ...]:
    value = "" if claim["value"] is None else points(claim["value"])
    parts = (claim[name] for name in ("claim", "by", "difference", "expected"))
    return (*parts, value, claim["verdict"])


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
        yield (name, *(percent(row[m]) if m in row else "" for m in HEAD[1:]))


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
