"""Numbers and tables as text to read."""

import math
from collections.abc import Iterable, Sequence


def number(value: float) -> str:
    """Three digits or more, without exponent where it can be read.

    >>> number(1234567.8), number(12.34), number(1.234), number(0.01234), number(15.0)
    ("1,234,568", "12.3", "1.23", "0.0123", "15")
    """
    if not math.isfinite(value):
        return str(value)
    if abs(value) >= 100 or value == round(value):
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.3g}"


def markdown_table(
    head: Sequence[str], rows: Iterable[Sequence[str]], *, long_last: bool = False
) -> str:
    """Markdown with aligned columns.

    Args:
      long_last: the last column holds long text and is not padded.
    """
    cells = [tuple(head), *map(tuple, rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(head))]
    if long_last:
        widths[-1] = len(head[-1])
    cells.insert(1, tuple("-" * max(width, 1) for width in widths))
    pad = lambda row: (t.ljust(w) for t, w in zip(row, widths, strict=True))  # noqa: E731
    return "\n".join("| " + " | ".join(pad(row)) + " |" for row in cells)
