"""What a model is made of: frozen, hashable descriptions, one per layer.

A layer is a *mixer* (how positions exchange information) and a *feed-forward*
(what each position does alone); each is chosen by its own dataclass, so that
another family adds a dataclass and leaves the rest alone. What computes something small
is a value with a method: a scoring rule (`jaxmoe.router.scores`), an activation
(`jaxmoe.ops.activations`). `jaxmoe.families` reads these from a Hugging Face
`config.json`.
"""

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

from jaxmoe.ops.activations import SWIGLU, Activation
from jaxmoe.router.scores import Scores

RopeKind = Literal["default", "linear", "dynamic", "yarn"]
RopePairs = Literal["halves", "neighbours"]
QKNorm = Literal["head", "projection"]
NormCast = Literal["first", "last"]
WeightFormat = Literal["float", "inputs_first", "mxfp4"]
ModelWeights = Literal["float", "int8"]


def _check_positive(**values: int):
    """Raises a ValueError naming each value that is not above 0."""
    wrong = [f"{name} = {value}" for name, value in values.items() if value < 1]
    if wrong:
        raise ValueError(f"expected positive integers, found {', '.join(wrong)}")


def _check_choice(name: str, value: object, choices: tuple[object, ...]):
    """Raises a ValueError unless `value` is one of the choices."""
    if value not in choices:
        raise ValueError(
            f"{name} must be one of {', '.join(map(str, choices))}, found {value!r}"
        )


def _check_above_zero(**values: float | None):
    """Raises a ValueError naming each number that is neither above 0 nor None."""
    for name, value in values.items():
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"{name} must be above 0, found {value}")


@dataclass(frozen=True)
class NormConfig:
    """Root-mean-square norm (arXiv 1910.07467) and what its weight w does.

    `cast` says when the float32 result takes the activations' type: "first", before it
    is multiplied by w, or "last". `offset` is added to w: 1 where the file holds the
    difference from it, which only a product in float32 keeps.
    """

    eps: float = 1e-6
    cast: NormCast = "first"
    offset: float = 0.0

    def __post_init__(self):
        _check_choice("cast of a norm", self.cast, get_args(NormCast))
        _check_above_zero(**{"eps of a norm": self.eps})
        if self.offset and self.cast == "first":
            raise ValueError(
                f"a norm with an offset casts last, found cast {self.cast!r} and "
                f"offset {self.offset}"
            )


@dataclass(frozen=True)
class RopeConfig:
    """Rotary position embedding (RoFormer, arXiv 2104.09864) and its scalings.

    `kind` selects plain rotation, linear interpolation of positions, dynamic NTK
    (the base grows once a sequence passes `original_length`), or YaRN
    (arXiv 2309.00071). `attention_factor` multiplies cosine and sine; it is
    already resolved (1.0 unless YaRN). Lengths are in tokens.

    Of a head the first `width` coordinates are turned, all where None. `pairs` says
    which two turn together: i and i + width / 2 ("halves"), or 2 i and 2 i + 1
    ("neighbours").
    """

    theta: float = 10_000.0
    kind: RopeKind = "default"
    factor: float = 1.0
    original_length: int = 0
    attention_factor: float = 1.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True
    width: int | None = None
    pairs: RopePairs = "halves"

    def __post_init__(self):
        _check_choice("rope kind", self.kind, get_args(RopeKind))
        _check_choice("rope pairs", self.pairs, get_args(RopePairs))
        if not self.theta > 1 or not self.factor >= 1:
            raise ValueError(
                "rope theta must be above 1 and its factor at least 1, found "
                f"theta {self.theta} and factor {self.factor}"
            )
        if self.kind in ("dynamic", "yarn") and self.original_length < 1:
            raise ValueError(
                f"a {self.kind} rope needs original_length, the tokens the model was "
                f"trained on before scaling; found {self.original_length}"
            )

    def turned(self, head_dim: int) -> int:
        """How many coordinates of a head of `head_dim` are turned."""
        return head_dim if self.width is None else self.width

    def check(self, head_dim: int):
        """Raises a ValueError unless heads of `head_dim` can be turned so."""
        width = self.turned(head_dim)
        if width % 2 or not 0 < width <= head_dim:
            raise ValueError(
                f"rope must turn an even number of coordinates, 2..{head_dim}, found "
                f"{width}; check head_dim and partial_rotary_factor in config.json"
            )
        if self.kind == "dynamic" and width < 4:
            raise ValueError(f"dynamic rope needs head_dim of 4 or more, found {width}")


