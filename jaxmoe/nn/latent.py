"""Multi-head latent attention (MLA, arXiv 2405.04434, section 2.1), and its state.

Of each position one latent c is remembered, and one rotated key r that all heads share.
Head h makes its own key and value of them: k_h = [B_h c | r] and v_h = V_h c. Whole
sequences are computed so. A step, which reads long caches for few queries, multiplies
its queries by B_h instead, and what it found by V_h,

    q . k_h = (B_h^T q_n) . c + q_r . r        sum_j p_j v_h(j) = V_h sum_j p_j c(j)

so that all heads attend to one head of keys [c | r], of which the values are the first
part. The two agree but for rounding.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax.numpy as jnp
from flax import nnx

from jaxmoe.config import LatentConfig, NormConfig
from jaxmoe.nn.attention import Output, attend_sequences
from jaxmoe.nn.base import Context, Held, MixerWork, Sequences, Step
from jaxmoe.nn.linear import project, project_heads, weight
from jaxmoe.nn.norm import RMSNorm
from jaxmoe.nn.positions import Positions, in_chunks
from jaxmoe.ops.attention import CHUNK, FORMS, QKV
from jaxmoe.ops.rope import rotate, rotation
from jaxmoe.ops.stack import OfLayer
from jaxmoe.sharding.layout import Layout
from jaxmoe.typing import Array, Float, Int, Leaf, pytree


@pytree()
@dataclass(frozen=True)
class Latents(Positions):
    """Normed latents and rotated keys of L layers, a `LayerState`.

    latents: [L, B, 1, C, K + R]. All heads read them, and so every device that has the
      row has them whole.
    """

    latents: Leaf

    @classmethod
    def empty(
        cls,
        config: LatentConfig,
        *,
        layers: int,
        rows: int,
        size: int,
        dtype: Any,
        layout: Layout,
    ) -> "Latents":
        """Room for `size` positions in each row."""
        assert size % CHUNK == 0, size
        width = config.latent_dim + config.rope_dim
        return cls(jnp.zeros((layers, rows, 1, size, width), dtype))

    @classmethod
    def specs(cls, layout: Layout, rows: str | None) -> "Latents":
        """See `LayerState`."""
        whole: Any = layout.spec(None, rows)
        return cls(whole)

    @classmethod
    def held(cls, config: LatentConfig, *, dtype: Any, layout: Layout) -> Held:
        """See `LayerState`."""
        width = config.latent_dim + config.rope_dim
        return Held(width * jnp.dtype(dtype).itemsize)

    def write(self, at: Array | int, latents: Array, position: Array) -> "Latents":
        """With one position a row in layer `at`: latents [B, K + R] at `position` [B].

        The caller has checked that it fits: past the end nothing is written.
        """
        return self._write(at, position, latents[:, None])


class LatentAttention(nnx.Module):
    """Projections down to latents and up from them; keys and values of all heads."""

    summed = "heads"

    def __init__(self, config: LatentConfig, d_model: int, norm: NormConfig, dtype):
        """`norm` is not that of the latents, which have their own (`LatentConfig`)."""
        self.config = c = config
        heads, latent = c.num_heads, c.latent_dim
        up = ("heads", "head_dim", "latent")
        if c.query_latent_dim is None:
            shape, axes = (heads, c.key_dim, d_model), ("heads", "head_dim", "embed")
            self.q = weight(shape, dtype, axes, inputs=1)
        else:
            down = (c.query_latent_dim, d_model)
            self.q_down = weight(down, dtype, ("latent", "embed"), inputs=1)
            self.q_norm = RMSNorm(c.query_latent_dim, c.norm, dtype, "latent")
            shape = (heads, c.key_dim, c.query_latent_dim)
            self.q_up = weight(shape, dtype, up, inputs=1)
        down = (latent + c.rope_dim, d_model)
        self.kv_down = weight(down, dtype, ("latent", "embed"), inputs=1)
        self.kv_norm = RMSNorm(latent, c.norm, dtype, "latent")
        shape = (heads, c.plain_dim + c.value_dim, latent)
        self.kv_up = weight(shape, dtype, up, inputs=1)
        self.o = Output(heads, c.value_dim, d_model, False, dtype)

    @classmethod
    def work(cls, config: LatentConfig, layout: Layout) -> MixerWork:
        """See `Mixer`: a step looks at latents, a whole sequence at keys and values."""
        c, heads = config, config.num_heads // layout.size(layout.rules.heads)
        return MixerWork(
            position=heads * (2 * c.latent_dim + c.rope_dim),
            fixed=0,
            scores=heads,
            whole=heads * (c.key_dim + c.value_dim),
        )

    def project(
        self,
        x: Float[Array, "N D"],
        positions: Int[Array, "N"],
        lengths: Int[Array, "N"],
        context: Context,
    ) -> tuple[Float[Array, "N H A"], Float[Array, "N W"]]:
        """Queries, and latents with their keys, of rows at absolute `positions`.

        lengths: tokens of the sequence that the row's pass has seen (dynamic rope).
        """
        c = self.config
        cos, sin = rotation(c.rope, c.rope_dim, positions, lengths)
        turn = partial(rotate, cos=cos, sin=sin, pairs=c.rope.pairs)
        q = self._queries(x, context)
        q = jnp.concatenate([q[..., : c.plain_dim], turn(q[..., c.plain_dim :])], -1)
        down = project(x, self.kv_down[...], context.execution)
        latent = self.kv_norm(down[:, : c.latent_dim])
        shared = turn(down[:, None, c.latent_dim :])[:, 0]
        return q, jnp.concatenate([latent, shared], -1)

    def _queries(
        self, x: Float[Array, "N D"], context: Context
    ) -> Float[Array, "N H A"]:
        if self.config.query_latent_dim is None:
            return project(x, self.q[...], context.execution)
        latent = self.q_norm(project(x, self.q_down[...], context.execution))
        return project(latent, self.q_up[...], context.execution)

    def projections(
        self, x: Float[Array, "N D"], positions: Int[Array, "N"], context: Context
    ) -> Float[Array, "N D"]:
        """See `Mixer`: with all heads' queries for latents, as in a step."""
        q, latents = self.project(x, positions, positions + 1, context)
        return self._brought_together(self._absorbed(q) + latents[:, None], context)

    def prefill(
        self, x: Float[Array, "N D"], sequences: Sequences, context: Context
    ) -> tuple[Float[Array, "N D"], Latents | None]:
        """See `Mixer`: with keys and values of every head."""
        own = self.project(x, sequences.positions, sequences.lengths, context)
        q, latents = context.device.everyone(own)
        # Padding may compute NaN, and 0 * NaN would reach the tokens that count.
        latents = jnp.where(sequences.valid[:, None], latents, 0)
        qkv = self._expanded(q, latents, context)
        heads = attend_sequences(qkv, sequences, context, scale=self.config.scale)
        out = self.o(context.device.own(heads), context)
        if not sequences.keep:
            return out, None
        return out, Latents(in_chunks(latents[:, None], sequences.count))

    def _expanded(
        self, q: Float[Array, "N H A"], latents: Float[Array, "N W"], context: Context
    ) -> QKV:
        c = self.config
        latent, shared = latents[:, : c.latent_dim], latents[:, None, c.latent_dim :]
        up = project(latent, self.kv_up[...], context.execution)
        shared = jnp.broadcast_to(shared, (*up.shape[:2], c.rope_dim))
        keys = jnp.concatenate([up[..., : c.plain_dim], shared], -1)
        return QKV(q, keys, up[..., c.plain_dim :])

    def decode(
        self,
        x: Float[Array, "S D"],
        at: Array | int,
        prefix: Latents,
        own: Latents,
        step: Step,
        context: Context,
    ) -> tuple[Float[Array, "S D"], Latents]:
        """See `Mixer`: all heads attend to latents, as to one head."""
        c = self.config
        q, latents = self.project(x, step.positions, step.positions + 1, context)
        # In a slot at rest the write goes past the end, and is dropped.
        place = jnp.where(step.active, step.positions - step.start, own.size)
        own = own.write(at, latents, place)
        q = self._absorbed(q)
        form = FORMS[context.execution.attention]
        assert form.prefix is not None and form.suffix is not None, form
        # Values are the keys' first part. Taking them whole costs a few columns more,
        # and cutting them a copy of what is cached.
        before, after = (OfLayer(state.latents, at) for state in (prefix, own))
        running = form.prefix(
            q,
            before,
            before,
            length=step.prompt_lengths,
            positions=step.positions,
            blocks=step.blocks,
            block=step.block,
            window=None,
            scale=c.scale,
        )
        found = form.suffix(
            running,
            q,
            after,
            after,
            start=step.start,
            positions=step.positions,
            longest=step.longest,
            window=None,
            scale=c.scale,
        )
        return self._brought_together(found, context), own

    def _brought_together(
        self, found: Float[Array, "S H W"], context: Context
    ) -> Float[Array, "S D"]:
        """The output of what heads found in latents with their keys."""
        c = self.config
        rows = (c.plain_dim, c.value_dim)
        found = found[..., : c.latent_dim]
        heads = project_heads(found, self.kv_up[...], rows=rows, over="columns")
        return self.o(heads, context)

    def _absorbed(self, q: Float[Array, "S H A"]) -> Float[Array, "S H W"]:
        """Queries for latents: their plain part times what makes keys of these."""
        c = self.config
        rows, plain = (0, c.plain_dim), q[..., : c.plain_dim]
        latent = project_heads(plain, self.kv_up[...], rows=rows, over="rows")
        return jnp.concatenate([latent, q[..., c.plain_dim :]], -1)
