"""What devices say to each other in a compiled program, counted from its HLO text.

A program of one loop is understood: collectives in the loop's body count once a turn,
those outside once a call. For `decode_segment` a turn is a step.
"""

import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from jaxmoe.planning.exchanges import Exchange

KINDS = (
    "all-gather",
    "all-reduce",
    "all-to-all",
    "collective-permute",
    "reduce-scatter",
)

_BITS = {"pred": 8, "token": 0, "opaque": 0}
_COMPUTATION = re.compile(r"^(ENTRY )?%?([\w.\-]+) .*\{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?[\w.\-]+ = (.*)$")
_OPERATION = re.compile(rf"\s({'|'.join(KINDS)})(-start)?\(")
_SHAPE = re.compile(r"\b([a-z]+)(\d*)(?:e\d\w*)?\[([\d,]*)\]")
_CALLED = re.compile(r"\b(body|condition|to_apply|calls|\w+_computation)=%?([\w.\-]+)")
_CALLED_LIST = re.compile(r"\b(branch|called)_computations=\{([^}]*)\}")
_LISTED = re.compile(r"replica_groups=\{\{([\d,]*)\}")
_PAIRS = re.compile(r"source_target_pairs=\{")
_IOTA = re.compile(r"replica_groups=\[\d+,(\d+)\]<=")


class Collective(NamedTuple):
    """Collectives of one kind among groups of `devices`, `count` of them.

    moved: bytes that a device receives from others in all of them together, by the
    formulas of `jaxmoe.planning.exchanges`; it sends as many.
    """

    kind: str
    devices: int
    moved: float
    count: int


@dataclass(frozen=True)
class Traffic:
    """call: outside of loops. step: in a turn of the loop."""

    call: tuple[Collective, ...]
    step: tuple[Collective, ...]

    @property
    def step_bytes(self) -> float:
        """Bytes that a device receives in a turn."""
        return sum(found.moved for found in self.step)


def count_traffic(hlo: str) -> Traffic:
    """The collectives of a compiled program, `compiled.as_text()`.

    Asynchronous forms count where they start.

    Raises:
      ValueError: collectives in a loop within a loop, which run an unknown number of
        times; a text without an entry, or a collective whose group is not understood.
    """
    bodies, entry = _computations(hlo)
    depths: dict[int, list[Collective]] = {0: [], 1: []}
    for depth, line in _reached(bodies, entry, 0):
        found = _collective(line)
        if found is None:
            continue
        if depth > 1:
            raise ValueError(
                "expected one loop with collectives in it, found some in a loop "
                f"within: {line.strip()[:200]}; count a program without that loop"
            )
        depths[depth].append(found)
    return Traffic(_together(depths[0]), _together(depths[1]))


def expected(exchanges: Iterable[Exchange]) -> tuple[Collective, ...]:
    """Planned exchanges in the form of counted ones."""
    return _together(Collective(e.kind, e.devices, e.moved, e.count) for e in exchanges)


def _together(found: Iterable[Collective]) -> tuple[Collective, ...]:
    groups: dict[tuple[str, int], list[Collective]] = {}
    for one in found:
        groups.setdefault((one.kind, one.devices), []).append(one)
    return tuple(
        Collective(
            kind,
            devices,
            sum(one.moved for one in some),
            sum(one.count for one in some),
        )
        for (kind, devices), some in sorted(groups.items())
    )


def _computations(hlo: str) -> tuple[dict[str, list[str]], str]:
    """Name -> instructions of each computation, and the name of the entry."""
    bodies: dict[str, list[str]] = {}
    entry = name = ""
    for line in hlo.splitlines():
        opened = _COMPUTATION.match(line)
        if opened:
            name = opened[2]
            bodies[name] = []
            entry = name if opened[1] else entry
        elif name and _INSTRUCTION.match(line):
            bodies[name].append(line)
    if not entry:
        raise ValueError(
            "expected the text of a compiled program, found none with an ENTRY; pass "
            "compiled.as_text()"
        )
    return bodies, entry


def _reached(
    bodies: dict[str, list[str]], name: str, depth: int
) -> Iterator[tuple[int, str]]:
    """Each instruction that runs, with the number of loops around it."""
    for line in bodies.get(name, ()):
        yield depth, line
        inner = depth + (" while(" in line)
        for called in _called(line):
            yield from _reached(bodies, called, inner)


def _called(line: str) -> list[str]:
    found = [name for _, name in _CALLED.findall(line)]
    for _, names in _CALLED_LIST.findall(line):
        found += [name.strip(" %") for name in names.split(",")]
    return found


def _collective(line: str) -> Collective | None:
    operation = _OPERATION.search(line)
    if operation is None:
        return None
    kind, started = operation[1], operation[2] is not None
    devices = _group(line)
    if devices == 1:
        return None
    size = sum(_bytes(*s) for s in _SHAPE.findall(line[: operation.start()]))
    others = devices - 1
    if kind == "all-gather":
        # One that starts names its operand too, a part of the result.
        moved = size * others / (devices + started)
    elif kind == "all-reduce":
        moved = 2 * size * others / devices
    elif kind == "all-to-all":
        moved = size * others / devices
    elif kind == "reduce-scatter":
        moved = size * others
    else:
        # One that starts names operand, result, and two words of context.
        moved = (size - 8) / 2 if started else size
    return Collective(kind, devices, float(moved), 1)


def _group(line: str) -> int:
    """Devices of a group; of a permutation, two."""
    if _PAIRS.search(line):
        return 2
    if iota := _IOTA.search(line):
        return int(iota[1])
    if listed := _LISTED.search(line):
        return len(listed[1].split(","))
    raise ValueError(
        f"expected replica_groups in a collective, found {line.strip()[:200]}; teach "
        "jaxmoe.benchmarks.traffic this form"
    )


def _bytes(kind: str, bits: str, dimensions: str) -> float:
    wide = _BITS[kind] if kind in _BITS else int(bits)
    values = math.prod(int(size) for size in dimensions.split(",") if size)
    return values * wide / 8