@dataclass(frozen=True)
class AttentionConfig:
    """Grouped-query attention.

    `qkv_bias` is of queries, keys and values, `output_bias` of what follows attention.
    `window`, where not None, is the number of last positions (its own included)
    that a query sees. `qk_norm` says over what queries and keys are normed: each
    "head", the whole "projection" before it is split into heads, or not (None). `clip`,
    where not None, bounds the magnitude of queries and keys (after the norm) and of
    values. `scale` multiplies products of queries and keys; None is head_dim ** -0.5.
    `sinks`: one learned score a query head that takes part in its softmax and has no
    value. `gate`: each query head has a gate beside it, of the same width, whose
    sigmoid multiplies what the head found.
    """

    num_heads: int
    num_kv_heads: int
    head_dim: int
    rope: RopeConfig = RopeConfig()
    qkv_bias: bool = False
    output_bias: bool = False
    window: int | None = None
    qk_norm: QKNorm | None = "head"
    clip: float | None = None
    scale: float | None = None
    sinks: bool = False
    gate: bool = False

    def __post_init__(self):
        _check_choice("qk_norm", self.qk_norm, (*get_args(QKNorm), None))
        _check_above_zero(clip=self.clip, scale=self.scale)
        _check_positive(
            num_heads=self.num_heads,
            num_kv_heads=self.num_kv_heads,
            head_dim=self.head_dim,
            window=1 if self.window is None else self.window,
        )
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"num_heads must be a multiple of num_kv_heads, found "
                f"{self.num_heads} and {self.num_kv_heads}; check "
                "num_attention_heads and num_key_value_heads in config.json"
            )
        self.rope.check(self.head_dim)


@dataclass(frozen=True)
class DeltaConfig:
    """Gated DeltaNet (arXiv 2412.06464): a state of fixed size in place of a cache.

    Each of `num_key_heads` queries and keys, of width `key_dim`, serves as many
    consecutive value heads, of width `value_dim`, as there are of these to a key head.
    `conv_size` is how many positions, its own included, a channel's convolution sees.
    `joined`: weights that project the input lie together, key head by key head,
    instead of one after the other.
    """

    num_key_heads: int
    num_value_heads: int
    key_dim: int
    value_dim: int
    conv_size: int = 4
    joined: bool = True

    def __post_init__(self):
        _check_positive(
            num_key_heads=self.num_key_heads,
            num_value_heads=self.num_value_heads,
            key_dim=self.key_dim,
            value_dim=self.value_dim,
        )
        if self.conv_size < 2:
            raise ValueError(
                "conv_size must be 2 or more, a position and one before it, found "
                f"{self.conv_size}; check linear_conv_kernel_dim in config.json"
            )
        if self.num_value_heads % self.num_key_heads:
            raise ValueError(
                "num_value_heads must be a multiple of num_key_heads, found "
                f"{self.num_value_heads} and {self.num_key_heads}; check "
                "linear_num_value_heads and linear_num_key_heads in config.json"
            )

    @property
    def values_per_key(self) -> int:
        """Value heads that one key head serves."""
        return self.num_value_heads // self.num_key_heads


