"""The decoder: embedding, layers, norm, head; weights declared, never made.

One loop over layers serves every pass: prompts, steps, statistics, training. What is
done with the mixers comes with the call, and so does who chooses the experts; what was
chosen, and what else was asked for, is returned.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import lax
from jax.sharding import PartitionSpec

from jaxmoe.config import (
    Fp8Weights,
    LayerConfig,
    ModelConfig,
    ModelWeights,
    MoEConfig,
    NormConfig,
)
from jaxmoe.execution import STACKED, Execution, Layers
from jaxmoe.nn.base import Context, LayerState, Sequences, Step
from jaxmoe.nn.dense import DenseFeedForward
from jaxmoe.nn.linear import project, weight
from jaxmoe.nn.mixers import kind_of
from jaxmoe.nn.moe import MoEFeedForward
from jaxmoe.nn.norm import RMSNorm
from jaxmoe.nn.scorer import Scorer
from jaxmoe.nn.segments import Segment, segments, stored_names
from jaxmoe.ops import fp8
from jaxmoe.ops.bf16_bits import is_bits, widen
from jaxmoe.ops.fp8 import Fp8
from jaxmoe.ops.int8 import Int8, quantise_array
from jaxmoe.ops.packed import SCALES
from jaxmoe.ops.stack import OfLayer
from jaxmoe.router.routing import Choose
from jaxmoe.sharding.collectives import DeviceContext
from jaxmoe.sharding.layout import Layout
from jaxmoe.typing import Array, Float, Int, Params

Mix = Callable[[Any, Array, int, Array | int, Any], tuple[Array, Any, Any]]
"""(mixer, x [N, D], stack, layer within it, its state) -> output, state, what to keep.

