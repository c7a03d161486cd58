"""What a gated feed-forward does between its two products.

An activation is a frozen value: a config names it, and kernels take it as a static
argument. To add one is to add a class here.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp

from jaxmoe.typing import Array, Float


@dataclass(frozen=True)
class Activation:
    """Contract: hidden units from gate and up, elementwise, of any shape and type."""

    def __call__(self, gate: Float[Array, "..."], up: Float[Array, "..."]) -> Array:
        """The hidden units."""
        raise NotImplementedError


@dataclass(frozen=True)
class SwiGLU(Activation):
    """silu(gate) * up (arXiv 2002.05202)."""

    def __call__(self, gate: Float[Array, "..."], up: Float[Array, "..."]) -> Array:
        """The hidden units."""
        return jax.nn.silu(gate) * up


SWIGLU = SwiGLU()
"""That of most models, and so the default of configs and kernels."""


@dataclass(frozen=True)
class ClippedSwiGLU(Activation):
    """(up + 1) * gate * sigmoid(alpha * gate), of clipped inputs.

    gate is at most `limit`; up lies within -limit .. limit.
    """

    alpha: float = 1.702
    limit: float = 7.0

    def __post_init__(self):
        if not self.alpha > 0 or not self.limit > 0:
            raise ValueError(
                "a clipped SwiGLU needs alpha and limit above 0, found "
                f"alpha {self.alpha} and limit {self.limit}"
            )

    def __call__(self, gate: Float[Array, "..."], up: Float[Array, "..."]) -> Array:
        """The hidden units."""
        gate = jnp.minimum(gate, self.limit)
        up = jnp.clip(up, -self.limit, self.limit)
        return (up + 1) * gate * jax.nn.sigmoid(self.alpha * gate)
