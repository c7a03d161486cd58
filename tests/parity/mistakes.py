"""Plausible mistakes of each family, each one thing computed otherwise than it should.

Most are another config, or other weights, of a right model; what neither says is
another function in the place of one of the package.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxmoe.config import (
    AttentionConfig,
    DeltaConfig,
    LatentConfig,
    LayerConfig,
    ModelConfig,
    MoEConfig,
    NormConfig,
)
from jaxmoe.nn import delta
from jaxmoe.nn.attention import Attention
from jaxmoe.nn.delta import GatedDeltaNet
from jaxmoe.nn.norm import ProjectionNorm, RMSNorm
from jaxmoe.ops import delta_rule
from jaxmoe.ops.activations import Activation, ClippedSwiGLU
from jaxmoe.ops.bf16_bits import widen
from jaxmoe.ops.causal_conv import causal_conv
from jaxmoe.ops.delta_rule import Position
from jaxmoe.router.scores import SigmoidScores, SoftmaxScores, log_score

Params = dict[str, jax.Array]
Mistake = Callable[[ModelConfig, Params], tuple[ModelConfig, Params]]
"""From a right model, its weights layer by layer, to a wrong one."""

# -- changes of a config -----------------------------------------------------------


def layers(change: Callable[[LayerConfig], LayerConfig]) -> Mistake:
    """Every layer changed."""

    def make(config: ModelConfig, params: Params):
        return replace(config, layers=tuple(map(change, config.layers))), params

    return make


def mixer(kind: type, **changes: Any) -> Mistake:
    """Attributes of the mixers of a kind; a function is asked with what there was."""

    def change(layer: LayerConfig) -> LayerConfig:
        if not isinstance(layer.mixer, kind):
            return layer
        return replace(layer, mixer=changed(layer.mixer, changes))

    return layers(change)


def changed(value: Any, changes: Mapping[str, Any]) -> Any:
    """A dataclass with some attributes changed."""
    found = {
        name: new(getattr(value, name)) if callable(new) else new
        for name, new in changes.items()
    }
    return replace(value, **found)


def attention(**changes: Any) -> Mistake:
    """Attributes of attention."""
    return mixer(AttentionConfig, **changes)


def latent(**changes: Any) -> Mistake:
    """Attributes of latent attention."""
    return mixer(LatentConfig, **changes)


def rope(**changes: Any) -> Mistake:
    """Attributes of the rope of whatever has one."""
    kinds: Any = (AttentionConfig, LatentConfig)
    return mixer(kinds, rope=lambda found: changed(found, changes))


PLAIN_ROPE = rope(kind="default", attention_factor=1.0)


def mixture(**changes: Any) -> Mistake:
    """Attributes of every mixture."""

    def change(layer: LayerConfig) -> LayerConfig:
        if not isinstance(layer.feed_forward, MoEConfig):
            return layer
        return replace(layer, feed_forward=changed(layer.feed_forward, changes))

    return layers(change)


def activation(new: Activation) -> Mistake:
    """Another activation of every mixture."""
    return mixture(activation=lambda _: new)


def scoring(**changes: Any) -> Mistake:
    """Attributes of every mixture's scoring rule."""
    return mixture(scoring=lambda found: changed(found, changes))


def of_config(**changes: Any) -> Mistake:
    """Attributes of the model."""
    return lambda config, params: (changed(config, changes), params)


def windows(change: Callable[[list[int | None]], list[int | None]]) -> Mistake:
    """The windows of all layers at once."""

    def make(config: ModelConfig, params: Params):
        found = change([layer.mixer.window for layer in config.layers])  # type: ignore[union-attr]
        moved = tuple(
            replace(layer, mixer=replace(layer.mixer, window=window))
            for layer, window in zip(config.layers, found, strict=True)
        )
        return replace(config, layers=moved), params

    return make


WIDER_WINDOW = attention(window=lambda found: found and found + 1)

# -- changes of weights ------------------------------------------------------------


def weights(end: str, change: Callable[[jax.Array], jax.Array]) -> Mistake:
    """Every weight whose name ends so, changed."""

    def make(config: ModelConfig, params: Params):
        found = {name: change(w) for name, w in params.items() if name.endswith(end)}
        assert found, f"no weight ends in {end!r}"
        return config, params | found

    return make


def without(end: str) -> Mistake:
    """Weights left at zero."""
    return weights(end, jnp.zeros_like)