How one kind of pass uses a mixer: `prefill` or `decode` of `jaxmoe.nn.base.Mixer`."""


class Passed(NamedTuple):
    """What a pass over the layers gives.

    hidden: [N, D], before the final norm. routes: int16 [N, L, K], -1 in dense layers.
    states: one a stack (`stacks`), carried on. kept: what mixers kept, one a stack,
    [layers of the stack, ...]. rankings: float32 [layers with experts, N, E], if asked.
    weights: float32 [layers with experts, N, K], of the experts, if asked.
    """

    hidden: Array
    routes: Array
    states: tuple[Any, ...]
    kept: tuple[Any, ...]
    rankings: Array | None
    weights: Array | None = None


class Layer(nnx.Module):
    """A mixer and a feed-forward, each behind a norm and around a residual."""

    def __init__(self, config: LayerConfig, d_model: int, norm: NormConfig, dtype):
        self.residual = config.residual
        self.mixer_norm = RMSNorm(d_model, norm, dtype, "embed")
        mixer = kind_of(config.mixer).module
        self.mixer = mixer(config.mixer, d_model, norm, dtype)
        self.ff_norm = RMSNorm(d_model, norm, dtype, "embed")
        if isinstance(config.feed_forward, MoEConfig):
            self.feed_forward = MoEFeedForward(config.feed_forward, d_model, dtype)
        else:
            self.feed_forward = DenseFeedForward(config.feed_forward, d_model, dtype)

    def add(
        self, x: Float[Array, "N D"], out: Float[Array, "N D"]
    ) -> Float[Array, "N D"]:
        """The residual stream with what the mixer or the feed-forward gave."""
        return x + _times(out, self.residual)


class Embedding(nnx.Module):
    """A row a token."""

    def __init__(self, vocab_size: int, d_model: int, dtype, *, inputs: int = 0):
        shape, axes = (vocab_size, d_model), ("vocab", "embed")
        self.weight = weight(shape, dtype, axes, inputs=inputs)

    def rows(
        self, tokens: Int[Array, "N"], device: DeviceContext
    ) -> Float[Array, "N D"]:
        """The row of each token."""
        table = self.weight[...]
        dtype = compute_dtype(table)
        if not device.axes("vocab"):
            return widen(table[tokens], dtype)
        own, here = device.inside(tokens, "vocab", table.shape[0])
        found = widen(table[jnp.where(here, own, 0)], dtype)
        return device.reduce_scatter_ordered(
            jnp.where(here[:, None], found, 0), "vocab"
        )


class Frame(nnx.Module):
    """All that is no layer."""

    def __init__(self, config: ModelConfig, dtype):
        d_model = config.d_model
        self.embed = Embedding(config.vocab_size, d_model, dtype)
        self.final_norm = RMSNorm(d_model, config.norm, dtype, "embed")
        if config.scorer is not None:
            self.score = Scorer(config.scorer, d_model, dtype)
        elif not config.tie_embeddings:
            self.head = Embedding(config.vocab_size, d_model, dtype, inputs=1)


class Decoder:
    """A model's modules over its weights, for use inside a jitted function."""

    def __init__(self, config: ModelConfig, params: Params, execution: Execution):
        self.config, self.params = config, params
        self.segments = segments(config, execution.layers)
        self._merged = partial(
            _merged,
            weights=config.weights,
            params=params,
            bits_first=execution.products != "plain",
        )
        self.frame = self._merged(_frame(config), prefix="")

    def layer(self, segment: Segment, place: int, turn: Array | int) -> Layer:
        """The layer at one place of one turn of a segment."""
        config = self.config
        declared = _layer(segment.period[place], config.d_model, config.norm)
        prefix = segment.prefix(place)
        if segment.count == 1:
            return self._merged(declared, prefix=prefix)
        pick = lambda stack: OfLayer(stack, turn)  # noqa: E731
        return self._merged(declared, prefix=prefix, pick=pick)

    def layers(self) -> list[Layer]:
        """All layers in order."""
        found = {
            s.index(turn, place): self.layer(s, place, turn)
            for s in self.segments
            for turn in range(s.count)
            for place in range(len(s.period))
        }
        return [found[index] for index in range(self.config.num_layers)]

    def run(
        self,
        tokens: Int[Array, "N"],
        mix: Mix,
        choose: Choose,
        context: Context,
        *,
        width: int,
        states: tuple[Any, ...] | None = None,
        keep_rankings: bool = False,
        keep_weights: bool = False,
    ) -> Passed:
        """One pass of rows over all layers.

        Args:
          mix: how the pass uses a mixer.
          choose: who chooses experts.
          width: K; dense layers hold -1 there.
          states: one a stack, handed to `mix` layer by layer.
        """
        x = self.frame.embed.rows(tokens, context.device)
        x = _times(x, self.config.embed_scale)
        left = list(states or (None,) * len(stacks(self.config, context.execution)))
        after: list[Any] = []
        outs: list[tuple[range, _Out]] = []
        for segment in self.segments:
            size, first = len(segment.period), len(after)
            mine, left = tuple(left[:size]), left[size:]
            body = self._period(
                segment,
                first,
                mix,
                choose,
                context,
                width,
                (keep_rankings, keep_weights),
            )
            if segment.count == 1:
                (x, mine), found = body((x, mine), 0)
                found = jax.tree.map(lambda a: a[None], found)
            else:
                turns = jnp.arange(segment.count, dtype=jnp.int32)
                (x, mine), found = lax.scan(body, (x, mine), turns)
            after += mine
            outs += [(segment.layers(place), out) for place, out in enumerate(found)]
        routes = _in_order([(layers, out.routes) for layers, out in outs])
        ranked = [(layers, o.ranking) for layers, o in outs if o.ranking is not None]
        weighed = [(layers, o.weights) for layers, o in outs if o.weights is not None]
        return Passed(
            x,
            jnp.moveaxis(routes, 0, 1),
            tuple(after),
            tuple(out.kept for _, out in outs),
            _in_order(ranked) if ranked else None,
            _in_order(weighed) if weighed else None,
        )

    def _period(
        self,
        segment: Segment,
        first: int,
        mix: Mix,
        choose: Choose,
        context: Context,
        width: int,
        kept_of_routers: tuple[bool, bool],
    ):
        """One turn of a segment's period, as `lax.scan` wants it."""

        keep_rankings, keep_weights = kept_of_routers

        def body(carry, turn):
            x, states = carry
            after, outs = [], []
            for place, state in enumerate(states):
                layer = self.layer(segment, place, turn)
                with jax.named_scope("attention"):
                    normed = layer.mixer_norm(x)
                    out, state, kept = mix(
                        layer.mixer, normed, first + place, turn, state
                    )
                    x = layer.add(x, out)
                normed, ranking, weights = layer.ff_norm(x), None, None
                if isinstance(layer.feed_forward, MoEFeedForward):
                    index = segment.index(turn, place)
                    out, routed = layer.feed_forward(normed, index, choose, context)
                    experts, ranking, weights = routed
                else:
                    out = layer.feed_forward(normed, context)
                    experts = jnp.full((x.shape[0], width), -1, jnp.int32)
                x = layer.add(x, out)
                after.append(state)
                ranking = ranking if keep_rankings else None
                weights = weights if keep_weights else None
                outs.append(_Out(experts.astype(jnp.int16), kept, ranking, weights))
            return (x, tuple(after)), tuple(outs)

        return body

    def logits(
        self, hidden: Float[Array, "N D"], context: Context
    ) -> Float[Array, "N V"]:
        """float32 logits of the next token; of the rows of the head that lie here."""
        frame = self.frame
        head = frame.embed if self.config.tie_embeddings else frame.head
        normed = frame.final_norm(hidden)
        out = project(normed, head.weight[...], context.execution)
        divisor = self.config.logits_divisor
        return (out if divisor == 1 else out / divisor).astype(jnp.float32)

    def labels(
        self, hidden: Float[Array, "N D"], context: Context
    ) -> Float[Array, "N labels"]:
        """float32 logits of a scorer's labels."""
        normed = self.frame.final_norm(hidden)
        return self.frame.score(normed, context.execution).astype(jnp.float32)


