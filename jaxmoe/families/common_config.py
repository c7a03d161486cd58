"""Attributes of config.json that families share, and what they are by default."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from jaxmoe.config import (
    AttentionConfig,
    DenseConfig,
    GenerationConfig,
    LayerConfig,
    MixerConfig,
    ModelConfig,
    MoEConfig,
    NormConfig,
    RopeConfig,
    SharedConfig,
)
from jaxmoe.families.attributes import (
    COUNT,
    EXPERT_COUNT,
    FLAG,
    LAYER_COUNT,
    NAMES,
    POSITIVE,
    REAL,
    TEXT,
    Attributes,
    quote,
)
from jaxmoe.families.generation import read_generation, read_token_ids
from jaxmoe.families.rope import context_length, read_rope
from jaxmoe.families.unread import refuse_unread
from jaxmoe.router.scores import Groups, SigmoidScores

SLIDING, FULL = "sliding_attention", "full_attention"


@dataclass(frozen=True)
class Common:
    """What `read_common` took, as the file has it."""

    vocab_size: int
    d_model: int
    num_layers: int
    max_length: int
    heads: int
    kv_heads: int
    head_dim: int
    rope: RopeConfig
    eps: float
    tied: bool
    stop_ids: tuple[int, ...]
    pad_id: int
    generation: GenerationConfig

    def attention(self, **more: Any) -> AttentionConfig:
        """The mixer with these heads and this rope; `more`: its other fields."""
        return AttentionConfig(
            num_heads=self.heads,
            num_kv_heads=self.kv_heads,
            head_dim=self.head_dim,
            rope=self.rope,
            **more,
        )

    def model(
        self, family: str, layers: Sequence[LayerConfig], **more: Any
    ) -> ModelConfig:
        """The model of these layers; `more`: other fields of its config."""
        return ModelConfig(
            family=family,
            vocab_size=self.vocab_size,
            d_model=self.d_model,
            layers=tuple(layers),
            norm=NormConfig(self.eps),
            tie_embeddings=self.tied,
            context_length=context_length(self.rope, self.max_length),
            stop_ids=self.stop_ids,
            pad_id=self.pad_id,
            generation=self.generation,
            **more,
        )


def read_common(
    a: Attributes,
    g: Attributes,
    *,
    max_length: int,
    eps: float = 1e-6,
    theta: float = 10_000.0,
    partial: float | None = None,
    head_dim: int | None = None,
    kv_heads: int | None = None,
    tied: bool = False,
    eos: int | None = None,
    pad: int | None = None,
) -> Common:
    """Sizes, rope, norms and token ids.

    Args:
      a: config.json.
      g: generation_config.json.
      max_length: the family's own `max_position_embeddings`; likewise those below.
      partial: of `partial_rotary_factor`, in families that read it.
      head_dim: None for hidden_size / num_attention_heads.
      kv_heads: None for as many as there are heads, which is also what null means.
    """
    vocab_size = a.take("vocab_size", POSITIVE)
    d_model = a.take("hidden_size", POSITIVE)
    heads = a.take("num_attention_heads", POSITIVE)
    width = head_dim or d_model // heads
    width = a.take("head_dim", POSITIVE, width, width)
    max_length = a.take("max_position_embeddings", POSITIVE, max_length)
    part = {} if partial is None else {"head_dim": width, "partial": partial}
    stop_ids, pad_id = read_token_ids(a, g, vocab_size, eos=eos, pad=pad)
    return Common(
        vocab_size=vocab_size,
        d_model=d_model,
        num_layers=a.take("num_hidden_layers", LAYER_COUNT),
        max_length=max_length,
        heads=heads,
        kv_heads=a.take("num_key_value_heads", POSITIVE, kv_heads or heads, heads),
        head_dim=width,
        rope=read_rope(a, max_length, theta=theta, **part),
        eps=a.take("rms_norm_eps", REAL, eps),
        tied=a.take("tie_word_embeddings", FLAG, tied),
        stop_ids=stop_ids,
        pad_id=pad_id,
        generation=read_generation(g),
    )


def check_rest(
    a: Attributes,
    family: str,
    architecture: str,
    *,
    ignored: Mapping[str, str] | None = None,
    neutral: Mapping[str, Any] | None = None,
):
    """Attributes that say what the code does anyway; then all that is wrong, raised.

    Args:
      a: what is left of config.json.
      family, architecture: names, for the error.
      ignored, neutral: the family's own additions, as in `refuse_unread`.
    """
    if (act := a.take("hidden_act", TEXT, "silu")) != "silu":
        a.wrong("hidden_act", act, '"silu"')
    names = a.take("architectures", NAMES, [architecture], [architecture])
    if architecture not in names:
        a.wrong("architectures", names, quote([architecture]))
    refuse_unread(a, ignored, neutral)
    a.report.raise_if_any(family)


def require(a: Attributes, **values: Any):
    """Notes attributes that are there with another value than the one implemented."""
    for name, wanted in values.items():
        if name in a.left and (found := a.left.pop(name)) != wanted:
            a.wrong(name, found, quote(wanted))


def read_groups(a: Attributes, best: int) -> Groups | None:
    """`n_group` and `topk_group`; None where a token may have any expert."""
    count = a.take("n_group", POSITIVE, 1, 1)
    kept = a.take("topk_group", POSITIVE, 1, 1)
    if kept > count:
        a.wrong("topk_group", kept, f"at most n_group = {count}")
        return None
    return Groups(count, kept, best) if kept < count else None


def read_windows(
    a: Attributes, num_layers: int, window: int | None, sliding: Sequence[bool]
) -> list[int | None]:
    """The window of each layer, by `layer_types`.

    Args:
      window: of those that have one.
      sliding: which layers have one where the file has no `layer_types`.
    """
    default = [SLIDING if each else FULL for each in sliding]
    kinds = a.take("layer_types", NAMES, default, default)
    if len(kinds) != num_layers or not {SLIDING, FULL}.issuperset(kinds):
        wanted = f'"{FULL}" or "{SLIDING}" for each of {num_layers} layers'
        a.wrong("layer_types", kinds, wanted)
        return [None] * num_layers
    if SLIDING in kinds and not window:
        a.wrong("sliding_window", window, f'a positive integer, as "{SLIDING}" asks')
    return [window if kind == SLIDING else None for kind in kinds]


def dense_first(a: Attributes, num_layers: int, default: int) -> tuple[int, int]:
    """`first_k_dense_replace`, and the width of those layers (0 if unstated)."""
    first = a.take("first_k_dense_replace", COUNT, default, default)
    # Released configs state the width even where no layer has it.
    missing = {} if first else {"default": 0, "null": 0}
    return min(first, num_layers), a.take("intermediate_size", POSITIVE, **missing)


def read_routed(
    a: Attributes, *, normalise: bool, shared: int = 0
) -> Callable[[], MoEConfig]:
    """A mixture as DeepSeek-V3's (arXiv 2412.19437), built once the file is known.

    Experts are scored by sigmoids with a bias of choice, perhaps in groups; weights are
    float32; shared experts are one as wide as they are together.

    Args:
      normalise: the family's own `norm_topk_prob`.
      shared: likewise, `n_shared_experts`.
    """
    hidden = a.take("moe_intermediate_size", POSITIVE)
    shared = a.take("n_shared_experts", COUNT, shared, 0)
    normalise = a.take("norm_topk_prob", FLAG, normalise, normalise)
    scale = a.take("routed_scaling_factor", REAL, 1.0)
    groups = read_groups(a, best=2)
    experts = a.take("n_routed_experts", EXPERT_COUNT)
    chosen = a.take("num_experts_per_tok", POSITIVE)

    def make() -> MoEConfig:
        scoring = SigmoidScores(
            normalise,
            weight_type="float32",
            scale=scale,
            choice_bias=True,
            groups=groups,
        )
        beside = SharedConfig(shared * hidden) if shared else None
        return MoEConfig(experts, chosen, hidden, scoring, shared=beside)

    return make


def stacked(
    mixers: Sequence[MixerConfig], first: int, dense: int, moe: MoEConfig | None
) -> list[LayerConfig]:
    """Layers of these mixers, the first few dense (`dense` units), the others `moe`."""
    layers = []
    for i, mixer in enumerate(mixers):
        dense_here = i < first or moe is None
        ff = DenseConfig(dense) if dense_here else moe
        assert ff is not None
        layers.append(LayerConfig(mixer, ff))
    return layers
