"""What a model family states: `Family`, and the `TensorRule`s of its checkpoints."""

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxmoe.config import ModelConfig
from jaxmoe.families.attributes import Attributes

FLOATS = ("BF16", "F16", "F32")


@dataclass(frozen=True)
class TensorRule:
    """Tensors named `tensor` are `param[place]`.

    A parameter's bytes are those of its tensors, one after the other: a tensor is a
    whole parameter, or the part at some indices of its leading axes, with neighbouring
    axes merged. So a tensor is one run of bytes of a parameter: reading a checkpoint
    copies bytes, and the way back is exact. A tensor may also be such runs of several
    parameters, the rows of one after those of the other.

    Args:
      tensor: the Hugging Face name, in which `{i}` stands for a number.
      param: our name, likewise; several, in the order of their rows in the tensor.
      place: leading indices of the part; a string is a number of the name. With place
        ("e", 0), tensor experts.{e}.gate_proj is param[e, 0].
      merge: for each axis of the tensor, how many axes of the parameter it runs over
        (one each where empty): q [H*A, D] into [H, A, D] is (2, 1). A first entry of 0
        is for all the axes that the others leave, be it none: [1, E] into [E].
      dtypes: safetensors' names of the types that the tensors may have.
    """

    tensor: str
    param: str | tuple[str, ...]
    place: tuple[str | int, ...] = ()
    merge: tuple[int, ...] = ()
    dtypes: tuple[str, ...] = FLOATS

    @property
    def params(self) -> tuple[str, ...]:
        """The names of the parameters, one or more."""
        return (self.param,) if isinstance(self.param, str) else self.param

    def shape(self, *params: tuple[int, ...]) -> tuple[int, ...] | None:
        """The shape of the tensor; None where parameters of these shapes have none."""
        runs = [self.run(param) for param in params]
        if len(runs) == 1:
            return runs[0]
        rows, rest = 0, set()
        for run in runs:
            if not run:
                return None
            rows += run[0]
            rest.add(run[1:])
        return (rows, *rest.pop()) if len(rest) == 1 else None

    def run(self, param: tuple[int, ...]) -> tuple[int, ...] | None:
        """The shape of the part of the tensor that is of a parameter of this shape."""
        rest = param[len(self.place) :]
        merge = self.merge or (1,) * len(rest)
        if merge and not merge[0]:
            merge = (len(rest) - sum(merge), *merge[1:])
        if sum(merge) != len(rest) or min(merge, default=0) < 0:
            return None
        ends = list(itertools.accumulate(merge, initial=0))
        return tuple(math.prod(rest[a:b]) for a, b in itertools.pairwise(ends))

    def start(self, param: tuple[int, ...], numbers: Mapping[str, int]) -> int | None:
        """The first element of the part; None where the indices are out of range."""
        place = [numbers[p] if isinstance(p, str) else p for p in self.place]
        start, stride = 0, math.prod(param)
        for index, size in zip(place, param, strict=False):
            if index >= size:
                return None
            stride //= size
            start += index * stride
        return start


@dataclass(frozen=True)
class Family:
    """One model family: all that the package knows of it beside its modules.

    Args:
      name: unique among families; `ModelConfig.family`, and what manifests record.
      model_type: as in config.json. Families may share one.
      architectures: the entries of `architectures` in config.json that mean this
        family; they tell families of one model_type apart.
      read_config: from config.json and generation_config.json to the config.
      tensors: which Hugging Face tensor is which part of which parameter.
      ignored: patterns of tensors that are derived from others and left out.
      beyond: beginnings of names, as in rules; a tensor is left out where its number
        `i` is no layer's, or where there is no such number: layers after the last,
        which predict further tokens. Conversion warns, as an export lacks them.
      tied: a parameter that a model with tied embeddings lacks -> the one that stands
        in for it. A checkpoint may hold it nevertheless, if it is equal.
      byte_level: `tokenizer_class` in tokenizer_config.json -> the pattern by which a
        byte-level tokenizer cuts text (after NFC), for models that come with vocab.json
        and merges.txt alone.
      marks: special tokens that stay in the text of answers, which they divide.
      formats: released formats of weights that are read, beside floats.
      scores: whether its models score text and write none (`ModelConfig.scorer`).
      released: size -> config.json values of a released model, for planning.
      test_configs: small config.json values that cover what the family can vary.
    """

    name: str
    model_type: str
    architectures: tuple[str, ...]
    read_config: Callable[[Attributes, Attributes], ModelConfig]
    tensors: tuple[TensorRule, ...]
    ignored: tuple[str, ...] = ()
    beyond: tuple[str, ...] = ()
    tied: tuple[tuple[str, str], ...] = ()
    byte_level: Mapping[str, str] = field(default_factory=dict)
    marks: tuple[str, ...] = ()
    formats: tuple[str, ...] = ()
    scores: bool = False
    released: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    test_configs: tuple[Mapping[str, Any], ...] = ()