def _times(x: Float[Array, "N D"], factor: float) -> Float[Array, "N D"]:
    return x if factor == 1 else x * factor


class _Out(NamedTuple):
    """Of one layer: routes int16 [N, K], what its mixer kept, its ranking, weights."""

    routes: Array
    kept: Any
    ranking: Array | None
    weights: Array | None


def _in_order(stacked: list[tuple[range, Array]]) -> Array:
    """Stacks of several layers each, as one of all, in order of the layers."""
    index = [i for layers, _ in stacked for i in layers]
    joined = stacked[0][1]
    if len(stacked) > 1:
        joined = jnp.concatenate([array for _, array in stacked])
    if index == sorted(index):
        return joined
    return joined[jnp.array(sorted(range(len(index)), key=index.__getitem__))]


# -- kinds of passes -----------------------------------------------------------------


def whole_sequences(sequences: Sequences, context: Context) -> Mix:
    """Mixers over whole sequences; what they keep are the states after them."""

    def mix(mixer, x, stack, at, state):
        out, kept = mixer.prefill(x, sequences, context)
        return out, state, kept

    return mix


def one_step(prefix: tuple[Any, ...], step: Step, context: Context) -> Mix:
    """Mixers over one more position a slot, after the prompts' states."""

    def mix(mixer, x, stack, at, state):
        out, state = mixer.decode(x, at, prefix[stack], state, step, context)
        return out, state, None

    return mix


def one_step_of_routes(
    prefix: tuple[Any, ...], step: Step, context: Context, routes: int
) -> Mix:
    """As `one_step`, with rows [1 + routes, S]: the first ones' states are carried on.

    Each row sees what the first ones left of earlier positions, and its own position
    as it computes it itself.
    """
    alone = one_step(prefix, step, context)

    def mix(mixer, x, stack, at, state):
        first, others = jnp.split(x.reshape(1 + routes, -1, x.shape[1]), [1])

        def pass_one(state, x):
            out, after, _ = alone(mixer, x, stack, at, state)
            return after.rewound(state), out

        state, outs = lax.scan(pass_one, state, others)
        out, state, _ = alone(mixer, first[0], stack, at, state)
        return jnp.concatenate([out[None], outs]).reshape(x.shape), state, None

    return mix


# -- states --------------------------------------------------------------------------


def stacks(config: ModelConfig, execution: Execution) -> list[tuple[LayerConfig, int]]:
    """(kind of layer, how many) of each stack of layers, as states are held."""
    return [
        (layer, segment.count)
        for segment in segments(config, execution.layers)
        for layer in segment.period
    ]


def empty_states(
    config: ModelConfig, execution: Execution, *, rows: int, size: int, dtype: Any
) -> tuple[LayerState, ...]:
    """States with room for `size` positions in each row, one a stack."""
    return tuple(
        kind_of(layer.mixer).state.empty(
            layer.mixer,
            layers=count,
            rows=rows,
            size=size,
            dtype=dtype,
            layout=execution.layout,
        )
        for layer, count in stacks(config, execution)
    )


