"""Gated DeltaNet (arXiv 2412.06464): a mixer whose state does not grow."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax

from jaxmoe.config import DeltaConfig, NormConfig
from jaxmoe.nn.base import Context, MixerWork, Sequences, Step
from jaxmoe.nn.linear import project, weight
from jaxmoe.nn.norm import RMSNorm
from jaxmoe.nn.recurrent import Recurrent
from jaxmoe.ops import delta_rule
from jaxmoe.ops.bf16_bits import widen
from jaxmoe.ops.causal_conv import causal_conv
from jaxmoe.ops.delta_rule import CHUNK, Position, unit
from jaxmoe.ops.stack import OfLayer, whole
from jaxmoe.sharding.layout import Layout
from jaxmoe.typing import Array, Float, Int


class Given(NamedTuple):
    """What the projections make of rows.

    mixed: [N, G, M], queries, keys and values of each key head before the convolution,
    M = 2 A + R W. gate: [N, G, R, W]. decay, beta: float32 [N, G, R].
    """

    mixed: Array
    gate: Array
    decay: Array
    beta: Array


class GatedDeltaNet(nnx.Module):
    """o(norm(delta rule(silu(conv(q, k, v)))) * silu(gate)).

    Letters as in `jaxmoe.ops.delta_rule`: G key heads, R value heads of each, A key
    width, W value width. Rows of each weight lie key head by key head.
    """

    summed = "key_heads"

    def __init__(self, config: DeltaConfig, d_model: int, norm: NormConfig, dtype):
        self.config = c = config
        keys, values = c.num_key_heads, c.values_per_key
        width, size = c.key_dim, c.value_dim
        own = ("key_heads", "head_dim", "embed")
        rows = (width, width, values * size, values * size)
        if c.joined:
            both = (keys, sum(rows), d_model)
            self.qkvz = weight(both, dtype, own, inputs=1)
            self.ba = weight((keys, 2 * values, d_model), dtype, own)
        else:
            self.q, self.k, self.v, self.z = (
                weight((keys, count, d_model), dtype, own, inputs=1) for count in rows
            )
            self.b = weight((keys, values, d_model), dtype, own)
            self.a = weight((keys, values, d_model), dtype, own)
        # [channels, 1, positions] in checkpoints.
        taps = (1, c.conv_size)
        axes = ("key_heads", "head_dim", "conv", "conv")
        self.conv_q = weight((keys, width, *taps), dtype, axes)
        self.conv_k = weight((keys, width, *taps), dtype, axes)
        self.conv_v = weight((keys, values * size, *taps), dtype, axes)
        # float32 in every model: what is lost of a decay is lost at every position.
        axes = ("key_heads", "value_heads")
        self.a_log = weight((keys, values), jnp.float32, axes)
        self.dt_bias = weight((keys, values), jnp.float32, axes)
        # Its own: without the offset that a model's other norms may have.
        self.norm = RMSNorm(size, NormConfig(norm.eps), dtype, "head_dim")
        self.out = DeltaOutput(keys, values * size, d_model, dtype)

    @classmethod
    def work(cls, config: DeltaConfig, layout: Layout) -> MixerWork:
        """See `Mixer`: the memory is read at key and query, and corrected."""
        heads = config.num_value_heads // layout.size(layout.rules.key_heads)
        fixed = 3 * heads * config.key_dim * config.value_dim
        return MixerWork(position=0, fixed=fixed, scores=0)

    def given(self, x: Float[Array, "N D"], context: Context) -> Given:
        """What every row brings."""
        c = self.config
        qkvz, b, a = self._projected(x, context)
        mixed = 2 * c.key_dim + c.values_per_key * c.value_dim
        shape = (*a.shape, c.value_dim)
        rate = jax.nn.softplus(a.astype(jnp.float32) + widen(self.dt_bias[...])[None])
        return Given(
            mixed=qkvz[:, :, :mixed],
            gate=qkvz[:, :, mixed:].reshape(shape),
            decay=-jnp.exp(widen(self.a_log[...]))[None] * rate,
            beta=jax.nn.sigmoid(b.astype(jnp.float32)),
        )

    def _projected(
        self, x: Float[Array, "N D"], context: Context
    ) -> tuple[Float[Array, "N G B"], Float[Array, "N G R"], Float[Array, "N G R"]]:
        """Queries, keys, values and gates of each key head, B = 2 A + 2 R W; b; a."""
        own = partial(project, x, execution=context.execution)
        if self.config.joined:
            b, a = jnp.split(own(self.ba[...]), 2, axis=-1)
            return own(self.qkvz[...]), b, a
        parts = [own(w[...]) for w in (self.q, self.k, self.v, self.z)]
        return jnp.concatenate(parts, -1), own(self.b[...]), own(self.a[...])

    def projections(
        self, x: Float[Array, "N D"], positions: Int[Array, "N"], context: Context
    ) -> Float[Array, "N D"]:
        """See `Mixer`: nothing here depends on where rows are."""
        del positions
        given = self.given(x, context)
        keys, values = jnp.split(given.mixed, [2 * self.config.key_dim], axis=-1)
        scale = given.beta + given.decay + keys.sum(axis=-1, keepdims=True)
        heads = values.reshape(given.gate.shape) * scale[..., None]
        return self._output(heads.astype(x.dtype), given.gate, context)

    def prefill(
        self, x: Float[Array, "N D"], sequences: Sequences, context: Context
    ) -> tuple[Float[Array, "N D"], Recurrent | None]:
        """See `Mixer`."""
        own = self.given(x, context)
        mixed, decay, beta = context.device.everyone((own.mixed, own.decay, own.beta))
        # Nothing of the padding, not even NaN, may reach the state.
        valid = sequences.valid[:, None, None]
        mixed, decay, beta = (jnp.where(valid, a, 0) for a in (mixed, decay, beta))
        count = sequences.count
        apart = lambda a: a.reshape(count, -1, *a.shape[1:])  # noqa: E731
        lengths = apart(sequences.valid).sum(axis=1)
        rows = (apart(mixed), apart(decay), apart(beta), lengths)
        heads, kept = jax.vmap(self._sequence)(*rows)
        heads = context.device.own(heads.reshape(-1, *heads.shape[2:]))
        out = self._output(heads.astype(x.dtype), own.gate, context)
        return out, kept if sequences.keep else None

    def _sequence(
        self,
        mixed: Float[Array, "T G M"],
        decay: Float[Array, "T G R"],
        beta: Float[Array, "T G R"],
        length: Array,
    ) -> tuple[Float[Array, "T G R W"], Recurrent]:
        """The delta rule over one sequence, and what it leaves behind.

        Chunk by chunk in one loop, so that chunks of padding change no bit.
        """
        c, size = self.config, mixed.shape[0]
        inside = jnp.arange(size) < length

        def cut(array: Array) -> Array:
            room = ((0, -size % CHUNK), *((0, 0) for _ in array.shape[1:]))
            # Behind a barrier: a loop of one turn would be fused with what is around.
            padded = lax.optimization_barrier(jnp.pad(array, room))
            return padded.reshape(-1, CHUNK, *array.shape[1:])

        def advance(state: tuple[Array, Array], rows: tuple[Array, ...]):
            (memory, before), (mixed, decay, beta, inside) = state, rows
            inputs = jnp.concatenate([before, mixed])
            q, k, v = self._convolved(inputs)
            # The convolution reaches past the end, where keys and values must be 0.
            here = inside[:, None, None]
            k, v = jnp.where(here, k, 0), jnp.where(here[..., None], v, 0)
            out, memory = delta_rule.chunk(Position(q, k, v, decay, beta), memory)
            return (memory, inputs[-before.shape[0] :]), out

        heads = mixed.shape[1] * c.values_per_key  # those that lie here
        memory = jnp.zeros((heads, c.key_dim, c.value_dim), jnp.float32)
        before = jnp.zeros((c.conv_size - 1, *mixed.shape[1:]), mixed.dtype)
        chunks = tuple(map(cut, (mixed, decay, beta, inside)))
        (memory, _), out = lax.scan(advance, (memory, before), chunks)
        out = out.reshape(-1, *out.shape[2:])[:size]
        inputs = jnp.concatenate([before, mixed])
        last = lax.dynamic_slice_in_dim(inputs, length, before.shape[0])
        return lax.optimization_barrier((out, Recurrent(memory, last)))

    def decode(
        self,
        x: Float[Array, "S D"],
        at: Array | int,
        prefix: Recurrent,
        own: Recurrent,
        step: Step,
        context: Context,
    ) -> tuple[Float[Array, "S D"], Recurrent]:
        """See `Mixer`; the prompt's state is in that of the slot since it began."""
        given = self.given(x, context)
        before, memory = (whole(OfLayer(a, at)) for a in (own.inputs, own.memory))
        inputs = jnp.concatenate([before, given.mixed[:, None]], axis=1)
        q, k, v = (a[:, 0] for a in jax.vmap(self._convolved)(inputs))
        position = Position(q, k, v, given.decay, given.beta)
        heads, memory = delta_rule.step(position, memory)
        out = self._output(heads.astype(x.dtype), given.gate, context)
        return out, own.write(at, memory, inputs[:, 1:], step.active)

    def _convolved(
        self, inputs: Float[Array, "T2 G M"]
    ) -> tuple[Float[Array, "T G A"], Float[Array, "T G A"], Float[Array, "T G R W"]]:
        """Queries, keys and values, float32; with the inputs of earlier positions."""
        c = self.config
        taps = [widen(w[...])[:, :, 0] for w in (self.conv_q, self.conv_k, self.conv_v)]
        found = jax.nn.silu(causal_conv(inputs, jnp.concatenate(taps, axis=1)))
        q, k, v = jnp.split(found, (c.key_dim, 2 * c.key_dim), axis=-1)
        v = v.reshape(*v.shape[:2], c.values_per_key, c.value_dim)
        return unit(q) * c.key_dim**-0.5, unit(k), v

    def _output(
        self,
        heads: Float[Array, "N G R W"],
        gate: Float[Array, "N G R W"],
        context: Context,
    ) -> Float[Array, "N D"]:
        """The heads of each row, normed, gated and brought together."""
        normed = self.norm(heads).astype(jnp.float32)
        gated = normed * jax.nn.silu(gate.astype(jnp.float32))
        return self.out(gated.astype(heads.dtype), context)


class DeltaOutput(nnx.Module):
    """Heads [N, G, R, W] -> x [N, D]."""

    def __init__(self, keys: int, width: int, d_model: int, dtype):
        axes = ("embed", "key_heads", "head_dim")
        self.weight = weight((d_model, keys, width), dtype, axes, inputs=2)

    def __call__(
        self, heads: Float[Array, "N G R W"], context: Context
    ) -> Float[Array, "N D"]:
        """The heads of each row brought together."""
        matrix = self.weight[...]
        flat = matrix.reshape(matrix.shape[0], -1)
        out = project(heads.reshape(heads.shape[0], -1), flat, context.execution)
        return context.device.reduce_scatter_ordered(out, "key_heads")
