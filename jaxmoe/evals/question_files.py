"""Rows of a user's file of problems: JSON lines, CSV and Parquet.

Nothing beyond the row that is asked for is read, so the first of a file of gigabytes
comes at once.
"""

import csv
import importlib.util
import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxmoe.evals.tasks.prompts import shown

BOM = b"\xef\xbb\xbf"

LONGEST_LINE = 1 << 29
"""Bytes of a line of JSON; the largest rows, of tests of programs, have some 100 MB."""

_BATCH = 64
"""Rows of Parquet that are read at once."""


@dataclass(frozen=True)
class Row:
    """A row, and how errors and ids call it: "line 7", or "row 7" where rows have none.

    values: by column; a ValueError where the row cannot be read.
    """

    place: str
    values: Mapping[str, Any] | ValueError


def rows_of(path: Path) -> Iterator[Row]:
    """The rows of a file that are not blank: .csv, .tsv, .parquet, or JSON lines.

    Raises:
      ImportError: a Parquet file, and neither pyarrow nor pandas is installed.
      OSError: the file cannot be read.
      ValueError: a Parquet or CSV file that is none.
    """
    kind = path.suffix.lower()
    if kind in (".csv", ".tsv"):
        return _csv_rows(path, "," if kind == ".csv" else "\t")
    return _parquet_rows(path) if kind == ".parquet" else _json_rows(path)


def _json_rows(path: Path) -> Iterator[Row]:
    # Lines end with a newline only: U+2028, which JSON texts hold, is none.
    with path.open("rb") as file:
        number = 0
        while line := file.readline(LONGEST_LINE + 1):
            number += 1
            line = line.removeprefix(BOM) if number == 1 else line
            rest = line
            while len(rest) > LONGEST_LINE and not rest.endswith(b"\n"):
                rest = file.readline(LONGEST_LINE + 1)
            if line.strip():
                yield Row(f"line {number}", _or_error(_json_row, line))


def _or_error(
    read: Callable[[bytes], Mapping[str, Any]], line: bytes
) -> Mapping[str, Any] | ValueError:
    try:
        return read(line)
    except ValueError as error:
        return error


def _json_row(line: bytes) -> Mapping[str, Any]:
    if len(line) > LONGEST_LINE:
        raise ValueError(
            f"expected lines of at most {LONGEST_LINE >> 20} MB, found a longer one; "
            "write each row on one line"
        )
    try:
        row = json.loads(
            line.decode("utf-8"),
            object_pairs_hook=_once,
            parse_constant=_finite,
            parse_float=_finite,
        )
    except UnicodeDecodeError as error:
        raise ValueError(
            f"expected UTF-8, found {error.reason} at byte {error.start + 1}; "
            "save the file as UTF-8"
        ) from None
    except json.JSONDecodeError as error:
        raise ValueError(
            f"column {error.colno}: expected a JSON object, found "
            f"{shown(line[:200].decode(errors='replace').strip())} ({error.msg}); "
            "write each row on one line"
        ) from None
    except _NotReadError:
        raise
    except (ValueError, RecursionError) as error:  # vast numbers, deep nesting
        raise ValueError(
            f"expected a JSON object, found one that Python does not read ({error}); "
            "write vast numbers as text, and nest less"
        ) from None
    if b"\\ud" in line.lower() and not _is_unicode(row):
        raise ValueError(
            "expected Unicode, found half a pair of surrogates (\\ud800 to \\udfff); "
            "write the whole character"
        )
    if not isinstance(row, dict):
        raise ValueError(
            f"expected a JSON object, found {shown(row)}; write each row as "
            '{"name": value, ...}'
        )
    return row


class _NotReadError(ValueError):
    """JSON that Python would read, and that is refused."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _NotReadError(
            f"expected each field once, found {shown(twice)} again; remove one"
        )
    return values


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise _NotReadError(
            f"expected finite numbers, found {shown(text)}; write it as text, or "
            "correct it"
        )
    return number


def _is_unicode(row: Any) -> bool:
    """Whether all texts of a row can be written as UTF-8."""
    try:
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _csv_rows(path: Path, delimiter: str) -> Iterator[Row]:
    csv.field_size_limit(LONGEST_LINE)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for number, row in enumerate(csv.DictReader(file, delimiter=delimiter), 1):
                values = {name: text for name, text in row.items() if text}
                if values.pop(None, None):  # type: ignore[call-overload]
                    error = ValueError(
                        f"expected {len(row) - 1} columns, found more; put texts that "
                        "hold the delimiter in quotes"
                    )
                    yield Row(f"row {number}", error)
                elif values:
                    yield Row(f"row {number}", values)
    except (csv.Error, UnicodeDecodeError) as error:
        raise ValueError(
            f"{path}: expected a CSV file in UTF-8, found something else ({error}); "
            "save it as such"
        ) from None


def _parquet_rows(path: Path) -> Iterator[Row]:
    if importlib.util.find_spec("pyarrow") is not None:
        rows = _arrow_rows(path)
    elif importlib.util.find_spec("pandas") is not None:
        rows = _pandas_rows(path)
    else:
        raise ImportError(
            f"{path}: expected pyarrow or pandas, which read Parquet, found neither; "
            "install one (pip install pyarrow), or save the file as JSON lines or CSV"
        )
    for number, row in enumerate(rows, start=1):
        yield Row(f"row {number}", {k: v for k, v in row.items() if v is not None})


def _arrow_rows(path: Path) -> Iterator[dict[str, Any]]:
    parquet = importlib.import_module("pyarrow.parquet")
    try:
        for batch in parquet.ParquetFile(path).iter_batches(batch_size=_BATCH):
            yield from batch.to_pylist()
    except ValueError as error:  # pyarrow's own errors are such
        raise ValueError(
            f"{path}: expected a Parquet file, found something else ({error}); save it "
            "as such"
        ) from None


def _pandas_rows(path: Path) -> Iterator[dict[str, Any]]:
    pandas = importlib.import_module("pandas")
    frame = pandas.read_parquet(path)
    for row in frame.to_dict("records"):
        yield {name: _plain(value) for name, value in row.items()}


def _plain(value: Any) -> Any:
    """Python's own values of NumPy's; None where there is none."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and math.isnan(value) else value
