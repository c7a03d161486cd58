"""How long a run took: a line for each go, beside the records. No part of the run."""

import json
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from jaxmoe.evals.shards import Shard

PREFIX = "times-"
SHARD = "shard"
_FIELDS = {"seconds", "answers", "tokens"}
_SHOWN = 80
"""Letters of a line that an error shows."""


@dataclass(frozen=True)
class Go:
    """One go at a shard: what was drawn in how many seconds, compilation included.

    shard: its file's name without the prefix, such as "0-of-2"; shards may have been
    drawn side by side.
    """

    seconds: float
    answers: int
    tokens: int
    shard: str = ""


def times_file(shard: Shard) -> str:
    """Name of the file of a shard's goes."""
    return f"{PREFIX}{shard.index}-of-{shard.count}.jsonl"


def add_go(folder: Path, shard: Shard, go: Go) -> None:
    """Notes a go that has ended; one without a shard's name is of the file's."""
    value = {name: item for name, item in asdict(go).items() if item != ""}
    with (folder / times_file(shard)).open("a", encoding="utf-8") as file:
        file.write(json.dumps(value) + "\n")


def read_goes(folder: Path) -> tuple[Go, ...]:
    """All goes that were noted; one that was killed has left no note, or half a line.

    Raises:
      ValueError: a line of JSON that is no go.
    """
    return tuple(_goes(folder))


def _goes(folder: Path) -> Iterator[Go]:
    for path in sorted(folder.glob(f"{PREFIX}*.jsonl")):
        shard = path.stem.removeprefix(PREFIX)
        lines = path.read_text("utf-8", errors="replace").splitlines()
        for number, line in enumerate(lines, 1):
            try:
                value = json.loads(line)
            except ValueError:  # half a line
                continue
            if not _is_go(value):
                raise ValueError(
                    f"{path}, line {number}: expected seconds, answers and tokens, "
                    f"numbers of 0 or more, found {line[:_SHOWN]!r}; remove the line, "
                    "or the file, which only says how long the run took"
                )
            yield Go(**{"shard": shard} | value)


def _is_go(value: Any) -> bool:
    if not isinstance(value, dict) or not _FIELDS <= value.keys() <= {*_FIELDS, SHARD}:
        return False
    numbers = [value[name] for name in _FIELDS]
    return isinstance(value.get(SHARD, ""), str) and all(
        isinstance(n, int | float) and not isinstance(n, bool) and 0 <= n < math.inf
        for n in numbers
    )
