"""The decoder: embedding, layers, norm, head; weights declared, never made."""

from collections.abc import Callable
from functools import lru_cache

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.sharding import PartitionSpec

from jaxmoe.config import LayerConfig, ModelConfig, MoEConfig
from jaxmoe.nn.attention import Attention
from jaxmoe.nn.dense import DenseFeedForward
from jaxmoe.nn.linear import project, weight
from jaxmoe.nn.moe import MoEFeedForward
from jaxmoe.nn.norm import RMSNorm
from jaxmoe.ops.attention.chunked import QKV
from jaxmoe.ops.bf16_bits import is_bits, widen
from jaxmoe.ops.experts import Implementation
from jaxmoe.router.routing import Choose
from jaxmoe.sharding.collectives import WHOLE, DeviceContext
from jaxmoe.sharding.layout import Layout
from jaxmoe.typing import Array, Float, Int, Params

Attend = Callable[[int, QKV], Float[Array, "N H A"]]
"""(layer, queries keys and values of N rows) -> attended heads: the cache's part."""


class Layer(nnx.Module):
    """A mixer and a feed-forward, each behind a norm and around a residual."""

    def __init__(self, config: LayerConfig, d_model: int, eps: float, dtype):
        self.mixer_norm = RMSNorm(d_model, eps, dtype, "embed")
        self.mixer = Attention(config.mixer, d_model, eps, dtype)
        self.ff_norm = RMSNorm(d_model, eps, dtype, "embed")
        if isinstance(config.feed_forward, MoEConfig):
            self.feed_forward = MoEFeedForward(config.feed_forward, d_model, dtype)
        else:
            self.feed_forward = DenseFeedForward(config.feed_forward, d_model, dtype)


class Embedding(nnx.Module):
    """A row a token."""

    def __init__(self, vocab_size: int, d_model: int, dtype):
        self.weight = weight((vocab_size, d_model), dtype, ("vocab", "embed"))

    def rows(self, tokens: Int[Array, "N"], part: DeviceContext) -> Float[Array, "N D"]:
        """The row of each token."""
        table = self.weight[...]
        dtype = compute_dtype(table)
        if not part.axes("vocab"):
            return widen(table[tokens], dtype)
        own, here = part.inside(tokens, "vocab", table.shape[0])
        found = widen(table[jnp.where(here, own, 0)], dtype)
        return part.reduce_scatter_ordered(jnp.where(here[:, None], found, 0), "vocab")


class Decoder(nnx.Module):
    """All weights of a model; how rows attend and are routed comes with the call."""

    def __init__(self, config: ModelConfig, dtype=jnp.bfloat16):
        self.config = config
        d_model, eps = config.d_model, config.norm_eps
        self.embed = Embedding(config.vocab_size, d_model, dtype)
        self.layers = nnx.List([Layer(c, d_model, eps, dtype) for c in config.layers])
        self.final_norm = RMSNorm(d_model, eps, dtype, "embed")
        if not config.tie_embeddings:
            self.head = Embedding(config.vocab_size, d_model, dtype)

    def hidden(
        self,
        tokens: Int[Array, "N"],
        positions: Int[Array, "N"],
        lengths: Int[Array, "N"],
        *,
        attend: Attend,
        choose: Choose,
        width: int,
        implementation: Implementation = "auto",
        part: DeviceContext = WHOLE,
    ) -> tuple[Float[Array, "N D"], Int[Array, "N L K"]]:
        """Last hidden state of each row, before the final norm, and its experts.

        lengths: tokens of its sequence that each row's pass has seen.
        width: K; dense layers hold -1 there.
        part: which of the model's devices computes this; the weights are its own.
        """
        x = self.embed.rows(tokens, part)
        routes = []
        for index, layer in enumerate(self.layers):
            with jax.named_scope("attention"):
                qkv = layer.mixer.project(layer.mixer_norm(x), positions, lengths)
                x = x + layer.mixer.o(attend(index, qkv), part)
            normed = layer.ff_norm(x)
            if isinstance(layer.feed_forward, MoEFeedForward):
                out, experts = layer.feed_forward(
                    normed, index, choose, implementation, part
                )
            else:
                out = layer.feed_forward(normed, part)
                experts = jnp.full((x.shape[0], width), -1, jnp.int32)
            x = x + out
            routes.append(experts.astype(jnp.int16))
        return x, jnp.stack(routes, axis=1)

    def logits(self, hidden: Float[Array, "N D"]) -> Float[Array, "N V"]:
        """float32 logits of the next token; of the rows of the head that lie here."""
        head = self.embed if self.config.tie_embeddings else self.head
        normed = self.final_norm(hidden)
        return project(normed, head.weight[...]).astype(jnp.float32)