def state_specs(config: ModelConfig, execution: Execution, rows: str | None) -> Any:
    """How states lie on a mesh; rows: the logical axis of their rows."""
    layout = execution.layout
    return tuple(
        kind_of(layer.mixer).state.specs(layout, rows)
        for layer, _ in stacks(config, execution)
    )


# -- weights -------------------------------------------------------------------------


def compute_dtype(weights: Array):
    """The type activations have: the weights', or float32 where those are bits."""
    return jnp.float32 if is_bits(weights) else weights.dtype


class _Declared(NamedTuple):
    """A module that was never made: names and abstract leaves of its weights.

    axes: of each its logical axes. inputs: how many of these a product sums over.
    """

    graphdef: Any
    structure: Any
    names: tuple[str, ...]
    leaves: tuple[Any, ...]
    axes: dict[str, tuple[str, ...]]
    inputs: dict[str, int]


def _declare(make: Callable[[], nnx.Module]) -> _Declared:
    graphdef, state = nnx.split(nnx.eval_shape(make))
    leaves, structure = jax.tree_util.tree_flatten_with_path(state)
    names = tuple(_name(path) for path, _ in leaves)
    about = {
        ".".join(str(part) for part in path): param.get_metadata()
        for path, param in nnx.to_flat_state(state)
    }
    axes, inputs = ({n: m[k] for n, m in about.items()} for k in ("axes", "inputs"))
    found = tuple(leaf for _, leaf in leaves)
    return _Declared(graphdef, structure, names, found, axes, inputs)


def _name(path) -> str:
    parts = [
        getattr(p, "key", getattr(p, "idx", getattr(p, "name", None))) for p in path
    ]
    return ".".join(str(part) for part in parts if part not in ("value", None))


@lru_cache(maxsize=64)
def _frame(config: ModelConfig) -> _Declared:
    return _declare(lambda: Frame(config, jnp.bfloat16))


@lru_cache(maxsize=64)
def _layer(layer: LayerConfig, d_model: int, norm: NormConfig) -> _Declared:
    return _declare(lambda: Layer(layer, d_model, norm, jnp.bfloat16))


def _merged(
    declared: _Declared,
    *,
    weights: ModelWeights | Fp8Weights,
    params: Any,
    prefix: str,
    bits_first: bool,
    pick: Callable[[Any], Any] = lambda array: array,
) -> Any:
    """The module over weights of `params`, each as `pick` gives it.

    bits_first: see `Fp8.of`.
    """

    def bound(name: str) -> Any:
        values, scales = (params.get(prefix + name + end) for end in ("", SCALES))
        if scales is None:
            return pick(values)
        if isinstance(weights, Fp8Weights):
            inputs = declared.inputs[name]
            held = pick(values), pick(scales)
            return Fp8.of(*held, weights.block, inputs, bits_first=bits_first)
        return Int8(pick(values), pick(scales))

    leaves = [bound(name) for name in declared.names]
    state = jax.tree.unflatten(declared.structure, leaves)
    return nnx.merge(declared.graphdef, state)


class _Weight(NamedTuple):
    """An array of a model. dtype: where the config fixes it; None for any float's.

    inputs: of the last axes, those that its scales do not have; 0 without scales.
    """

    shape: tuple[int, ...]
    axes: tuple[str | None, ...]
    dtype: Any = None
    inputs: int = 0


APART = ("experts", "gate_up")
"""Axes of which each index is a matrix of its own, as checkpoints have them."""


@lru_cache(maxsize=64)
def _weights(config: ModelConfig, layers: Layers) -> dict[str, _Weight]:
    """Name -> what is known of every array that the model's weights are made of."""
    found = dict(_arrays(_frame(config), "", config))
    for segment in segments(config, layers):
        for place, layer in enumerate(segment.period):
            declared = _layer(layer, config.d_model, config.norm)
            for name, one in _arrays(declared, segment.prefix(place), config):
                if segment.count > 1:
                    shape, axes = (segment.count, *one.shape), (None, *one.axes)
                    one = one._replace(shape=shape, axes=axes)
                found[name] = one
    return found


