"""Grouped-query attention: the projections around it."""

from flax import nnx

from jaxmoe.config import AttentionConfig
from jaxmoe.nn.linear import project, weight
from jaxmoe.nn.norm import RMSNorm
from jaxmoe.ops.attention.chunked import QKV
from jaxmoe.ops.bf16_bits import widen
from jaxmoe.ops.rope import rotate, rotation
from jaxmoe.sharding.collectives import WHOLE, DeviceContext
from jaxmoe.typing import Array, Float, Int


class Attention(nnx.Module):
    """Query, key, value and output projections with per-head norm and rotation."""

    def __init__(self, config: AttentionConfig, d_model: int, eps: float, dtype):
        self.config = config
        heads, groups, width = config.num_heads, config.num_kv_heads, config.head_dim
        self.q = Projection(heads, "heads", width, d_model, config.bias, dtype)
        self.k = Projection(groups, "kv_heads", width, d_model, config.bias, dtype)
        self.v = Projection(groups, "kv_heads", width, d_model, config.bias, dtype)
        self.o = Output(heads, width, d_model, config.bias, dtype)
        self.q_norm = RMSNorm(width, eps, dtype, "head_dim")
        self.k_norm = RMSNorm(width, eps, dtype, "head_dim")

    def project(
        self,
        x: Float[Array, "N D"],
        positions: Int[Array, "N"],
        lengths: Int[Array, "N"],
    ) -> QKV:
        """Queries, keys and values of rows at absolute `positions`.

        lengths: tokens of the sequence that the row's pass has seen (dynamic rope).
        """
        c = self.config
        cos, sin = rotation(c.rope, c.head_dim, positions, lengths)
        q = rotate(self.q_norm(self.q(x)), cos, sin)
        k = rotate(self.k_norm(self.k(x)), cos, sin)
        return QKV(q, k, self.v(x))


class Projection(nnx.Module):
    """x [N, D] -> heads [N, H, A]."""

    def __init__(
        self, heads: int, axis: str, width: int, d_model: int, bias: bool, dtype
    ):
        self.weight = weight(
            (heads, width, d_model), dtype, (axis, "head_dim", "embed")
        )
        if bias:
            self.bias = weight((heads, width), dtype, (axis, "head_dim"))
        self.has_bias = bias

    def __call__(self, x: Float[Array, "N D"]) -> Float[Array, "N H A"]:
        """Every row's heads."""
        out = project(x, self.weight[...])
        return out + widen(self.bias[...], x.dtype)[None] if self.has_bias else out


class Output(nnx.Module):
    """Heads [N, H, A] -> x [N, D]."""

    def __init__(self, heads: int, width: int, d_model: int, bias: bool, dtype):
        self.weight = weight(
            (d_model, heads, width), dtype, ("embed", "heads", "head_dim")
        )
        if bias:
            self.bias = weight((d_model,), dtype, ("embed",))
        self.has_bias = bias

    def __call__(
        self, heads: Float[Array, "N H A"], part: DeviceContext = WHOLE
    ) -> Float[Array, "N D"]:
        """The heads of each row brought together."""
        matrix = self.weight[...]
        out = project(
            heads.reshape(heads.shape[0], -1), matrix.reshape(matrix.shape[0], -1)
        )
        out = part.reduce_scatter_ordered(out, "heads")
        return out + widen(self.bias[...], out.dtype)[None] if self.has_bias else out
