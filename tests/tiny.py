"""Small random models, large enough to have everything in them."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

import jaxmoe
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
from jaxmoe.execution import execution_on
from jaxmoe.nn.base import Context
from jaxmoe.nn.decoder import abstract_params
from jaxmoe.ops import fp8
from jaxmoe.ops.activations import ClippedSwiGLU
from jaxmoe.ops.bf16_bits import hold_for
from jaxmoe.ops.packed import SCALES
from jaxmoe.router.scores import Groups, SigmoidScores, SoftmaxScores
from jaxmoe.sharding.collectives import DeviceContext
from jaxmoe.sharding.layout import single_device_layout

EXECUTION = execution_on("cpu", single_device_layout(jax.devices()[0]))
CONTEXT = Context(EXECUTION, DeviceContext(EXECUTION.layout))
"""One CPU, every layer written out."""

EXPERTS, CHOSEN, VOCAB, STOP = 16, 4, 97, 7

SHAPES = {
    "slots": 8,
    "sampler": jaxmoe.TokenSampler(0.9, top_k=30),
    "max_new_tokens": 40,
    "return_routes": True,
}
"""Options of `sample` where they do not matter: what decides which programs are
compiled is alike in all files, so that most find theirs compiled. Prompts and answers
of up to 128 tokens share them too, and prompts of 17 to 32 tokens their own pass."""


def tiny_config(
    *, window: int | None = None, rope: RopeConfig | None = None, **changes
) -> ModelConfig:
    """A dense layer, then a mixture; some attributes changed."""
    mixer = AttentionConfig(4, 2, 16, rope or RopeConfig(), window=window)
    mixture = MoEConfig(EXPERTS, CHOSEN, 24, SoftmaxScores(normalise=True))
    moe = LayerConfig(mixer, mixture)
    dense = LayerConfig(mixer, DenseConfig(40))
    config = ModelConfig(
        family="qwen3_moe",
        vocab_size=VOCAB,
        d_model=32,
        layers=(dense, moe),
        norm=NormConfig(),
        tie_embeddings=False,
        context_length=4096,
        stop_ids=(STOP,),
    )
    return replace(config, **changes)


def every_part(config: ModelConfig) -> ModelConfig:
    """`config` whose layers have all that they can have, weights in float32."""

    def filled(layer: LayerConfig) -> LayerConfig:
        rope = replace(layer.mixer.rope, width=4, pairs="neighbours")
        mixer = replace(
            layer.mixer,
            rope=rope,
            qkv_bias=True,
            output_bias=True,
            scale=0.4,
            window=5,
            sinks=True,
            gate=True,
        )
        layer, ff = replace(layer, mixer=mixer, residual=0.7), layer.feed_forward
        if isinstance(ff, DenseConfig):
            return layer
        ff = replace(
            ff,
            scoring=SigmoidScores(
                False,
                weight_type="float32",
                scale=1.5,
                choice_bias=True,
                groups=Groups(4, 2, 2),
            ),
            activation=ClippedSwiGLU(limit=1.0),  # 7 would never bind here
            bias=True,
            shared=SharedConfig(40, gate=True),
        )
        return replace(layer, feed_forward=ff)

    return replace(
        config,
        layers=tuple(filled(layer) for layer in config.layers),
        norm=NormConfig(cast="last", offset=1.0),
        embed_scale=1.5,
        logits_divisor=1.2,
    )


def tiny_params(config: ModelConfig, seed: int = 0) -> dict[str, jax.Array]:
    """float32 weights that make sharp routers and varied tokens; packed ones alike."""
    random = np.random.default_rng(seed)
    params = {}
    for name, leaf in abstract_params(config).items():
        values = 0.2 * random.normal(size=leaf.shape)
        if leaf.dtype == jnp.uint8:  # MXFP4
            low, high = (122, 125) if name.endswith(SCALES) else (0, 256)
            params[name] = jnp.asarray(random.integers(low, high, leaf.shape, np.uint8))
            continue
        if leaf.dtype == fp8.DTYPE:
            params[name] = jnp.asarray(values * 20, leaf.dtype)
            continue
        if name.endswith(SCALES):
            values = 0.05 + abs(values) / 4
        if name.endswith("scale"):
            values = 1 + values
        if name.startswith("head"):
            values *= 4
        params[name] = jnp.asarray(values, jnp.float32)
    return params


def tiny_model(seed: int = 0, **changes) -> jaxmoe.Model:
    """A model without a tokenizer."""
    config = tiny_config(**changes)
    return jaxmoe.Model(config, tiny_params(config, seed))


def as_bits(model: jaxmoe.Model) -> tuple[jaxmoe.Model, jaxmoe.Model]:
    """`model` rounded to bfloat16: held as bits, and held as float32."""
    rounded = {k: v.astype(jnp.bfloat16) for k, v in model.params.items()}
    bits = {k: hold_for("cpu", v) for k, v in rounded.items()}
    wide = {k: v.astype(jnp.float32) for k, v in rounded.items()}
    return replace(model, params=bits), replace(model, params=wide)


def answers(samples: jaxmoe.Samples) -> list[list[int]]:
    """The tokens of each answer, padding left out."""
    pairs = zip(samples.tokens, samples.lengths, strict=True)
    return [row[:length].tolist() for row, length in pairs]


def prompt_of(length: int, seed: int = 0) -> np.ndarray:
    """A random prompt that holds no stop token."""
    return np.random.default_rng(seed).integers(STOP + 1, VOCAB, length)
