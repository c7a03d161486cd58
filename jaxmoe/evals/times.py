"""How long a run took: a line for each go, beside the records. No part of the run."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from jaxmoe.evals.shards import Shard

PREFIX = "times-"


@dataclass(frozen=True)
class Go:
    """One go at a shard: what was drawn in how many seconds, compilation included."""

    seconds: float
    answers: int
    tokens: int


def times_file(shard: Shard) -> str:
    """Name of the file of a shard's goes."""
    return f"{PREFIX}{shard.index}-of-{shard.count}.jsonl"


def add_go(folder: Path, shard: Shard, go: Go) -> None:
    """Notes a go that has ended."""
    with (folder / times_file(shard)).open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(go)) + "\n")


def read_goes(folder: Path) -> tuple[Go, ...]:
    """All goes that were noted; one that was killed has left no note."""
    return tuple(_goes(folder))


def _goes(folder: Path) -> Iterator[Go]:
    for path in sorted(folder.glob(f"{PREFIX}*.jsonl")):
        for line in path.read_text("utf-8", errors="replace").splitlines():
            try:
                yield Go(**json.loads(line))
            except (TypeError, ValueError):  # half a line
                continue
