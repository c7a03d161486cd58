"""The letters of dimensions, and names for kinds of arrays.

Signatures write shapes with these letters, as in `Float[Array, "N D"]`:

    S samples or slots   P prompts            T tokens         C cached positions
    N flat rows          D model width        H query heads    G key-value heads
    R query heads per key-value head          A head width     E experts
    K experts chosen     F expert hidden      V vocabulary     L layers
    B rows of a block    M steps of a segment Q candidate tokens
"""

from typing import TYPE_CHECKING, Any

from jax import Array
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
]
