"""Grouped-query attention (GQA, arXiv 2305.13245): a mixer with keys and values."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from jaxmoe.config import AttentionConfig, NormConfig
from jaxmoe.nn.base import Context, MixerWork, Sequences, Step
from jaxmoe.nn.key_values import KeyValues
from jaxmoe.nn.linear import project, weight
from jaxmoe.nn.norm import ProjectionNorm, RMSNorm
from jaxmoe.nn.positions import in_chunks
from jaxmoe.ops.attention import FORMS, QKV
from jaxmoe.ops.bf16_bits import widen
from jaxmoe.ops.rope import rotate, rotation
from jaxmoe.ops.stack import OfLayer
from jaxmoe.sharding.layout import Layout
from jaxmoe.typing import Array, Float, Int


class Projected(NamedTuple):
    """Rotated queries and keys, values, and the gates [N, H, A] of heads, or None."""

    qkv: QKV
    gate: Array | None


class Attention(nnx.Module):
    """Query, key, value and output projections, and what is done between them."""

    summed = "heads"

    def __init__(self, config: AttentionConfig, d_model: int, norm: NormConfig, dtype):
        self.config = config
        heads, groups, width = config.num_heads, config.num_kv_heads, config.head_dim
        common = {"d_model": d_model, "bias": config.qkv_bias, "dtype": dtype}
        self.q = Projection(heads, "heads", width, gate=config.gate, **common)
        self.k = Projection(groups, "kv_heads", width, **common)
        self.v = Projection(groups, "kv_heads", width, **common)
        self.o = Output(heads, width, d_model, config.output_bias, dtype)
        if config.qk_norm == "head":
            self.q_norm = RMSNorm(width, norm, dtype, "head_dim")
            self.k_norm = RMSNorm(width, norm, dtype, "head_dim")
        elif config.qk_norm == "projection":
            self.q_norm = ProjectionNorm(heads, width, norm, dtype, "heads")
            self.k_norm = ProjectionNorm(groups, width, norm, dtype, "kv_heads")
        if config.sinks:
            self.sinks = weight((heads,), dtype, ("heads",))

    def project(
        self,
        x: Float[Array, "N D"],
        positions: Int[Array, "N"],
        lengths: Int[Array, "N"],
        context: Context,
    ) -> Projected:
        """Queries, keys and values of rows at absolute `positions`.

        lengths: tokens of the sequence that the row's pass has seen (dynamic rope).
        """
        c = self.config
        cos, sin = rotation(c.rope, c.head_dim, positions, lengths)
        q, k, v = (part(x, context) for part in (self.q, self.k, self.v))
        q, gate = (q[:, :, 0], q[:, :, 1]) if c.gate else (q, None)
        if c.qk_norm is not None:
            q = self._normed(self.q_norm, q, context)
            k = self._normed(self.k_norm, k, context)
        if c.clip is not None:
            q, k, v = (jnp.clip(a, -c.clip, c.clip) for a in (q, k, v))
        q, k = (rotate(a, cos, sin, c.rope.pairs) for a in (q, k))
        return Projected(QKV(q, k, v), gate)

    @classmethod
    def work(cls, config: AttentionConfig, layout: Layout) -> MixerWork:
        """See `Mixer`: a score and a term of the sum for each head's values."""
        heads = config.num_heads // layout.size(layout.rules.heads)
        return MixerWork(
            position=2 * heads * config.head_dim,
            fixed=0,
            scores=heads,
            # Squares of queries and of keys, for the norm of a whole projection.
            told=2 if config.qk_norm == "projection" else 0,
        )

    def _normed(
        self,
        norm: RMSNorm | ProjectionNorm,
        heads: Float[Array, "N H A"],
        context: Context,
    ) -> Float[Array, "N H A"]:
        if isinstance(norm, ProjectionNorm):
            return norm(heads, context.device)
        return norm(heads)

    def output(
        self,
        heads: Float[Array, "N H A"],
        gate: Float[Array, "N H A"] | None,
        context: Context,
    ) -> Float[Array, "N D"]:
        """What follows attention: each head times its gate, all brought together."""
        if gate is not None:
            heads = heads * jax.nn.sigmoid(gate)
        return self.o(heads, context)

    def _sinks(self) -> Float[Array, "H"] | None:
        """Those of the heads that lie here, float32."""
        return widen(self.sinks[...]) if self.config.sinks else None

    def projections(
        self, x: Float[Array, "N D"], positions: Int[Array, "N"], context: Context
    ) -> Float[Array, "N D"]:
        """See `Mixer`."""
        qkv, gate = self.project(x, positions, positions + 1, context)
        groups = qkv.q.shape[1] // qkv.k.shape[1]
        heads = qkv.q + jnp.repeat(qkv.k + qkv.v, groups, axis=1)
        return self.output(heads, gate, context)

    def prefill(
        self, x: Float[Array, "N D"], sequences: Sequences, context: Context
    ) -> tuple[Float[Array, "N D"], KeyValues | None]:
        """See `Mixer`."""
        c = self.config
        own, gate = self.project(x, sequences.positions, sequences.lengths, context)
        qkv = context.device.everyone(own)
        # Padding may compute NaN, and 0 * NaN would reach the tokens that count.
        valid = sequences.valid[:, None, None]
        qkv = QKV(qkv.q, *(jnp.where(valid, a, 0) for a in (qkv.k, qkv.v)))
        heads = attend_sequences(
            qkv,
            sequences,
            context,
            window=c.window,
            scale=c.scale,
            sinks=self._sinks(),
        )
        out = self.output(context.device.own(heads), gate, context)
        if not sequences.keep:
            return out, None
        kept = (in_chunks(a, sequences.count) for a in (qkv.k, qkv.v))
        return out, KeyValues(*kept)

    def decode(
        self,
        x: Float[Array, "S D"],
        at: Array | int,
        prefix: KeyValues,
        own: KeyValues,
        step: Step,
        context: Context,
    ) -> tuple[Float[Array, "S D"], KeyValues]:
        """See `Mixer`: each slot attends to its prompt, then to its own positions."""
        c = self.config
        qkv, gate = self.project(x, step.positions, step.positions + 1, context)
        # In a slot at rest the write goes past the end, and is dropped.
        place = jnp.where(step.active, step.positions - step.start, own.size)
        own = own.write(at, qkv.k, qkv.v, place)
        form = FORMS[context.execution.attention]
        assert form.prefix is not None and form.suffix is not None, form
        running = form.prefix(
            qkv.q,
            OfLayer(prefix.k, at),
            OfLayer(prefix.v, at),
            length=step.prompt_lengths,
            positions=step.positions,
            blocks=step.blocks,
            block=step.block,
            window=c.window,
            scale=c.scale,
        )
        heads = form.suffix(
            running,
            qkv.q,
            OfLayer(own.k, at),
            OfLayer(own.v, at),
            start=step.start,
            positions=step.positions,
            longest=step.longest,
            window=c.window,
            scale=c.scale,
            sinks=self._sinks(),
        )
        return self.output(heads, gate, context), own


