"""What tests on several devices share: a model that divides, put on a mesh."""

from dataclasses import replace
from typing import Any

import jax
import numpy as np

import jaxmoe
from jaxmoe.config import AttentionConfig, DenseConfig, LayerConfig, MoEConfig
from jaxmoe.model import model_layout
from jaxmoe.nn.decoder import param_specs
from jaxmoe.router.scores import SoftmaxScores
from jaxmoe.sharding.rules import Preset, Rules
from tests.tiny import prompt_of, tiny_config, tiny_params

MESHES = [(8, 1), (1, 8), (2, 4), (4, 2)]
KEY = jax.random.key(3)
SLOTS = 8


def divisible_model() -> jaxmoe.Model:
    """8 query heads, 2 key-value heads, 16 experts: on some meshes heads repeat."""
    mixer = AttentionConfig(8, 2, 16, qkv_bias=True, output_bias=True)
    mixture = LayerConfig(mixer, MoEConfig(16, 4, 24, SoftmaxScores(normalise=True)))
    dense = LayerConfig(mixer, DenseConfig(40))
    layers = (dense, mixture)
    config = tiny_config(layers=layers, vocab_size=96)
    return jaxmoe.Model(config, tiny_params(config))


def on_mesh(
    model: jaxmoe.Model, shape: tuple[int, int], rules: Rules | Preset = "auto"
) -> jaxmoe.Model:
    """`model` spread over devices."""
    mesh = jax.make_mesh(shape, ("data", "model"))
    layout = model_layout(model.config, mesh, rules)
    assert layout is not None
    layers = model.execution.layers
    places = layout.shardings(param_specs(model.config, layout, layers=layers))
    params = {n: jax.device_put(w, places[n]) for n, w in model.params.items()}
    return replace(model, params=params, layout=layout)


def held_bytes(params: dict[str, jax.Array]) -> dict[Any, int]:
    """Bytes of weights on each device, over the shards that lie there."""
    held = dict.fromkeys(jax.devices(), 0)
    for weight in params.values():
        for shard in weight.addressable_shards:
            held[shard.device] += shard.data.nbytes
    return held


MODEL = divisible_model()
PROMPTS = [prompt_of(length, length) % 96 for length in (9, 20, 5)]
OPTIONS = {"max_new_tokens": 12, "slots": SLOTS, "return_routes": True}


def draw(model: jaxmoe.Model, prompt: Any, **options: Any) -> Any:
    """`jaxmoe.sample` with the options that all tests share."""
    merged: dict[str, Any] = {"key": KEY} | OPTIONS | options
    return jaxmoe.sample(model, prompt, **merged)


def check_answers(
    alone: list[jaxmoe.Samples],
    model: jaxmoe.Model,
    prompts: Any = None,
    atol: float = 1e-4,
) -> None:
    """The same tokens and experts as alone, and twice the same bits."""
    prompts = PROMPTS if prompts is None else prompts
    once, again = (draw(model, prompts, n=5) for _ in range(2))
    for one, other, repeated in zip(alone, once, again, strict=True):
        assert same(one, other)
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=atol)
        assert same_bits(other, repeated)


def same(one: jaxmoe.Samples, other: jaxmoe.Samples) -> bool:
    """Equal tokens, routes and endings."""
    return (
        np.array_equal(one.tokens, other.tokens)
        and one.routes is not None
        and other.routes is not None
        and np.array_equal(one.routes, other.routes)
        and one.finish == other.finish
    )


def same_bits(one: jaxmoe.Samples, other: jaxmoe.Samples) -> bool:
    """Equal in every number."""
    return same(one, other) and np.array_equal(one.logprobs, other.logprobs)
