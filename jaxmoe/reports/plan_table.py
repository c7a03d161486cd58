"""Plans as tables to read."""

from collections.abc import Iterable
from typing import Any

from jaxmoe.config import Fp8Weights, ModelWeights
from jaxmoe.planning import Chip, Load
from jaxmoe.reports.text_table import markdown_table, number

HEAD = ("mesh", "weights", "cache", "buffers", "in all", "largest n", "ms a step", "")
SCALING_HEAD = (
    *("chips", "mesh", "n", "GB a chip", "ms a step", "tokens a second"),
    *("of it", "exchange", "efficiency"),
)
NOTE = """On paper: bandwidths are those that makers state, routing is uniform, caches
are full, {latency:g} us are assumed for each collective. GB on each device (1e9 bytes);
buffers are estimated, the rest is exact. 5 % of a chip's memory is left free."""


def plan_text(chip: Chip, rows: Iterable[dict[str, Any]]) -> str:
    """The table of one chip, and which slice is enough."""
    rows = list(rows)
    smallest = next((row for row in rows if "smallest" in row), None)
    found = "none of these is enough"
    if smallest is not None:
        where = f"mesh {smallest['mesh']}, {number(smallest['ms']['total'])} ms a step"
        found = f"the smallest that fits: {smallest['smallest']} ({where})"
    title = (
        f"{chip.name}: {chip.memory / 1e9:g} GB, {chip.bandwidth / 1e9:,.0f} GB/s, "
        f"{chip.bfloat16 / 1e12:g} TFLOP/s, {chip.link / 1e9:g} GB/s to others"
    )
    return f"{title}; {found}\n\n{markdown_table(HEAD, map(_cells, rows))}\n"


def _cells(row: dict[str, Any]) -> tuple[str, ...]:
    if "weights" not in row:
        return (row["mesh"], *[""] * 6, row["reason"])
    parts = ("weights", "cache", "buffers", "total")
    row = row | {"cache": row["prefix"] + row["suffix"]}
    gigabytes = [f"{row[part] / 1e9:.2f}" for part in parts]
    note = row["reason"] or ("<- smallest" if "smallest" in row else "")
    ms = number(row["ms"]["total"])
    return (row["mesh"], *gigabytes, str(row["largest_n"]), ms, note)


def heading(
    name: str,
    weights: ModelWeights | Fp8Weights,
    load: Load,
    rules: str,
    latency: float,
) -> str:
    """What is asked for, and what the numbers rest on."""
    dtype = load.dtype if weights == "float" else f"{weights} and {load.dtype}"
    asked = (
        f"{name}, {dtype}: {load.n} samples side by side of a prompt of "
        f"{load.prompt} tokens, {load.context} positions; rules {rules}"
    )
    if load.passes > 1:
        asked += f"; {load.passes} passes a token"
    return f"{asked}\n\n{NOTE.format(latency=latency)}\n"


def scaling_text(rows: list[dict[str, Any]]) -> str:
    """Rows of `jaxmoe.planning.rows.scaling_rows` as a table."""
    return markdown_table(SCALING_HEAD, map(_scaling_cells, rows))


def _scaling_cells(row: dict[str, Any]) -> tuple[str, ...]:
    if "mesh" not in row:
        return (str(row["chips"]), "the model divides over no mesh", *[""] * 7)
    head = (str(row["chips"]), row["mesh"], str(row["n"]), f"{row['total'] / 1e9:.2f}")
    if not row["fits"]:
        return (*head, "does not fit", *[""] * 4)
    ms = row["ms"]
    read = "reading" if ms["memory"] >= ms["arithmetic"] else "computing"
    work = f"{read} {number(max(ms['memory'], ms['arithmetic']))}"
    share = f"{number(ms['exchange'])} ({ms['exchange'] / ms['total']:.0%})"
    last = f"{row['efficiency']:.0%}"
    return (*head, number(ms["total"]), number(row["rate"]), work, share, last)