@dataclass(frozen=True)
class LatentConfig:
    """Multi-head latent attention (MLA, arXiv 2405.04434, section 2.1).

    Keys and values of all heads are made of one latent a position, of `latent_dim`
    values; so are queries of one of `query_latent_dim`, where not None. A head's query
    and key have `plain_dim` values, and `rope_dim` more that `rope` turns, of which
    the key's are the same in all heads; its value has `value_dim`. `scale` multiplies
    products of queries and keys. `norm` is that of the latents, whatever the layers
    have.
    """

    num_heads: int
    latent_dim: int
    query_latent_dim: int | None
    plain_dim: int
    rope_dim: int
    value_dim: int
    scale: float
    rope: RopeConfig = RopeConfig(pairs="neighbours")
    norm: NormConfig = NormConfig(1e-6)

    def __post_init__(self):
        _check_above_zero(scale=self.scale)
        _check_positive(
            num_heads=self.num_heads,
            latent_dim=self.latent_dim,
            query_latent_dim=1 if (q := self.query_latent_dim) is None else q,
            plain_dim=self.plain_dim,
            rope_dim=self.rope_dim,
            value_dim=self.value_dim,
        )
        self.rope.check(self.rope_dim)

    @property
    def key_dim(self) -> int:
        """Values of a head's query, and of its key."""
        return self.plain_dim + self.rope_dim


MixerConfig = AttentionConfig | LatentConfig | DeltaConfig
"""How positions exchange information."""


def _check_value(name: str, value: object, kind: type):
    """Raises a ValueError unless `value` is an instance of a class of the contract."""
    if not isinstance(value, kind):
        raise ValueError(
            f"{name} must be a value of a class that extends {kind.__module__}."
            f"{kind.__name__}, found {value!r}"
        )


@dataclass(frozen=True)
class DenseConfig:
    """A gated feed-forward of `hidden` units, the same for every token."""

    hidden: int
    activation: Activation = SWIGLU

    def __post_init__(self):
        _check_positive(hidden=self.hidden)
        _check_value("activation", self.activation, Activation)


@dataclass(frozen=True)
class SharedConfig:
    """A dense expert of `hidden` units that every token has beside those it chooses.

    Its activation is that of the other experts. `gate` multiplies its output by the
    sigmoid of one more projection of the input.
    """

    hidden: int
    gate: bool = False

    def __post_init__(self):
        _check_positive(hidden=self.hidden)


@dataclass(frozen=True)
class MoEConfig:
    """A mixture of gated experts behind a router.

    `scoring` ranks experts and weighs the chosen. `bias` is of the router and of both
    products of every expert. `weights` says how those of the experts are held: "float"
    is any float type, or its bits; "inputs_first" is that in another order of the axes
    (`jaxmoe.ops.inputs_first`); "mxfp4" is `jaxmoe.ops.mxfp4`. `shared` is what is
    added to the experts' sum.
    """

    num_experts: int
    experts_per_token: int
    hidden: int
    scoring: Scores
    activation: Activation = SWIGLU
    bias: bool = False
    weights: WeightFormat = "float"
    shared: SharedConfig | None = None

    def __post_init__(self):
        _check_positive(num_experts=self.num_experts, hidden=self.hidden)
        if not 1 <= self.experts_per_token <= self.num_experts:
            raise ValueError(
                f"experts_per_token must lie in 1..{self.num_experts} "
                f"(num_experts), found {self.experts_per_token}"
            )
        _check_value("scoring", self.scoring, Scores)
        if self.scoring.groups is not None:
            self.scoring.groups.check(self.num_experts, self.experts_per_token)
        _check_value("activation", self.activation, Activation)
        _check_choice("weights of experts", self.weights, get_args(WeightFormat))

    @property
    def allowed_experts(self) -> int:
        """The most experts that a token may have: those of the groups it may use."""
        groups = self.scoring.groups
        if groups is None:
            return self.num_experts
        return self.num_experts // groups.count * groups.kept


@dataclass(frozen=True)
class LayerConfig:
    """One layer: a mixer, then a feed-forward, each after its own RMS norm.

    `residual` multiplies what each of the two adds to the residual stream.
    """

    mixer: MixerConfig
    feed_forward: DenseConfig | MoEConfig
    residual: float = 1.0

    def __post_init__(self):
        _check_above_zero(residual=self.residual)


@dataclass(frozen=True)
class Fp8Weights:
    """Weights released as 8-bit floats with a scale a block (`jaxmoe.ops.fp8`).

    block: rows and columns under one scale. names: of those within a layer that are
    held so, such as "mixer.q.weight"; all others are floats.
    """

    block: tuple[int, int]
    names: tuple[str, ...]

    def __post_init__(self):
        _check_positive(rows_of_a_block=self.block[0], columns_of_a_block=self.block[1])

    def __str__(self) -> str:
        return "fp8"


