"""The mixture alone against that of transformers, in families that have more parts.

GPT-OSS has biases and a clipped activation, Qwen2-MoE a shared expert behind a gate.
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxmoe.config import MoEConfig, SharedConfig
from jaxmoe.nn.decoder import Decoder, abstract_params
from jaxmoe.ops.activations import ClippedSwiGLU
from jaxmoe.router.scores import SoftmaxScores
from tests.tiny import CONTEXT, EXECUTION, tiny_config

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

D, E, K, F, SHARED = 32, 16, 4, 24, 20
FF = "layers.1.feed_forward."


def _randomised(block):
    torch.manual_seed(0)
    for weight in block.parameters():
        weight.data = torch.randn_like(weight) / weight.shape[-1] ** 0.5
    return block.eval().float()


def gpt_oss():
    """transformers' module, the kind of mixture, and its weights by our names."""
    module = pytest.importorskip("transformers.models.gpt_oss.modeling_gpt_oss")
    values = {"hidden_size": D, "intermediate_size": F, "num_local_experts": E}
    config = transformers.GptOssConfig(
        **values, num_experts_per_tok=K, swiglu_limit=1.0
    )
    config._experts_implementation = "eager"
    block = _randomised(module.GptOssMLP(config))
    w = {name: value.detach().numpy() for name, value in block.named_parameters()}
    both = w["experts.gate_up_proj"].reshape(E, D, F, 2)  # gate and up in turns
    found = {
        "router.weight": w["router.weight"],
        "router.bias": w["router.bias"],
        "gate_up": both.transpose(0, 3, 2, 1),
        "gate_up_bias": w["experts.gate_up_proj_bias"].reshape(E, F, 2).swapaxes(1, 2),
        "down": w["experts.down_proj"].swapaxes(1, 2),
        "down_bias": w["experts.down_proj_bias"],
    }
    activation = ClippedSwiGLU(limit=1.0)
    kind = MoEConfig(E, K, F, SoftmaxScores(normalise=True), activation, bias=True)
    return lambda x: block(x)[0], kind, found


def qwen2_moe():
    """As `gpt_oss`."""
    module = pytest.importorskip("transformers.models.qwen2_moe.modeling_qwen2_moe")
    config = transformers.Qwen2MoeConfig(
        hidden_size=D,
        moe_intermediate_size=F,
        shared_expert_intermediate_size=SHARED,
        num_experts=E,
        num_experts_per_tok=K,
        norm_topk_prob=False,
    )
    config._experts_implementation = "eager"
    block = _randomised(module.Qwen2MoeSparseMoeBlock(config))
    w = {name: value.detach().numpy() for name, value in block.named_parameters()}
    shared = (w[f"shared_expert.{name}_proj.weight"] for name in ("gate", "up"))
    found = {
        "router.weight": w["gate.weight"],
        "gate_up": w["experts.gate_up_proj"].reshape(E, 2, F, D),
        "down": w["experts.down_proj"],
        "shared.gate_up": np.stack(list(shared)),
        "shared.down": w["shared_expert.down_proj.weight"],
        "shared.gate": w["shared_expert_gate.weight"],
    }
    scoring, shared = SoftmaxScores(normalise=False), SharedConfig(SHARED, gate=True)
    return block, MoEConfig(E, K, F, scoring, shared=shared), found


@pytest.mark.parametrize("make", [gpt_oss, qwen2_moe])
def test_the_mixture_computes_what_transformers_computes(make):
    """The formulas that other tests state would be those of no model."""
    block, kind, weights = make()
    dense, mixture = tiny_config().layers
    config = tiny_config(layers=(dense, replace(mixture, feed_forward=kind)))
    names = abstract_params(config)
    assert {n.removeprefix(FF) for n in names if FF in n} == weights.keys()
    params = {n: jnp.zeros(leaf.shape, jnp.float32) for n, leaf in names.items()}
    params |= {FF + name: jnp.asarray(value) for name, value in weights.items()}
    assert all(params[n].shape == leaf.shape for n, leaf in names.items())

    def top_k(_, ranking):
        return lax.top_k(ranking, K)[1].astype(jnp.int32)

    @jax.jit
    def run(params, x):
        layer = Decoder(config, params, EXECUTION).layers()[1]
        return layer.feed_forward(x, 1, top_k, CONTEXT)[0]

    x = np.random.default_rng(0).normal(size=(40, D)).astype(np.float32)
    with torch.no_grad():
        expected = block(torch.tensor(x)[None])[0].numpy()
    found = np.asarray(run(params, jnp.asarray(x)))
    assert abs(found - expected).max() <= 1e-5 * abs(expected).max()