def each_mixer(kind: type, change: Callable[[Any, Params], Params]) -> Mistake:
    """Weights of every mixer of a kind at once, by their names within it."""

    def make(config: ModelConfig, params: Params):
        found = dict(params)
        for i, layer in enumerate(config.layers):
            start = f"layers.{i}.mixer."
            if isinstance(layer.mixer, kind):
                own = {
                    name.removeprefix(start): w
                    for name, w in params.items()
                    if name.startswith(start)
                }
                new = change(layer.mixer, own)
                found |= {start + name: w for name, w in new.items()}
        return config, found

    return make


def both(*mistakes: Mistake) -> Mistake:
    """One thing that takes several changes to say."""

    def make(config: ModelConfig, params: Params):
        for mistake in mistakes:
            config, params = mistake(config, params)
        return config, params

    return make


def grouped_by_key_head(c: AttentionConfig, w: Params) -> Params:
    """Rows of a joined projection read as GPT-NeoX has them: group after group."""
    parts = [w[name] for name in ("q.weight", "k.weight", "v.weight")]
    width, each = parts[0].shape[1:], c.num_heads // c.num_kv_heads
    rows = jnp.concatenate(parts).reshape(c.num_kv_heads, each + 2, *width)
    q, k, v = jnp.split(rows, (each, each + 1), axis=1)
    found = zip(("q.weight", "k.weight", "v.weight"), (q, k, v), strict=True)
    return {name: part.reshape(-1, *width) for name, part in found}


def delta_rows(c: DeltaConfig) -> list[int]:
    """Where queries, keys and values of a key head end."""
    values = c.values_per_key * c.value_dim
    return [c.key_dim, 2 * c.key_dim, 2 * c.key_dim + values]


def one_after_the_other(c: DeltaConfig, w: Params) -> Params:
    """Rows that lie key head by key head, read as those of all heads together."""
    rows = w["qkvz"]
    flat = rows.reshape(-1, rows.shape[-1])
    ends = [c.num_key_heads * end for end in delta_rows(c)]
    parts = jnp.split(flat, ends)
    apart = [part.reshape(len(rows), -1, rows.shape[-1]) for part in parts]
    return {"qkvz": jnp.concatenate(apart, axis=1)}


def key_head_by_key_head(c: DeltaConfig, w: Params) -> Params:
    """The other way about."""
    names = ("q", "k", "v")
    width = w["q"].shape[-1]
    flat = jnp.concatenate([w[name].reshape(-1, width) for name in names])
    rows = flat.reshape(c.num_key_heads, -1, width)
    return dict(zip(names, jnp.split(rows, delta_rows(c)[:2], axis=1), strict=True))


def key_heads_in_turns(c: DeltaConfig, w: Params) -> Params:
    """Value head h with key head h % G, not h // R."""

    def moved(array: jax.Array) -> jax.Array:
        heads = array.reshape(c.values_per_key, c.num_key_heads, -1, *array.shape[2:])
        return heads.swapaxes(0, 1).reshape(array.shape)

    names = ("v", "z", "b", "a", "conv_v", "a_log", "dt_bias")
    out = moved(w["out.weight"].transpose(1, 2, 0)).transpose(2, 0, 1)
    return {name: moved(w[name]) for name in names} | {"out.weight": out}


def first_last(size: Callable[[Any], int], name: str, axis: int):
    """The first rows of a weight, behind the others."""
    return lambda c, w: {name: jnp.roll(w[name], -size(c), axis)}


def gate_beside_all(matrix: jax.Array) -> jax.Array:
    """[H, 2, A, D] read as all queries, then all gates."""
    return matrix.reshape(2, len(matrix), *matrix.shape[2:]).swapaxes(0, 1)


UNGATED = both(
    weights("mixer.q.weight", lambda w: w[:, 0] if w.ndim == 4 else w),
    attention(gate=False),
)

# -- other rules -------------------------------------------------------------------


@dataclass(frozen=True)
class ClippedBelow(ClippedSwiGLU):
    """The gate is clipped below as well."""

    def __call__(self, gate, up):
        return super().__call__(jnp.maximum(gate, -self.limit), up)


@dataclass(frozen=True)
class WithoutOne(ClippedSwiGLU):
    """up in the place of up + 1."""

    def __call__(self, gate, up):
        gate = jnp.minimum(gate, self.limit)
        up = jnp.clip(up, -self.limit, self.limit)
        return up * gate * jax.nn.sigmoid(self.alpha * gate)