def compute_dtype(weights: Array):
    """The type activations have: the weights', or float32 where those are bits."""
    return jnp.float32 if is_bits(weights) else weights.dtype


@lru_cache(maxsize=16)
def _declared(config: ModelConfig, dtype):
    """(graphdef, tree structure, names, abstract leaves, axes) of a config."""
    model = nnx.eval_shape(lambda: Decoder(config, dtype))
    graphdef, state = nnx.split(model)
    leaves, structure = jax.tree_util.tree_flatten_with_path(state)
    names = tuple(_name(path) for path, _ in leaves)
    axes = {
        ".".join(str(part) for part in path): param.get_metadata()["axes"]
        for path, param in nnx.to_flat_state(state)
    }
    return graphdef, structure, names, tuple(leaf for _, leaf in leaves), axes


def _name(path) -> str:
    parts = [
        getattr(p, "key", getattr(p, "idx", getattr(p, "name", None))) for p in path
    ]
    return ".".join(str(part) for part in parts if part not in ("value", None))


def abstract_params(
    config: ModelConfig, dtype=jnp.bfloat16
) -> dict[str, jax.ShapeDtypeStruct]:
    """Name, shape and (uniform) type of every weight; allocates nothing."""
    _, _, names, leaves, _ = _declared(config, jnp.dtype(dtype))
    return {
        name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype)
        for name, leaf in zip(names, leaves, strict=True)
    }


def logical_axes(config: ModelConfig) -> dict[str, tuple[str, ...]]:
    """Name -> logical axis of each dimension, for every weight."""
    return dict(_declared(config, jnp.dtype(jnp.bfloat16))[4])


def axis_sizes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Logical axis -> the sizes that it has in the weights."""
    axes, found = logical_axes(config), dict[str, set[int]]()
    for name, leaf in abstract_params(config).items():
        for axis, size in zip(axes[name], leaf.shape, strict=True):
            found.setdefault(axis, set()).add(size)
    return {axis: tuple(sorted(sizes)) for axis, sizes in found.items()}


def param_specs(config: ModelConfig, layout: Layout) -> dict[str, PartitionSpec]:
    """Name -> how each weight lies on the layout's mesh."""
    return {name: layout.spec(*axes) for name, axes in logical_axes(config).items()}


def own_heads(config: ModelConfig, params: Params, part: DeviceContext) -> Params:
    """`params` with the one key-value head that a device's query heads share.

    Where key-value heads are fewer than the devices that divide the query heads: the
    weights of all of them lie on each device.
    """
    devices = part.count("heads")
    if part.count("kv_heads") == devices:
        return params
    axes = logical_axes(config)

    def cut(name: str, weight: Array) -> Array:
        if "kv_heads" not in axes[name]:
            return weight
        dimension = axes[name].index("kv_heads")
        heads = weight.shape[dimension]
        own = part.index("heads") * heads // devices
        return lax.dynamic_slice_in_dim(weight, own, 1, dimension)

    return {name: cut(name, weight) for name, weight in params.items()}


def bind(config: ModelConfig, params: Params) -> Decoder:
    """The decoder of `params`, for use inside a jitted function.

    Raises:
      ValueError: names in `params` that differ from what the config declares.
    """
    graphdef, structure, names, _, _ = _declared(config, jnp.dtype(jnp.bfloat16))
    if set(names) != set(params):
        missing = sorted(set(names) - set(params))
        extra = sorted(set(params) - set(names))
        raise ValueError(
            f"params must hold the {len(names)} weights of the config; missing "
            f"{missing[:5]}, unexpected {extra[:5]}; convert the checkpoint again"
        )
    state = jax.tree.unflatten(structure, [params[name] for name in names])
    return nnx.merge(graphdef, state)
