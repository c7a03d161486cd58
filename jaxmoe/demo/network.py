"""The demo model's shapes, its first weights, and a pass that has gradients.

The modules are those that inference runs (`jaxmoe.nn`); only the attention over whole
short sequences and the experts' implementation are chosen for training.
"""

import math
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmoe.config import ModelConfig
from jaxmoe.decode.prefill import chooser
from jaxmoe.execution import execution_for
from jaxmoe.families.config_json import from_hf
from jaxmoe.nn.base import Context, Sequences
from jaxmoe.nn.decoder import abstract_params, bind, whole_sequences
from jaxmoe.ops.experts import Implementation
from jaxmoe.router.policies import Policy, TopK, for_model
from jaxmoe.sharding.collectives import DeviceContext
from jaxmoe.typing import Array, Float, Int, Integer, Params

HF_CONFIG: dict[str, Any] = {
    "architectures": ["Qwen3MoeForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": None,
    "decoder_sparse_step": 1,
    "dtype": "bfloat16",
    "head_dim": 32,
    "hidden_act": "silu",
    "hidden_size": 128,
    "initializer_range": 0.02,
    "intermediate_size": 384,
    "max_position_embeddings": 512,
    "max_window_layers": 4,
    "mlp_only_layers": [],
    "model_type": "qwen3_moe",
    "moe_intermediate_size": 48,
    "norm_topk_prob": True,
    "num_attention_heads": 4,
    "num_experts": 64,
    "num_experts_per_tok": 8,
    "num_hidden_layers": 4,
    "num_key_value_heads": 2,
    "output_router_logits": False,
    "rms_norm_eps": 1e-6,
    "rope_scaling": None,
    "rope_theta": 10000.0,
    "router_aux_loss_coef": 0.00125,
    "sliding_window": None,
    "tie_word_embeddings": False,
    "use_cache": True,
    "use_sliding_window": False,
}
"""The model's config.json, but for what the tokenizer says."""


def first_params(config: ModelConfig, seed: int) -> Params:
    """float32 weights to begin training from.

    Normal with deviation 1 / sqrt(inputs), halved in the router and the head, and
    divided by sqrt(2 L) where a layer adds to the residual stream.
    """
    random = np.random.default_rng(seed)
    params = {}
    for name, leaf in abstract_params(config).items():
        if name.endswith("scale"):
            params[name] = jnp.ones(leaf.shape, jnp.float32)
            continue
        inputs = math.prod(leaf.shape[1:]) if name.endswith(".o.weight") else None
        scale = 1 / math.sqrt(inputs or leaf.shape[-1])
        if name.endswith((".o.weight", ".down")):
            scale /= math.sqrt(2 * config.num_layers)
        elif name.endswith("router.weight") or name == "head.weight":
            scale /= 2
        elif name == "embed.weight":
            scale = 1.0
        values = scale * random.standard_normal(leaf.shape)
        params[name] = jnp.asarray(values, jnp.float32)
    return params


def demo_config(attributes: dict[str, Any]) -> ModelConfig:
    """The config of `HF_CONFIG` with some attributes added or changed."""
    return from_hf(HF_CONFIG | attributes)


def logits_of(
    config: ModelConfig,
    params: Params,
    tokens: Int[Array, "B T"],
    implementation: Implementation,
    *,
    policy: Policy = TopK(),  # noqa: B008  frozen
    keys: Integer[Array, "B 2"] | None = None,
    noise_from: int = 0,
) -> tuple[Float[Array, "B T V"], Float[Array, "L BT E"], Int[Array, "L BT K"]]:
    """One pass over whole sequences of equal length.

    Experts are chosen as where answers are drawn. Gradients reach the router by what
    the chosen experts weigh; the choice itself has none.

    Args:
      keys: data of the samples' keys k_i, for a noisy policy.
      noise_from: positions before it are routed without noise.

    Returns:
      logits of the next token; router logits and chosen experts of every layer.
    """
    count, length = tokens.shape
    # Of the default device: under a jit weights have none of their own.
    execution = execution_for(params, implementation=implementation)
    execution = replace(execution, attention="dense")
    context = Context(execution, DeviceContext(execution.layout))
    positions = jnp.tile(jnp.arange(length, dtype=jnp.int32), count)
    valid = jnp.ones(positions.shape, bool)
    sequences = Sequences(positions, positions + 1, valid, count, keep=False)
    decoder = bind(config, params, context)
    policy = for_model(policy, config)
    data = None
    if policy.noisy and keys is not None:
        data = jnp.repeat(keys, length, axis=0)
    whole = jnp.full_like(positions, length)
    by_noise = chooser(
        policy, data, positions, whole, noise_from, None, config.num_layers
    )

    def choose(layer: Array | int, ranking: Array) -> Array:
        return by_noise(layer, jax.lax.stop_gradient(ranking))

    passed = decoder.run(
        tokens.reshape(-1),
        whole_sequences(sequences, context),
        choose,
        context,
        width=policy.width,
        keep_rankings=True,
    )
    assert passed.rankings is not None
    logits = decoder.logits(passed.hidden, context).reshape(count, length, -1)
    return logits, passed.rankings, jnp.moveaxis(passed.routes, 1, 0)