class _BiasWeighs:
    """A bias of choice is part of the scores, and so of the weights."""

    bias: tuple[float, ...]

    def scores(self, logits):
        found = super().scores(logits)  # type: ignore[misc]
        return found + jnp.broadcast_to(jnp.asarray(self.bias), found.shape)

    def plain_ranking(self, logits):
        return log_score(self.scores(logits))


@dataclass(frozen=True, repr=False)
class BiasedSigmoid(_BiasWeighs, SigmoidScores):
    bias: tuple[float, ...] = ()


@dataclass(frozen=True, repr=False)
class BiasedSoftmax(_BiasWeighs, SoftmaxScores):
    bias: tuple[float, ...] = ()


def bias_weighs(config: ModelConfig, params: Params) -> tuple[ModelConfig, Params]:
    """Every mixture's weights with its bias of choice in them."""
    found = []
    for i, layer in enumerate(config.layers):
        ff = layer.feed_forward
        if isinstance(ff, MoEConfig):
            s, bias = ff.scoring, params[f"layers.{i}.feed_forward.router.choice_bias"]
            own: dict[str, Any] = {
                "normalise": s.normalises,
                "weight_type": s.weight_type,
                "scale": s.scale,
                "groups": s.groups,
                "bias": tuple(bias.tolist()),
            }
            if isinstance(s, SoftmaxScores):
                rule = BiasedSoftmax(least=s.least, **own)
            else:
                rule = BiasedSigmoid(**own)
            layer = replace(layer, feed_forward=replace(ff, scoring=rule))
        found.append(layer)
    return replace(config, layers=tuple(found)), params


@dataclass(frozen=True, repr=False)
class OfAllowed(SoftmaxScores):
    """Probabilities over the experts of the groups that a token uses."""

    def plain_weights(self, logits, experts):
        assert self.groups is not None
        allowed = self.groups.allowed(self.scores(logits))
        return super().plain_weights(jnp.where(allowed, logits, -jnp.inf), experts)


def as_softmax(s: SigmoidScores) -> SoftmaxScores:
    """The same rule over other scores."""
    return SoftmaxScores(
        s.normalise,
        weight_type=s.weight_type,
        scale=s.scale,
        choice_bias=s.choice_bias,
        groups=s.groups,
    )


def best_of_groups(count: int) -> Mistake:
    """Groups are scored by so many of their best experts."""
    return scoring(groups=lambda found: replace(found, best=count))


# -- other code --------------------------------------------------------------------


def head_by_head(self: ProjectionNorm, x, device):
    """Each head is normed by itself."""
    del device
    wide = x.astype(jnp.float32)
    size = jnp.mean(wide * wide, axis=-1, keepdims=True)
    scale = widen(self.scale[...])[None]
    return scale * wide * lax.rsqrt(size + self.config.eps)


def latents_as_they_are(self: RMSNorm, x):
    """Norms of latents left out; those of layers are wider."""
    return x if x.shape[-1] in LATENT_WIDTHS else RIGHT_NORM(self, x)


RIGHT_NORM = RMSNorm.__call__
LATENT_WIDTHS = (20, 32)


def recurrent(update: Callable[..., tuple[jax.Array, jax.Array]]):
    """`delta_rule.chunk` by a loop over positions, with another rule for each."""

    def chunk(x: Position, memory: jax.Array):
        groups, each = x.v.shape[1:3]

        def advance(memory, row: Position):
            q, k = (jnp.repeat(a, each, axis=0) for a in (row.q, row.k))
            v = row.v.reshape(groups * each, -1)
            decay = jnp.exp(row.decay).reshape(-1, 1, 1)
            beta = row.beta.reshape(-1, 1)
            out, memory = update(q, k, v, decay, beta, memory)
            return memory, out.reshape(row.v.shape)

        memory, out = lax.scan(advance, memory, x)
        return out, memory

    return chunk


def read(memory, x):
    """[H, A, W] at [H, A]."""
    return jnp.einsum("haw,ha->hw", memory, x, precision=lax.Precision.HIGHEST)


def decay_last(q, k, v, decay, beta, memory):
    """The memory fades after it is corrected and read."""
    u = beta * (v - read(memory, k))
    memory = memory + k[..., None] * u[:, None]
    return read(memory, q), decay * memory


def read_first(q, k, v, decay, beta, memory):
    """What is read is the memory before this position."""
    memory = decay * memory
    u = beta * (v - read(memory, k))
    return read(memory, q), memory + k[..., None] * u[:, None]


