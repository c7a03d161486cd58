"""Plans: which Hugging Face tensor is which part of which parameter.

The tables are the families' (`jaxmoe.families`): each tensor is one run of bytes of a
parameter, so conversion is copying, and the way back is exact.
"""

import itertools
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from jaxmoe.checkpoints.errors import CheckpointError
from jaxmoe.checkpoints.safetensors import DTYPES, Tensor
from jaxmoe.families.base import FLOATS, Family, TensorRule


@dataclass(frozen=True)
class Piece:
    """Rows of a tensor are the run of elements of the parameter that begins at `start`.

    first: the element of the tensor that the run begins with. shape: of the run; that
    of the tensor where it is all of one.
    """

    tensor: Tensor
    start: int
    first: int
    shape: tuple[int, ...]

    @classmethod
    def whole(cls, tensor: Tensor, start: int = 0) -> "Piece":
        """All of a tensor."""
        return cls(tensor, start, 0, tensor.shape)

    @property
    def size(self) -> int:
        """Elements of the run."""
        return math.prod(self.shape)

    @property
    def stop(self) -> int:
        """The end of the run in the parameter."""
        return self.start + self.size

    @property
    def offset(self) -> int:
        """The byte of the file that the run begins with."""
        return self.tensor.offset + self.first * DTYPES[self.tensor.dtype].itemsize


@dataclass(frozen=True)
class Fill:
    """A parameter and the pieces that make it up, in order; `dtype` is theirs."""

    param: str
    shape: tuple[int, ...]
    dtype: np.dtype
    pieces: tuple[Piece, ...]

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Plan:
    """How tensors become parameters; `copies` must equal the parameter they name.

    ignored: tensors that are derived from others. beyond: those of layers that the
    model does not run (`Family.beyond`).
    """

    fills: dict[str, Fill]
    copies: tuple[Fill, ...]
    ignored: tuple[str, ...]
    beyond: tuple[str, ...] = ()


