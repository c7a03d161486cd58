"""The letters of dimensions, names for kinds of arrays, and dataclasses of arrays.

Signatures write shapes with these letters, as in `Float[Array, "N D"]`:

    S samples or slots   P prompts            T tokens         C cached positions
    N flat rows          D model width        H query heads    G key-value heads
    R query heads per key-value head          A head width     E experts
    K experts chosen     F expert hidden      V vocabulary     L layers
    B rows of a block    M steps of a segment Q candidate tokens
"""

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from jax import Array, tree_util
from jax.typing import ArrayLike
from jaxtyping import Bool, Float, Int, Integer, Key, Num, Shaped

Params = dict[str, Array]
"""Dotted parameter name -> array, as `jaxmoe.nn.decoder.abstract_params` lists them.

On CPU a bfloat16 weight is held as its bits, uint16 (see `jaxmoe.ops.bf16_bits`)."""

if TYPE_CHECKING:
    Leaf = Array
else:
    Leaf = Any
"""A field of a state: an array, or in its place how one lies on a mesh."""

_Class = TypeVar("_Class", bound=type)


def pytree(*static: str) -> Callable[[_Class], _Class]:
    """Registers a dataclass as a pytree; use above `@dataclass`.

    Not by `jax.tree_util.register_dataclass`: the structures of two classes registered
    so are equal where their static fields are (jax 0.10.2), though their hashes are
    not. Once in some tens of processes jax then ran the program that it had compiled
    for the other class.

    Args:
      static: names of fields that are no leaves, beside those whose metadata have
        `static`. A program is compiled for each of their values.
    """

    def register(cls: _Class) -> _Class:
        fields = dataclasses.fields(cls)
        fixed = [f.name for f in fields if f.name in static or f.metadata.get("static")]
        leaves = [f.name for f in fields if f.name not in fixed]
        keys = [tree_util.GetAttrKey(name) for name in leaves]

        def flatten(tree: Any) -> tuple[tuple, tuple]:
            parts = tuple(getattr(tree, name) for name in leaves)
            return parts, tuple(getattr(tree, name) for name in fixed)

        def flatten_with_keys(tree: Any) -> tuple[tuple, tuple]:
            parts, rest = flatten(tree)
            return tuple(zip(keys, parts, strict=True)), rest

        def unflatten(rest: Any, parts: Any) -> Any:
            named = zip((*leaves, *fixed), (*parts, *rest), strict=True)
            return cls(**dict(named))

        tree_util.register_pytree_with_keys(cls, flatten_with_keys, unflatten, flatten)
        return cls

    return register


__all__ = [
    "Array",
    "ArrayLike",
    "Bool",
    "Float",
    "Int",
    "Integer",
    "Key",
    "Leaf",
    "Num",
    "Params",
    "Shaped",
    "pytree",
]