def uncorrected(q, k, v, decay, beta, memory):
    """Linear attention that fades, without what a key already holds taken away."""
    memory = decay * memory + k[..., None] * (beta * v)[:, None]
    return read(memory, q), memory


def right_rule(q, k, v, decay, beta, memory):
    """As it should be: what shows that `recurrent` itself is no mistake."""
    memory = decay * memory
    u = beta * (v - read(memory, k))
    memory = memory + k[..., None] * u[:, None]
    return read(memory, q), memory


def gated(sigmoid: bool, first: bool):
    """`GatedDeltaNet._output` by another gate, or with the gate before the norm."""

    def output(self: GatedDeltaNet, heads, gate, context):
        open_ = (jax.nn.sigmoid if sigmoid else jax.nn.silu)(gate)
        out = self.norm(heads * open_) if first else self.norm(heads) * open_
        return self.out(out, context)

    return output


def convolved(self: GatedDeltaNet, inputs):
    """`GatedDeltaNet._convolved` without its silu."""
    c = self.config
    taps = [widen(w[...])[:, :, 0] for w in (self.conv_q, self.conv_k, self.conv_v)]
    found = causal_conv(inputs, jnp.concatenate(taps, axis=1))
    q, k, v = jnp.split(found, (c.key_dim, 2 * c.key_dim), axis=-1)
    v = v.reshape(*v.shape[:2], c.values_per_key, c.value_dim)
    return delta.unit(q) * c.key_dim**-0.5, delta.unit(k), v


def silu_gate(self: Attention, heads, gate, context):
    """`Attention.output` with a silu in the place of the sigmoid."""
    return self.o(heads if gate is None else heads * jax.nn.silu(gate), context)


# -- all of them -------------------------------------------------------------------

NOT_NORMALISED, NORMALISED = scoring(normalise=False), scoring(normalise=True)
NO_QK_NORM = attention(qk_norm=None)
FULL_ROPE, HALVES = rope(width=None), rope(pairs="halves")
NEIGHBOURS = rope(pairs="neighbours")
NO_SHARED, NO_SHARED_GATE = (
    mixture(shared=None),
    mixture(shared=lambda found: replace(found, gate=False)),
)
UNSCALED, NO_GROUPS = scoring(scale=1.0), scoring(groups=None)
NO_CHOICE_BIAS = without("router.choice_bias")
AS_SOFTMAX = mixture(scoring=as_softmax)
NO_QKV_BIAS = both(*(without(f"mixer.{name}.bias") for name in "qkv"))
NO_TEMPERATURE = latent(scale=lambda _: 24**-0.5)
"""Plain and turned part of a key, 16 + 8, without YaRN's m squared."""

SIGMOIDS: dict[str, Mistake] = {
    "bias of choice weighs": bias_weighs,
    "no bias of choice": NO_CHOICE_BIAS,
    "not normalised": NOT_NORMALISED,
    "softmax": AS_SOFTMAX,
}
GATED_DELTA: dict[str, Mistake] = {
    "all of a head turned": FULL_ROPE,
    "pairs of neighbours": NEIGHBOURS,
    "norms without 1 +": of_config(norm=lambda found: replace(found, offset=0.0)),
    "queries' norm without 1 +": weights("q_norm.scale", lambda w: w - 1),
    "keys' norm without 1 +": weights("k_norm.scale", lambda w: w - 1),
    "norm of the memory's output with 1 +": weights(
        "mixer.norm.scale", lambda w: w + 1
    ),
    "queries, then gates": weights("mixer.q.weight", gate_beside_all),
    "no output gate": UNGATED,
    "no gate of the shared expert": NO_SHARED_GATE,
    "no shared expert": NO_SHARED,
    "not normalised": NOT_NORMALISED,
    "latest position first": both(
        *(weights(f"mixer.conv_{name}", lambda w: w[..., ::-1]) for name in "qkv")
    ),
    "no bias of the decay": without("mixer.dt_bias"),
}

