"""jaxmoe against transformers on checkpoints that transformers wrote."""

import jax
import numpy as np
import pytest

import jaxmoe
from convert import convert
from jaxmoe import TokenSampler, TopK

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

COMMON = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "moe_intermediate_size": 32,
    "num_experts": 32,
    "num_experts_per_tok": 8,
    "norm_topk_prob": True,
    "max_position_embeddings": 512,
    "initializer_range": 0.2,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}
CONFIGS = {
    "released": {},
    "weights not normalised": {"norm_topk_prob": False},
    "every second layer dense": {"decoder_sparse_step": 2, "num_hidden_layers": 4},
    "first layer dense": {"mlp_only_layers": [0]},
    "biases": {"attention_bias": True},
    "tied embeddings": {"tie_word_embeddings": True},
    "one expert": {"num_experts_per_tok": 1},
    "all experts": {"num_experts_per_tok": 32},
    "no shared heads": {"num_key_value_heads": 4, "head_dim": 8},
    "sliding window": {"use_sliding_window": True, "sliding_window": 20},
    "linear rope": {"rope_parameters": {"rope_type": "linear", "factor": 2.0}},
    "dynamic rope": {"rope_parameters": {"rope_type": "dynamic", "factor": 2.0}},
    "yarn": {"rope_parameters": YARN},
    "large eps, small theta": {"rms_norm_eps": 1e-3, "rope_parameters": {}},
}


def equal_experts(state):
    """All experts of a layer compute the same: routing may not matter."""
    for name, tensor in state.items():
        if ".experts." in name:
            tensor[:] = tensor[:1]


def sharp_router(state):
    """Routers sure of themselves.

    Not surer: logits 20 times as large make float32 itself too coarse, transformers'
    own logits are then 1.4e-4 off from those it computes in float64.
    """
    for name, tensor in state.items():
        if name.endswith("mlp.gate.weight"):
            tensor *= 5


def flat_router(state):
    """Routers nearly undecided between all experts."""
    for name, tensor in state.items():
        if name.endswith("mlp.gate.weight"):
            tensor *= 1e-2


def skewed_router(state):
    """Every token wants the same experts."""
    for name, tensor in state.items():
        if name.endswith("mlp.gate.weight"):
            tensor[:] = tensor[:, :1] + 0.05 * tensor


STRUCTURES = [equal_experts, sharp_router, flat_router, skewed_router]


def write_checkpoint(directory, settings, structure=None):
    """A checkpoint of transformers, and the model it was written from."""
    theta = 1e4 if settings.get("rope_parameters") == {} else 1e6
    settings = {**COMMON, **settings}
    rope = {"rope_type": "default", **settings.get("rope_parameters", {})}
    settings["rope_parameters"] = {"rope_theta": theta, **rope}
    torch.manual_seed(0)
    config = transformers.Qwen3MoeConfig(**settings)
    config._attn_implementation = "eager"
    model = transformers.Qwen3MoeForCausalLM(config).eval()
    if structure is not None:
        structure({name: p.data for name, p in model.named_parameters()})
    model.save_pretrained(directory)
    return model


CASES = [(settings, None) for settings in CONFIGS.values()]
CASES += [({}, structure) for structure in STRUCTURES]
NAMES = [*CONFIGS, *(structure.__name__ for structure in STRUCTURES)]


@pytest.mark.parametrize(("settings", "structure"), CASES, ids=NAMES)
def test_model_computes_what_transformers_computes(tmp_path, settings, structure):
    """Promise 1: logits, expert sets, 64 greedy tokens and their log-probabilities."""
    theirs = write_checkpoint(tmp_path / "hf", settings, structure)
    convert(tmp_path / "hf", tmp_path / "ckpt")
    ours = jaxmoe.load(tmp_path / "ckpt")
    prompt = np.random.default_rng(0).integers(0, 300, 70)
    with torch.no_grad():
        answer = theirs.generate(
            torch.tensor(prompt)[None],
            max_new_tokens=64,
            do_sample=False,
            eos_token_id=None,
        )
        run = theirs(answer, output_router_logits=True)
    sequence, reference = answer[0].numpy(), run.logits[0].numpy()

    logits, routes = jaxmoe.forward(ours, sequence, return_routes=True)
    scale = np.abs(reference).max()
    assert np.abs(np.asarray(logits) - reference).max() <= 1e-4 * scale

    chosen = settings.get("num_experts_per_tok", 8)
    with_experts = ours.config.moe_layers
    for layer, router in zip(with_experts, run.router_logits, strict=True):
        best = torch.topk(router, chosen).indices.numpy()
        assert np.array_equal(np.sort(routes[:, layer]), np.sort(best))

    drawn = jaxmoe.sample(
        ours,
        prompt,
        key=jax.random.key(0),
        policy=TopK(),
        sampler=TokenSampler(temperature=0),
        max_new_tokens=64,
        stop_ids=(),
    )
    assert drawn.tokens[0].tolist() == sequence[70:].tolist()
    logprobs = torch.log_softmax(run.logits[0], dim=-1)[69:-1].numpy()
    taken = logprobs[np.arange(64), sequence[70:]]
    np.testing.assert_allclose(drawn.logprobs[0], taken, atol=1e-3)


def test_dynamic_rope_past_its_limit(tmp_path):
    """Past the limit each step stretches the rotation, as transformers' cache does."""
    rope = {"rope_parameters": {"rope_type": "dynamic", "factor": 4.0}}
    settings = {**rope, "max_position_embeddings": 64}
    theirs = write_checkpoint(tmp_path / "hf", settings)
    convert(tmp_path / "hf", tmp_path / "ckpt")
    ours = jaxmoe.load(tmp_path / "ckpt")
    prompt = np.random.default_rng(0).integers(0, 300, 50)
    with torch.no_grad():
        answer = theirs.generate(
            torch.tensor(prompt)[None],
            max_new_tokens=40,
            do_sample=False,
            eos_token_id=None,
        )
    drawn = jaxmoe.sample(
        ours,
        prompt,
        key=jax.random.key(0),
        policy=TopK(),
        sampler=TokenSampler(temperature=0),
        max_new_tokens=40,
        stop_ids=(),
    )
    assert drawn.tokens[0].tolist() == answer[0, 50:].tolist()