@dataclass(frozen=True)
class GenerationConfig:
    """Sampling defaults that a checkpoint's `generation_config.json` asks for."""

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None


@dataclass(frozen=True)
class ScorerConfig:
    """A head that classifies positions, in the place of one over the vocabulary.

    Two layers with a ReLU between them, from the final norm to `labels` logits; the
    last label stands for a right step. `separator` is the token that follows each step
    of an answer, where the head is read; `instruction` what the chat begins with.
    """

    labels: int
    separator: str
    instruction: str

    def __post_init__(self):
        _check_positive(labels=self.labels)


@dataclass(frozen=True)
class ModelConfig:
    """A decoder-only model: embedding, layers, final norm, output head.

    `norm` is of layers and queries and keys, and before the head. `context_length` is
    the most positions (prompt and answer together) that the model may be asked for;
    `stop_ids` end an answer. `embed_scale` multiplies embeddings, `logits_divisor`
    divides logits. `weights` says how those of products are held: as their
    own format has it ("float"), or quantised (`jaxmoe.ops.int8`): experts, projections,
    and a head of its own, while embedding, routers, norms and biases stay as they are;
    or as they were released (`Fp8Weights`). `scorer`: such a head instead of one over
    the vocabulary; the model then writes no text.
    """

    family: str
    vocab_size: int
    d_model: int
    layers: tuple[LayerConfig, ...]
    norm: NormConfig
    tie_embeddings: bool
    context_length: int
    stop_ids: tuple[int, ...] = ()
    pad_id: int = 0
    generation: GenerationConfig = field(default_factory=GenerationConfig)
    embed_scale: float = 1.0
    logits_divisor: float = 1.0
    weights: ModelWeights | Fp8Weights = "float"
    # Not in the text that tells the runs of models apart, which have none.
    scorer: ScorerConfig | None = field(default=None, repr=False)

    def __post_init__(self):
        _check_above_zero(
            embed_scale=self.embed_scale, logits_divisor=self.logits_divisor
        )
        _check_positive(
            vocab_size=self.vocab_size,
            d_model=self.d_model,
            context_length=self.context_length,
        )
        if not self.layers:
            raise ValueError("a model needs at least one layer, found none")
        shapes = {(m.num_experts, m.experts_per_token) for m in self._moe_configs()}
        if len(shapes) > 1:
            raise ValueError(
                "every mixture layer must have the same number of experts and of "
                f"experts per token, found {sorted(shapes)}"
            )
        if not isinstance(self.weights, Fp8Weights):
            _check_choice("weights", self.weights, get_args(ModelWeights))
        formats = {moe.weights for moe in self._moe_configs()} - {"float"}
        if self.weights != "float" and formats:
            raise ValueError(
                f"weights={self.weights!r} is made of floats, found experts stored as "
                f"{', '.join(sorted(formats))}; load them as they are"
            )

    def _moe_configs(self) -> list[MoEConfig]:
        ffs = (layer.feed_forward for layer in self.layers)
        return [ff for ff in ffs if isinstance(ff, MoEConfig)]

    @property
    def num_layers(self) -> int:
        """All layers, dense ones included."""
        return len(self.layers)

    @property
    def num_experts(self) -> int:
        """Experts per mixture layer; 0 in a model with none."""
        moe = self._moe_configs()
        return moe[0].num_experts if moe else 0

    @property
    def experts_per_token(self) -> int:
        """The model's own k; 0 in a model with no mixture layer."""
        moe = self._moe_configs()
        return moe[0].experts_per_token if moe else 0

    @property
    def allowed_experts(self) -> int:
        """The most experts that a token may have in every mixture layer; 0 without."""
        return min((moe.allowed_experts for moe in self._moe_configs()), default=0)

    @property
    def moe_layers(self) -> tuple[int, ...]:
        """Indices of the layers that have experts."""
        return tuple(
            i
            for i, layer in enumerate(self.layers)
            if isinstance(layer.feed_forward, MoEConfig)
        )