MISTAKES: dict[tuple[str, int], dict[str, Mistake]] = {
    ("qwen3_moe", 0): {
        "no norm of queries and keys": NO_QK_NORM,
        "not normalised": NOT_NORMALISED,
        "pairs of neighbours": NEIGHBOURS,
        "another theta": rope(theta=1e6),
        "gate and up exchanged": weights("gate_up", lambda w: w[:, ::-1]),
    },
    ("qwen3_moe", 3): {
        "no biases of queries, keys, values": NO_QKV_BIAS,
        "no bias of the output": without("mixer.o.bias"),
    },
    ("qwen3_moe", 4): {"window off by one": WIDER_WINDOW},
    ("olmoe", 0): {
        "no norm of queries and keys": NO_QK_NORM,
        "normalised": NORMALISED,
    },
    ("olmoe", 1): {"not clipped": attention(clip=None)},
    ("gpt_oss", 0): {
        "gate clipped below": activation(ClippedBelow(limit=1.0)),
        "up without 1 +": activation(WithoutOne(limit=1.0)),
        "alpha 1": activation(ClippedSwiGLU(alpha=1.0, limit=1.0)),
        "not clipped": activation(ClippedSwiGLU(limit=1e6)),
        "no bias of down": without("down_bias"),
        "no bias of gate and up": without("gate_up_bias"),
        "softmax over all": NOT_NORMALISED,
        "no bias of the router": without("router.bias"),
        "attention factor": rope(attention_factor=1.0),
        "plain rope": PLAIN_ROPE,
        "ramp in whole pairs": rope(truncate=True),
        "another theta": rope(theta=1e4),
        "window off by one": WIDER_WINDOW,
        "windows on the other layers": windows(lambda found: found[1:] + found[:1]),
        "no sinks": attention(sinks=False),
        "gate and up exchanged": weights("gate_up.values", lambda w: w[..., ::-1]),
        "gate and up in halves": weights(
            "gate_up.values",
            lambda w: w.reshape(*w.shape[:2], 2, -1).swapaxes(2, 3),
        ),
        "no biases of queries, keys, values": NO_QKV_BIAS,
        "no bias of the output": without("mixer.o.bias"),
    },
    ("qwen3_next", 1): GATED_DELTA
    | {
        "rows of all heads together": each_mixer(DeltaConfig, one_after_the_other),
        "b and a exchanged": weights(
            "mixer.ba", lambda w: jnp.roll(w, w.shape[1] // 2, axis=1)
        ),
    },
    ("qwen3_5_moe", 0): GATED_DELTA
    | {
        "rows key head by key head": each_mixer(DeltaConfig, key_head_by_key_head),
        "key heads in turns": each_mixer(DeltaConfig, key_heads_in_turns),
    },
    ("deepseek_v2", 0): {
        "no temperature": NO_TEMPERATURE,
        "plain rope": PLAIN_ROPE,
        "pairs in halves": HALVES,
        "normalised": NORMALISED,
        "no shared expert": NO_SHARED,
        "eps of the layers' norms": latent(norm=NormConfig(1e-5)),
        "value before key": each_mixer(
            LatentConfig, first_last(lambda c: c.value_dim, "kv_up", 1)
        ),
        "turned key before latent": each_mixer(
            LatentConfig, first_last(lambda c: c.rope_dim, "kv_down", 0)
        ),
        "turned part of queries first": each_mixer(
            LatentConfig, first_last(lambda c: c.rope_dim, "q", 1)
        ),
    },
    ("deepseek_v2", 1): {
        "no groups": NO_GROUPS,
        "groups by two": best_of_groups(2),
        "not scaled": UNSCALED,
        "probabilities within groups": mixture(
            scoring=lambda s: OfAllowed(
                s.normalise, weight_type=s.weight_type, scale=s.scale, groups=s.groups
            )
        ),
    },
    ("deepseek_v3", 0): SIGMOIDS
    | {
        "no temperature": NO_TEMPERATURE,
        "pairs in halves": HALVES,
        "no groups": NO_GROUPS,
        "groups by one": best_of_groups(1),
        "not scaled": UNSCALED,
        "no shared expert": NO_SHARED,
    },
    ("deepseek_v3", 1): {"pairs of neighbours": NEIGHBOURS, "normalised": NORMALISED},
    ("kimi_k2", 0): SIGMOIDS | {"pairs in halves": HALVES, "not scaled": UNSCALED},
    ("bailing_moe", 0): {
        "rows as GPT-NeoX has them": each_mixer(AttentionConfig, grouped_by_key_head),
        "not normalised": NOT_NORMALISED,
        "no shared expert": NO_SHARED,
        "pairs of neighbours": NEIGHBOURS,
    },
    ("bailing_moe_v2", 0): SIGMOIDS
    | {
        "no groups": NO_GROUPS,
        "groups by one": best_of_groups(1),
        "not scaled": UNSCALED,
        "no shared expert": NO_SHARED,
        "all of a head turned": FULL_ROPE,
        "no norm of queries and keys": NO_QK_NORM,
        "rows as GPT-NeoX has them": each_mixer(AttentionConfig, grouped_by_key_head),
    },
    ("glm4_moe", 0): SIGMOIDS
    | {
        "all of a head turned": FULL_ROPE,
        "pairs of neighbours": NEIGHBOURS,
        "not scaled": UNSCALED,
        "no shared expert": NO_SHARED,
        "no norm of queries and keys": NO_QK_NORM,
        "no biases of queries, keys, values": NO_QKV_BIAS,
    },
    ("glm4_moe", 1): {
        "normalised": NORMALISED,
        "groups by one": best_of_groups(1),
    },
    ("glm4_moe_lite", 0): SIGMOIDS
    | {
        "pairs in halves": HALVES,
        "not scaled": UNSCALED,
        "no shared expert": NO_SHARED,
    },
    ("qwen2_moe", 0): {
        "normalised": NORMALISED,
        "no gate of the shared expert": NO_SHARED_GATE,
        "no biases of queries, keys, values": NO_QKV_BIAS,
    },
    ("qwen2_moe", 1): {
        "windows on the first layers": windows(lambda found: found[::-1])
    },
    ("qwen3", 0): {
        "no norm of queries and keys": NO_QK_NORM,
        "windows on the first layers": windows(lambda found: found[::-1]),
        "no bias of the output": without("mixer.o.bias"),
    },
    ("qwen2", 0): {
        "no biases of queries, keys, values": NO_QKV_BIAS,
        "windows on the first layers": windows(lambda found: found[::-1]),
    },
    ("dots1", 0): SIGMOIDS
    | {
        "no norm of queries and keys": NO_QK_NORM,
        "windows on the first layers": windows(lambda found: found[::-1]),
        "not scaled": UNSCALED,
        "no shared expert": NO_SHARED,
    },
    ("ernie4_5_moe", 0): {
        "pairs in halves": HALVES,
        "bias of choice weighs": bias_weighs,
        "no bias of choice": NO_CHOICE_BIAS,
        "not normalised": NOT_NORMALISED,
        "no shared expert": NO_SHARED,
    },
    ("ernie4_5_moe", 1): {"no least sum": scoring(least=1e-12)},
    ("minimax_m2", 0): SIGMOIDS
    | {"all of a head turned": FULL_ROPE, "no norm of queries and keys": NO_QK_NORM},
    ("granitemoe", 0): {
        "no multiplier of products": attention(scale=None),
        "no multiplier of residuals": layers(lambda c: replace(c, residual=1.0)),
        "no multiplier of embeddings": of_config(embed_scale=1.0),
        "no divisor of logits": of_config(logits_divisor=1.0),
        "softmax over all": NOT_NORMALISED,
    },
    ("granitemoeshared", 0): {"no shared expert": NO_SHARED},
    ("mixtral", 0): {
        "softmax over all": NOT_NORMALISED,
        "window off by one": WIDER_WINDOW,
    },
}
"""Of each family and one of its test configurations, mistakes by what they are."""

Patch = tuple[Any, str, Any]
DELTA_CODE: dict[str, Patch] = {
    "keys of any length": (delta, "unit", lambda x: x),
    "memory fades last": (delta_rule, "chunk", recurrent(decay_last)),
    "memory is read first": (delta_rule, "chunk", recurrent(read_first)),
    "memory is not corrected": (delta_rule, "chunk", recurrent(uncorrected)),
    "sigmoid gate": (GatedDeltaNet, "_output", gated(sigmoid=True, first=False)),
    "gate before norm": (GatedDeltaNet, "_output", gated(sigmoid=False, first=True)),
    "no silu after the convolution": (GatedDeltaNet, "_convolved", convolved),
    "silu of the output gate": (Attention, "output", silu_gate),
}
CODE: dict[tuple[str, int], dict[str, Patch]] = {
    ("qwen3_next", 1): DELTA_CODE,
    ("qwen3_5_moe", 0): DELTA_CODE,
    ("olmoe", 0): {"norm by head": (ProjectionNorm, "__call__", head_by_head)},
    ("minimax_m2", 0): {"norm by head": (ProjectionNorm, "__call__", head_by_head)},
    ("deepseek_v2", 1): {
        "latents not normed": (RMSNorm, "__call__", latents_as_they_are)
    },
}
"""Likewise, what is computed by another function: where it lies, its name, and it."""