def _pattern(template: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", template)
    groups = [
        f"(?P<{part}>0|[1-9][0-9]{{0,5}})" if at % 2 else re.escape(part)
        for at, part in enumerate(parts)
    ]
    return re.compile("".join(groups))


def make_plan(
    family: Family, tensors: Mapping[str, Tensor], params: Mapping[str, Any]
) -> Plan:
    """Matches each tensor with one rule, and fills each parameter once.

    Args:
      family: the tables.
      tensors: name -> tensor, of a whole checkpoint.
      params: name -> anything with the `shape` that the config asks for.

    Raises:
      CheckpointError: everything that does not fit, in one message.
    """
    matcher = _Matcher(family, {name: p.shape for name, p in params.items()})
    _refuse_quantised(family, tensors)
    _refuse_unquantised(matcher, tensors)
    for tensor in tensors.values():
        matcher.place(tensor)
    return matcher.finish()


_QUANTISED_TYPES = ("F8_E4M3", "F8_E5M2", "F8_E8M0")
_QUANTISED_NAMES = re.compile(
    r".*[._:](qweight|qzeros|g_idx|scales|zeros|weight_scale|weight_scale_inv"
    r"|weight_scale_2|weight_packed|weight_shape|weight_zero_point|input_scale"
    r"|input_global_scale|weight_global_scale|blocks|SCB|absmax|quant_map"
    r"|quant_state\..+|[kv]_scale|W_q|codes|codebooks|centroids|_data|qdata|_scale)"
)
"""What quantisers call their tensors: FP8, GPTQ, AWQ, compressed-tensors, MX, NF4, HQQ,
AQLM, VPTQ, Quanto, torchao."""


def _refuse_quantised(family: Family, tensors: Mapping[str, Tensor]):
    """Raises one sentence for files that a quantiser wrote, and the family does not."""
    rules = [(_pattern(rule.tensor), rule.dtypes) for rule in family.tensors]
    for tensor in tensors.values():
        if any(tensor.dtype in d and p.fullmatch(tensor.name) for p, d in rules):
            continue
        if tensor.dtype in _QUANTISED_TYPES:
            raise CheckpointError.quantised(f"{tensor.name} has type {tensor.dtype}")
        if _QUANTISED_NAMES.fullmatch(tensor.name):
            raise CheckpointError.quantised(f"{tensor.name} is among the tensors")


def _refuse_unquantised(matcher: "_Matcher", tensors: Mapping[str, Tensor]):
    """Raises one sentence for floats whose config says how they are quantised."""
    wanted = {
        dtype
        for rule, _ in matcher.rules
        if not set(rule.dtypes) & set(FLOATS) and matcher.takes(rule)
        for dtype in rule.dtypes
    }
    found = sorted({tensor.dtype for tensor in tensors.values()})
    if wanted and found and not wanted & set(found):
        raise CheckpointError(
            f"config.json has quantization_config, by which weights are stored as "
            f"{' or '.join(sorted(wanted))}, but all tensors are {' or '.join(found)}; "
            "if these weights are not quantised, leave the stale entry out (--ignore "
            "quantization_config, ignore=['quantization_config'])"
        )


def _advice(rule: TensorRule, found: Tensor) -> str:
    """What to do about a tensor of another type than the rule has."""
    if not set(rule.dtypes) & set(FLOATS) and found.dtype in FLOATS:
        return (
            "if its module is not quantised, list that in quantization_config."
            "modules_to_not_convert of config.json"
        )
    if found.dtype[0] in "IU":
        return (
            "these are quantised weights of a kind that is not read here; take the "
            "release of this model in bfloat16 or float32"
        )
    return "take weights of one of these types"


class _Matcher:
    def __init__(self, family: Family, shapes: dict[str, tuple[int, ...]]):
        self.family = family
        self.shapes = {name: tuple(shape) for name, shape in shapes.items()}
        self.rules = [(rule, _pattern(rule.tensor)) for rule in family.tensors]
        self.pieces: dict[str, list[Piece]] = {name: [] for name in shapes}
        self.copies: list[tuple[str, str, Tensor]] = []
        self.ignored: list[str] = []
        self.beyond: list[str] = []
        self.after = [_pattern(template) for template in family.beyond]
        found = (re.match(r"layers\.(\d+)\.", name) for name in shapes)
        self.layers = 1 + max((int(m[1]) for m in found if m), default=-1)
        self.errors: list[str] = []

    def place(self, tensor: Tensor):
        if self._is_beyond(tensor.name):
            self.beyond.append(tensor.name)
            return
        matches = [
            (rule, {k: int(v) for k, v in found.groupdict().items()})
            for rule, pattern in self.rules
            if (found := pattern.fullmatch(tensor.name))
        ]
        skips = [p for p in self.family.ignored if fnmatchcase(tensor.name, p)]
        if len(matches) + len(skips) != 1:
            count = len(matches) + len(skips) or "no"
            self.errors.append(
                f"{tensor.name}: expected one rule of {self.family.name} to match, "
                f"found {count}; it belongs to another architecture, or to none"
            )
        elif skips:
            self.ignored.append(tensor.name)
        else:
            self._apply(*matches[0], tensor)

    def takes(self, rule: TensorRule) -> bool:
        """Whether the model has parameters that the rule fills."""
        pattern = _pattern(rule.params[0])
        return any(pattern.fullmatch(name) for name in self.shapes)

    def _is_beyond(self, name: str) -> bool:
        """Whether it is of a part that is not run, or a layer after the last."""
        found = filter(None, (pattern.match(name) for pattern in self.after))
        layers = (int(m.groupdict().get("i", self.layers)) for m in found)
        return any(layer >= self.layers for layer in layers)

    def _apply(self, rule: TensorRule, numbers: dict[str, int], tensor: Tensor):
        params = [name.format(**numbers) for name in rule.params]
        targets = [self._target(param) for param in params]
        shapes = [self.shapes.get(target) for target in targets]
        known = [shape for shape in shapes if shape is not None]
        starts = [rule.start(shape, numbers) for shape in known]
        wanted = rule.shape(*known) if len(known) == len(params) else None
        if wanted is None or None in starts:
            absent = [p for p, s in zip(params, shapes, strict=True) if s is None]
            why = (
                f"{absent[0]} does not exist"
                if absent
                else f"{params[0]} has shape {known[0]}"
            )
            self.errors.append(
                f"{tensor.name}: the config has no place for it ({why}); config.json "
                "and weights are of different models"
            )
            return
        # A tensor of the wrong shape or type still takes its place, so that it is
        # not reported as missing too.
        if wanted != tensor.shape:
            self.errors.append(
                f"{tensor.name}: expected shape {wanted}, found {tensor.shape}; "
                "config.json and weights are of different models"
            )
            tensor = Tensor(tensor.name, tensor.dtype, wanted, "", 0)
        if tensor.dtype not in rule.dtypes:
            self.errors.append(
                f"{tensor.name}: expected {' or '.join(rule.dtypes)}, found "
                f"{tensor.dtype}; {_advice(rule, tensor)}"
            )
        if targets != params:
            self.copies.append((params[0], targets[0], tensor))
            return
        first = 0
        for param, start, shape in zip(params, starts, known, strict=True):
            run = rule.run(shape)
            assert start is not None and run is not None
            piece = Piece(tensor, start, first, run)
            self.pieces[param].append(piece)
            first += piece.size

    def _target(self, param: str) -> str:
        """The parameter, or the one that stands in for it where it is tied."""
        if param in self.shapes:
            return param
        return dict(self.family.tied).get(param, param)

    def _adopt_copies(self):
        """A tied parameter that is stored under the other's name only."""
        for copy in list(self.copies):
            _, target, tensor = copy
            if not self.pieces[target]:
                self.pieces[target].append(Piece.whole(tensor))
                self.copies.remove(copy)

    def finish(self) -> Plan:
        self._adopt_copies()
        fills = {name: self._fill(name) for name in self.shapes}
        copies = []
        for param, target, tensor in self.copies:
            fill = fills[target]
            copy = Fill(
                target, fill.shape, DTYPES[tensor.dtype], (Piece.whole(tensor),)
            )
            copies.append(copy)
            if fill.dtype != copy.dtype:
                self.errors.append(
                    f"{tensor.name}: the config ties {param} to {target}, expected "
                    f"{fill.dtype}, found {copy.dtype}"
                )
        if self.errors:
            title = "the tensors do not make up the model that config.json describes"
            raise CheckpointError.listing(title, self.errors)
        return Plan(fills, tuple(copies), tuple(self.ignored), tuple(self.beyond))

    def _fill(self, param: str) -> Fill:
        shape, pieces = self.shapes[param], self.pieces[param]
        pieces.sort(key=lambda piece: piece.start)
        at, missing = 0, False
        for piece in pieces:
            if piece.start < at:
                self.errors.append(
                    f"{piece.tensor.name}: {param} already has this part from another "
                    "tensor; keep one of the two"
                )
            missing |= piece.start > at
            at = max(at, piece.stop)
        if missing or at < math.prod(shape):
            self._missing(param)
        kinds = sorted({piece.tensor.dtype for piece in pieces})
        if len(kinds) > 1:
            self.errors.append(
                f"{param}: expected tensors of one type, found {', '.join(kinds)}; "
                "save the model in one type"
            )
        dtype = DTYPES[kinds[0]] if kinds else np.dtype("float32")
        return Fill(param, shape, dtype, tuple(pieces))

    def _missing(self, param: str):
        held = {piece.tensor.name for piece in self.pieces[param]}
        ways = []
        for rule, pattern in self.rules:
            names = expand(rule, param, self.shapes[param])
            # A wrong config may ask for millions: three are named, the rest counted.
            first = list(itertools.islice((n for n, *_ in names if n not in held), 3))
            there = sum(pattern.fullmatch(name) is not None for name in held)
            if first:
                count = count_of(rule, self.shapes[param]) - there
                ways.append((not there, first, count))
        # Where some tensors of a layout are there, the others of it are missing.
        begun = [way for way in ways if not way[0]]
        absent = [name for _, first, _ in begun or ways for name in first]
        count = sum(count for _, _, count in begun or ways)
        some = ", ".join(absent[:3]) + (f", {count} in all" * (count > 3))
        self.errors.append(f"{param}: tensors are missing: {some or 'no rule for it'}")


def expand(
    rule: TensorRule, param: str, shape: tuple[int, ...]
) -> Iterator[tuple[str, tuple[int, ...], int]]:
    """Name, shape and start of each tensor that `rule` takes for a parameter.

    Of tensors with rows of several parameters, the shape of this one's rows.
    """
    matches = (_pattern(name).fullmatch(param) for name in rule.params)
    found, wanted = next(filter(None, matches), None), rule.run(shape)
    if not found or wanted is None:
        return
    bound = {k: int(v) for k, v in found.groupdict().items()}
    free = [(p, shape[a]) for a, p in enumerate(rule.place) if isinstance(p, str)]
    for values in itertools.product(*(range(size) for _, size in free)):
        numbers = bound | dict(zip((p for p, _ in free), values, strict=True))
        start = rule.start(shape, numbers)
        assert start is not None
        yield rule.tensor.format(**numbers), wanted, start


def order_of(rule: TensorRule, param: str) -> int:
    """Which of a rule's parameters this is; its rows have that place in a tensor."""
    matches = [_pattern(name).fullmatch(param) is not None for name in rule.params]
    return matches.index(True)


def count_of(rule: TensorRule, shape: tuple[int, ...]) -> int:
    """How many tensors `rule` takes for a parameter of this shape."""
    free = [shape[axis] for axis, p in enumerate(rule.place) if isinstance(p, str)]
    return math.prod(free)


def default_tensors(
    family: Family, params: Mapping[str, Any]
) -> list[tuple[str, np.dtype, tuple[int, ...]]]:
    """Name, type, shape of the tensors of a model that came from no files.

    Of the layouts a parameter can have, the first in the table is taken: the rules up
    to the first that would write a part again.
    """
    tensors: dict[str, tuple[str, np.dtype, tuple[int, ...]]] = {}
    for param, spec in params.items():
        shape = tuple(spec.shape)
        taken: set[int] = set()
        size = 0
        for rule in family.tensors:
            found = list(expand(rule, param, shape))
            if size == math.prod(shape) or taken & {start for _, _, start in found}:
                continue
            taken |= {start for _, _, start in found}
            size += sum(math.prod(s) for _, s, _ in found)
            for name, (rows, *rest), _ in found:
                # With the rows of other parameters, where a tensor has those as well.
                before = tensors[name][2][0] if name in tensors else 0
                whole = (before + rows, *rest)
                tensors[name] = (name, np.dtype(spec.dtype), whole)
    return list(tensors.values())