def _arrays(
    declared: _Declared, prefix: str, config: ModelConfig
) -> Iterator[tuple[str, _Weight]]:
    """The arrays of a module's weights: one each, two of one that is quantised."""
    for name, leaf in zip(declared.names, declared.leaves, strict=True):
        axes, inputs = declared.axes[name], declared.inputs[name]
        if config.weights == "int8" and inputs:
            yield prefix + name, _Weight(leaf.shape, axes, jnp.int8, inputs)
            scales = _Weight(leaf.shape[:-inputs], axes[:-inputs], jnp.float32)
            yield prefix + name + SCALES, scales
        elif isinstance(config.weights, Fp8Weights) and name in config.weights.names:
            yield prefix + name, _Weight(leaf.shape, axes, fp8.DTYPE, inputs)
            scales = _block_scales(leaf.shape, axes, inputs, config.weights.block)
            yield prefix + name + SCALES, scales
        else:
            # Modules are declared in bfloat16 for a model of whatever type.
            fixed = None if leaf.dtype == jnp.bfloat16 else leaf.dtype
            yield prefix + name, _Weight(leaf.shape, axes, fixed)


def _block_scales(
    shape: tuple[int, ...], axes: tuple[str, ...], inputs: int, block: fp8.Block
) -> _Weight:
    """Of a weight whose outputs are one axis of a matrix, and whose inputs the other.

    Experts, and gate and up, are matrices of their own.
    """
    apart, last = sum(axis in APART for axis in axes), len(shape) - inputs
    sizes = math.prod(shape[apart:last]), math.prod(shape[last:])
    scales = (*shape[:apart], *fp8.blocks_of(sizes, block))
    return _Weight(scales, (*axes[: apart + 1], axes[last]), jnp.float32)


def abstract_params(
    config: ModelConfig, dtype=jnp.bfloat16, *, layers: Layers = "unroll"
) -> dict[str, jax.ShapeDtypeStruct]:
    """Name, shape and type of every weight; allocates nothing.

    dtype: of those that have no type of their own (`fixed_dtypes`). layers: "scan" for
    weights stacked as a scan over layers wants them.
    """
    kind = lambda one: jnp.dtype(dtype if one.dtype is None else one.dtype)  # noqa: E731
    weights = _weights(config, layers).items()
    return {n: jax.ShapeDtypeStruct(one.shape, kind(one)) for n, one in weights}


def fixed_dtypes(config: ModelConfig) -> dict[str, Any]:
    """Name -> type of the weights that are held so whatever type is asked for."""
    weights = _weights(config, "unroll").items()
    return {
        name: jnp.dtype(one.dtype) for name, one in weights if one.dtype is not None
    }


@lru_cache(maxsize=64)
def always_wide(config: ModelConfig, *, layers: Layers = "unroll") -> frozenset[str]:
    """Names of the weights that modules declare in float32: no cast is for them."""
    found = _weights(config, layers).items()
    return frozenset(name for name, one in found if one.dtype == jnp.float32)


def logical_axes(
    config: ModelConfig, *, layers: Layers = "unroll"
) -> dict[str, tuple[str | None, ...]]:
    """Name -> logical axis of each dimension, for every weight; None for a stack's."""
    return {name: one.axes for name, one in _weights(config, layers).items()}


def axis_sizes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Logical axis -> the sizes that it has in the weights, scales left out."""
    found = dict[str, set[int]]()
    for name, one in _weights(config, "unroll").items():
        if name.endswith(SCALES):
            continue  # blocks of an axis are fewer: `check_blocks`
        for axis, size in zip(one.axes, one.shape, strict=True):
            assert axis is not None
            found.setdefault(axis, set()).add(size)
    return {axis: tuple(sorted(sizes)) for axis, sizes in found.items()}


def products(config: ModelConfig) -> frozenset[str]:
    """Names, within a layer, of the weights that a product sums over inputs of."""
    layers = dict.fromkeys(config.layers)
    found = (_layer(layer, config.d_model, config.norm).inputs for layer in layers)
    return frozenset(name for inputs in found for name in inputs if inputs[name])


def check_blocks(config: ModelConfig, layout: Layout):
    """Raises a ValueError where devices would share blocks that have one scale."""
    if not isinstance(config.weights, Fp8Weights):
        return
    weights, block = _weights(config, "unroll"), config.weights.block
    wrong = set[str]()
    for name, one in weights.items():
        if name + SCALES not in weights:
            continue
        scales = weights[name + SCALES]
        last = len(one.shape) - one.inputs
        sizes = (
            math.prod(one.shape[len(scales.shape) - 2 : last]),
            math.prod(one.shape[last:]),
        )
        for axis, size, length in zip(scales.axes[-2:], sizes, block, strict=True):
            parts = layout.size(layout.rules.of(axis))
            if axis == "kv_heads" and layout.rules.kv_heads != layout.rules.heads:
                parts = one.shape[0]  # each device takes one head (`own_heads`)
            if parts > 1 and size % (parts * length):
                wrong.add(f"{size} of {axis} in {parts} parts, of blocks of {length}")
    if wrong:
        raise ValueError(
            "weights of FP8 do not divide over the mesh, as blocks that have one scale "
            f"would be cut: {'; '.join(sorted(wrong))}; choose other rules or a mesh "
            "of another shape, or convert the model with --dtype bfloat16"
        )


def param_specs(
    config: ModelConfig, layout: Layout, *, layers: Layers = "unroll"
) -> dict[str, PartitionSpec]:
    """Name -> how each weight lies on the layout's mesh."""
    axes = logical_axes(config, layers=layers)
    return {name: layout.spec(*names) for name, names in axes.items()}