def attend_sequences(
    qkv: QKV,
    sequences: Sequences,
    context: Context,
    *,
    window: int | None = None,
    scale: float | None = None,
    sinks: Float[Array, "H"] | None = None,
) -> Float[Array, "M H V"]:
    """Attention within each of the sequences that lie side by side."""
    form = FORMS[context.execution.attention]
    causal = partial(form.causal, window=window, scale=scale, sinks=sinks)
    count = sequences.count
    if count == 1:
        return causal(qkv)
    apart = lambda a: a.reshape(count, -1, *a.shape[1:])  # noqa: E731
    heads = jax.vmap(causal)(QKV(*map(apart, qkv)))
    return heads.reshape(-1, *heads.shape[2:])


class Projection(nnx.Module):
    """x [N, D] -> heads [N, H, A], or with a gate beside each [N, H, 2, A]."""

    def __init__(
        self,
        heads: int,
        axis: str,
        width: int,
        *,
        d_model: int,
        bias: bool,
        dtype,
        gate: bool = False,
    ):
        shape, axes = (heads, width), (axis, "head_dim")
        if gate:
            shape, axes = (heads, 2, width), (axis, "query_gate", "head_dim")
        full = (*shape, d_model)
        self.weight = weight(full, dtype, (*axes, "embed"), inputs=1)
        if bias:
            self.bias = weight(shape, dtype, axes)
        self.has_bias = bias

    def __call__(
        self, x: Float[Array, "N D"], context: Context
    ) -> Float[Array, "N H *A"]:
        """Every row's heads."""
        out = project(x, self.weight[...], context.execution)
        return out + widen(self.bias[...], x.dtype)[None] if self.has_bias else out


class Output(nnx.Module):
    """Heads [N, H, A] -> x [N, D]."""

    def __init__(self, heads: int, width: int, d_model: int, bias: bool, dtype):
        self.weight = weight(
            (d_model, heads, width), dtype, ("embed", "heads", "head_dim"), inputs=2
        )
        if bias:
            self.bias = weight((d_model,), dtype, ("embed",))
        self.has_bias = bias

    def __call__(
        self, heads: Float[Array, "N H A"], context: Context
    ) -> Float[Array, "N D"]:
        """The heads of each row brought together."""
        matrix = self.weight[...]
        flat, rows = matrix.reshape(matrix.shape[0], -1), heads.shape[0]
        out = project(heads.reshape(rows, -1), flat, context.execution)
        out = context.device.reduce_scatter_ordered(out, "heads")
        return out + widen(self.bias[...], out.dtype)[None] if self.has_bias else out
