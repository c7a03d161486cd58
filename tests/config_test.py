"""The config dataclasses: what they derive, and what they refuse."""

from dataclasses import replace
from typing import Any

import pytest

from jaxmoe.config import (
    AttentionConfig,
    DenseConfig,
    LayerConfig,
    ModelConfig,
    MoEConfig,
    NormConfig,
    RopeConfig,
    SharedConfig,
)
from jaxmoe.families.qwen3_moe import QWEN3_30B_A3B, QWEN3_235B_A22B
from jaxmoe.ops.activations import ClippedSwiGLU
from jaxmoe.router.scores import SoftmaxScores

ATTENTION = AttentionConfig(num_heads=4, num_kv_heads=2, head_dim=8)
MOE = MoEConfig(6, 2, hidden=12, scoring=SoftmaxScores(normalise=True))
DENSE = DenseConfig(hidden=16)
UNTYPED: Any = "odd"


def _model(*feed_forwards, **more):
    layers = tuple(LayerConfig(ATTENTION, ff) for ff in feed_forwards)
    fields: dict[str, Any] = {"family": "x", "vocab_size": 32, "d_model": 8}
    fields |= {"tie_embeddings": False, "norm": NormConfig(), "context_length": 64}
    return ModelConfig(layers=layers, **fields | more)


def test_derived_numbers():
    """Routes are recorded per mixture layer: their indices must be right."""
    config = _model(DENSE, MOE, MOE, DENSE)
    assert config.num_layers == 4
    assert config.moe_layers == (1, 2)
    assert (config.num_experts, config.experts_per_token) == (6, 2)


def test_a_model_without_mixture_layers():
    """All layers dense is a legal config with no experts."""
    config = _model(DENSE)
    assert config.moe_layers == ()
    assert (config.num_experts, config.experts_per_token) == (0, 0)


def test_configs_are_hashable_and_compare_by_value():
    """They are static arguments of jitted functions: else every call recompiles."""
    assert hash(_model(MOE)) == hash(_model(MOE))
    assert _model(MOE) == _model(MOE)
    others = {
        "scoring": SoftmaxScores(normalise=False),
        "activation": ClippedSwiGLU(),
        "bias": True,
        "shared": SharedConfig(8),
    }
    for name, value in others.items():
        assert _model(MOE) != _model(replace(MOE, **{name: value})), name


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: replace(ATTENTION, num_kv_heads=3), "multiple of num_kv_heads.*4 and"),
        (lambda: replace(ATTENTION, head_dim=7), "even number.*found 7"),
        (lambda: replace(ATTENTION, qk_norm=UNTYPED), "head, projection, None.*'odd'"),
        (lambda: replace(ATTENTION, clip=0.0), "clip must be above 0, found 0"),
        (lambda: replace(ATTENTION, scale=-1.0), "scale must be above 0, found -1"),
        (
            lambda: replace(ATTENTION, rope=RopeConfig(width=10)),
            "even number.*8, found 10",
        ),
        (lambda: replace(ATTENTION, rope=RopeConfig(width=3)), "even.*found 3"),
        (lambda: RopeConfig(pairs=UNTYPED), "halves, neighbours, found 'odd'"),
        (lambda: NormConfig(eps=0.0), "eps of a norm must be above 0, found 0"),
        (lambda: NormConfig(cast=UNTYPED), "first, last, found 'odd'"),
        (lambda: NormConfig(offset=1.0), "casts last, found cast 'first'"),
        (lambda: LayerConfig(ATTENTION, DENSE, residual=0.0), "residual must be above"),
        (lambda: _model(MOE, logits_divisor=0.0), "logits_divisor must be above 0"),
        (lambda: replace(ATTENTION, num_heads=0), "positive integers.*num_heads = 0"),
        (lambda: replace(ATTENTION, window=0), "positive integers.*window = 0"),
        (
            lambda: AttentionConfig(
                4, 2, 2, RopeConfig(kind="dynamic", original_length=8)
            ),
            "dynamic rope needs head_dim of 4",
        ),
        (lambda: DenseConfig(hidden=0), "hidden = 0"),
        (lambda: replace(MOE, experts_per_token=7), r"1\.\.6.*found 7"),
        (lambda: replace(MOE, experts_per_token=0), r"1\.\.6.*found 0"),
        (lambda: replace(MOE, hidden=-1), "hidden = -1"),
        (lambda: SharedConfig(hidden=0), "hidden = 0"),
        (lambda: replace(MOE, scoring=UNTYPED), "scoring.*scores.Scores, found 'odd'"),
        (lambda: replace(MOE, activation=UNTYPED), "activation.*Activation, found 'od"),
        (lambda: DenseConfig(8, UNTYPED), "activation.*Activation, found 'odd'"),
        (lambda: replace(MOE, weights=UNTYPED), "weights.*mxfp4, found 'odd'"),
        (lambda: SoftmaxScores(True, weight_type=UNTYPED), "activations, float32.*'od"),
        (lambda: ClippedSwiGLU(limit=0.0), "above 0.*alpha 1.702 and limit 0.0"),
        (lambda: ClippedSwiGLU(alpha=-1.0), "above 0.*alpha -1.0 and limit 7.0"),
        (lambda: RopeConfig(theta=1.0), "theta must be above 1"),
        (lambda: RopeConfig(theta=float("nan")), "theta must be above 1"),
        (lambda: RopeConfig(kind="linear", factor=0.5), "factor at least 1"),
        (lambda: RopeConfig(kind="dynamic"), "needs original_length"),
        (lambda: RopeConfig(kind="yarn", factor=2.0), "needs original_length"),
        (_model, "at least one layer"),
        (lambda: _model(MOE, vocab_size=0), "vocab_size = 0"),
        (lambda: _model(MOE, context_length=0), "context_length = 0"),
        (lambda: _model(MOE, replace(MOE, num_experts=8)), "same number of experts"),
    ],
)
def test_refusals(build, message, untyped):
    """Each impossible shape fails where it is written, naming what was found."""
    with pytest.raises(ValueError, match=message):
        build()


@pytest.mark.parametrize(
    ("config", "total", "active"),
    [(QWEN3_30B_A3B, 30.5e9, 3.3e9), (QWEN3_235B_A22B, 235e9, 22e9)],
)
def test_presets_have_the_parameters_their_names_promise(config, total, active):
    """A wrong shape in a preset shows in its parameter count."""
    layer = config.layers[0]
    mixer, moe = layer.mixer, layer.feed_forward
    heads = 2 * mixer.num_heads + 2 * mixer.num_kv_heads
    attention = config.d_model * heads * mixer.head_dim
    expert = 3 * config.d_model * moe.hidden
    shared = config.num_layers * attention + 2 * config.vocab_size * config.d_model
    assert shared + config.num_layers * moe.num_experts * expert == pytest.approx(
        total, rel=0.01
    )
    assert shared + config.num_layers * moe.experts_per_token * expert == pytest.approx(
        active, rel=0.03
    )
