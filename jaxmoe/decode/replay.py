"""Log-probabilities of given tokens under given routes, with gradients.

What reinforcement learning's routing replay needs (R3, arXiv 2510.11370): the experts
that an engine took while it drew answers are taken again where the gradient is
computed, so that both see one model, and not two that differ where routers were near a
tie.
"""

from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer

from jaxmoe.config import ModelConfig
from jaxmoe.decode.sampler import log_probability
from jaxmoe.execution import Execution, execution_for
from jaxmoe.nn.base import Context, Sequences
from jaxmoe.nn.decoder import Decoder, bind, whole_sequences
from jaxmoe.ops.packed import SCALES
from jaxmoe.router.policies import TopK, for_model
from jaxmoe.router.routing import choose_experts, of_layer
from jaxmoe.sharding.collectives import DeviceContext
from jaxmoe.typing import Array, Float, Int, Params

ROWS = 128
"""Positions whose logits exist at once, in the gradient too."""


def score(
    config: ModelConfig,
    params: Params,
    tokens: Int[Array | np.ndarray, "B T"],
    routes: Int[Array | np.ndarray, "B T L K"] | None = None,
    *,
    lengths: Int[Array | np.ndarray, "B"] | None = None,
    execution: Execution | None = None,
) -> Float[Array, "B T1"]:
    """log p(tokens[:, t + 1] | tokens[:, :t + 1], routes), [B, T - 1]; differentiable.

    Under the model's own distribution, each token computed by the experts given for it,
    weighed by the model's own scores of these: so routers have gradients by the weights
    of the experts that were taken, and the choice itself has none. Pure, for use under
    `jax.grad` and `jax.jit`; logits exist for 128 positions at a time, and are computed
    again for the gradient.

    Args:
      params: floats (`jaxmoe.Model.params` of a model loaded with a dtype: on CPU
        bfloat16 is held as bits, which have no gradient).
      routes: experts of each token's pass, as `jaxmoe.place_routes` makes them of
        recorded ones, as many as the model's or more; -1, or None for all: top-k of
        these params' own scores.
      lengths: tokens that count; 0 past them. None for all T.
      execution: mesh and kernels, on one device; None for those of the params' device
        that have gradients.

    Raises:
      ValueError: weights that have no gradients; an execution on several devices;
        routes or lengths that do not fit the tokens or the model.
    """
    _check(config, tokens, routes, lengths)
    execution = trainable(params, execution)
    context = Context(execution, DeviceContext(execution.layout))
    tokens = jnp.asarray(tokens)
    count, size = tokens.shape
    lengths = jnp.full(count, size) if lengths is None else jnp.asarray(lengths)
    decoder = bind(config, params, context)
    positions = jnp.tile(jnp.arange(size, dtype=jnp.int32), count)
    active = positions < jnp.repeat(lengths, size)
    flat = None
    if routes is not None:
        flat = jnp.asarray(routes).reshape(-1, *routes.shape[2:])
    hidden = _run(decoder, tokens.reshape(-1), positions, active, flat, context, count)
    targets = jnp.roll(tokens, -1, axis=1).reshape(-1)
    logprobs = _in_chunks(decoder, hidden, targets, context).reshape(count, size)
    there = jnp.arange(1, size)[None] < lengths[:, None]
    return jnp.where(there, logprobs[:, :-1], 0.0)


def _check(config: ModelConfig, tokens: Any, routes: Any, lengths: Any) -> None:
    """Shapes, and values where they are known: under `jax.jit` lengths are not."""
    count, size = np.shape(tokens)
    if routes is not None:
        least, shape = config.experts_per_token or 1, np.shape(routes)
        if shape[:-1] != (count, size, config.num_layers) or shape[-1] < least:
            raise ValueError(
                f"routes must be [{count}, {size}, {config.num_layers}, K], of the "
                f"tokens and the model's layers, K {least} or more, found {shape}; "
                "place recorded ones by jaxmoe.place_routes"
            )
    if lengths is None:
        return
    if np.shape(lengths) != (count,):
        raise ValueError(f"lengths must be [{count}], found {np.shape(lengths)}")
    known = not isinstance(lengths, Tracer)
    if known and not ((values := np.asarray(lengths)) <= size).all():
        raise ValueError(
            f"lengths must be at most {size}, the tokens given, found {values.max()}"
        )


def trainable(params: Params, execution: Execution | None = None) -> Execution:
    """The kernels that have gradients, on the device of the weights.

    Raises:
      ValueError: as of `score`.
    """
    wrong = sorted(
        name
        for name, weight in params.items()
        if name.endswith(SCALES) or not jnp.issubdtype(weight.dtype, jnp.floating)
    )
    if wrong:
        raise ValueError(
            f"gradients need weights of floats, found {wrong[:3]} as "
            f"{params[wrong[0]].dtype}; load the model with dtype='float32'"
        )
    found = execution_for(params) if execution is None else execution
    if found.layout.mesh.size > 1:
        raise ValueError(
            "gradients are taken on one device, found a mesh of "
            f"{found.layout.mesh.size}; pass an execution of one"
        )
    plain = found.without_options()
    experts = plain.experts if plain.experts == "ragged" else "batched"
    return replace(plain, attention="dense", experts=experts)


def _run(
    decoder: Decoder,
    tokens: Int[Array, "N"],
    positions: Int[Array, "N"],
    active: Any,
    routes: Int[Array, "N L K"] | None,
    context: Context,
    count: int,
) -> Float[Array, "N D"]:
    """Hidden states of whole sequences side by side."""
    places = None if routes is None else routes.shape[-1]
    own = for_model(TopK(places=places), decoder.config)

    def choose(layer: Array | int, ranking: Float[Array, "N E"]) -> Int[Array, "N K"]:
        return choose_experts(
            own.at_layer(layer),
            lax.stop_gradient(ranking),
            None,
            forced=of_layer(routes, layer, jnp.int32),
            active=active,
        )

    lengths = jnp.repeat(active.reshape(count, -1).sum(axis=1), len(tokens) // count)
    sequences = Sequences(positions, lengths, active, count, keep=False)
    return decoder.run(
        tokens,
        whole_sequences(sequences, context),
        choose,
        context,
        width=own.width,
    ).hidden


def _in_chunks(
    decoder: Decoder,
    hidden: Float[Array, "N D"],
    targets: Int[Array, "N"],
    context: Context,
) -> Float[Array, "N"]:
    """Log-probabilities of the targets, a few rows at a time."""

    @jax.checkpoint
    def chunk(part: tuple[Array, Array]) -> Array:
        hidden, targets = part
        logits = decoder.logits(hidden, context)
        return jax.vmap(log_probability)(logits, targets)

    more = -hidden.shape[0] % ROWS
    rows = jnp.pad(hidden, ((0, more), (0, 0))).reshape(-1, ROWS, hidden.shape[1])
    found = lax.map(chunk, (rows, jnp.pad(targets, (0, more)).reshape(-1, ROWS)))
    return found.reshape(-1)[: hidden.shape[0]]