def stack_params(config: ModelConfig, params: Params) -> Params:
    """Weights of single layers, stacked as a scan over layers wants them.

    For models made in memory; `jaxmoe.load` reads stacks without a second copy.
    """

    def stack(name: str) -> Array:
        names = stored_names(name)
        parts = [params[stored] for stored in names]
        return parts[0] if names == [name] else jnp.stack(parts)

    return {name: stack(name) for name in _weights(config, "scan")}


def quantise_params(config: ModelConfig, params: Params) -> tuple[ModelConfig, Params]:
    """A model of floats as one of int8 weights, which see (`jaxmoe.ops.int8`).

    For models made in memory; `jaxmoe.load` has never both.
    """
    config = replace(config, weights="int8")
    stacked = any(STACKED in name for name in params)
    weights = _weights(config, "scan" if stacked else "unroll")
    found: Params = {}
    for name, array in params.items():
        if weights[name].inputs:
            values, scales = quantise_array(array, weights[name].inputs)
            found |= {name: values, name + SCALES: scales}
        else:
            found[name] = array
    return config, found


def read_shape(
    shape: tuple[int, ...], axes: tuple[str, ...], layout: Layout
) -> tuple[int, ...]:
    """What a device multiplies by of a weight: its part, as `own_heads` leaves it."""
    rules = layout.rules
    alone = rules.kv_heads != rules.heads
    return tuple(
        1 if axis == "kv_heads" and alone else size // layout.size(rules.of(axis))
        for size, axis in zip(shape, axes, strict=True)
    )


def own_heads(config: ModelConfig, params: Params, device: DeviceContext) -> Params:
    """`params` with the one key-value head that a device's query heads share.

    Where key-value heads are fewer than the devices that divide the query heads: the
    weights of all of them lie on each device.
    """
    devices = device.count("heads")
    if device.count("kv_heads") == devices:
        return params
    stacked = any(STACKED in name for name in params)
    axes = logical_axes(config, layers="scan" if stacked else "unroll")

    def cut(name: str, weight: Array) -> Array:
        if "kv_heads" not in axes[name]:
            return weight
        dimension = axes[name].index("kv_heads")
        heads = params[name.removesuffix(SCALES)].shape[dimension]
        own = device.index("heads") * heads // devices
        # Of scales, as many rows as a head has.
        each = weight.shape[dimension] // heads if name.endswith(SCALES) else 1
        return lax.dynamic_slice_in_dim(weight, own * each, each, dimension)

    return {name: cut(name, weight) for name, weight in params.items()}


def bind(config: ModelConfig, params: Params, context: Context) -> Decoder:
    """The decoder of `params`, for use inside a jitted function.

    Raises:
      ValueError: names in `params` that differ from what the config declares.
    """
    names = _weights(config, context.execution.layers)
    if names.keys() != params.keys():
        missing = sorted(names.keys() - params.keys())
        extra = sorted(params.keys() - names.keys())
        raise ValueError(
            f"params must hold the {len(names)} weights of the config; missing "
            f"{missing[:5]}, unexpected {extra[:5]}; convert the checkpoint again"
        )
    own = own_heads(config, params, context.device)
    return Decoder(config, own, context.execution)
