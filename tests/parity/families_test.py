"""Every family against transformers, on each of its test configurations.

Qwen3-MoE has a file of its own (`model_test.py`).
"""

import jax
import numpy as np
import pytest

import jaxmoe
from jaxmoe import TokenSampler, TopK
from jaxmoe.families.registry import FAMILIES

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

CASES = [
    pytest.param(dict(values), id=f"{name}-{number}")
    for name, family in FAMILIES.items()
    if name != "qwen3_moe"
    for number, values in enumerate(family.test_configs)
]


TOLERANCES = {"qwen3_next": 2e-4}
"""Of logits, over the largest; 1e-4 where no other is stated.

A recurrence adds up what rounding does at each position: in float32 transformers itself
is 3e-5 off from float64 in four layers with decays as strong as training begins with,
7e-6 with the smaller ones of `write_checkpoint`.
"""


def write_checkpoint(directory, values: dict):
    """A checkpoint of transformers with weights that tell tokens apart."""
    torch.manual_seed(0)
    rest = {k: v for k, v in values.items() if k not in ("model_type", "architectures")}
    config = transformers.AutoConfig.for_model(
        values["model_type"], initializer_range=0.3, **rest
    )
    config._attn_implementation = "eager"
    model = transformers.AutoModelForCausalLM.from_config(config).eval().float()
    for name, weight in model.named_parameters():
        if name.endswith("norm.weight"):  # all ones would hide which norm is which
            weight.data += 0.2 * torch.randn_like(weight)
        if name.endswith("A_log"):  # decays of e^-0.02 to e^-0.7 a position
            weight.data.uniform_(0.02, 0.5).log_()
        if name.endswith("dt_bias"):
            weight.data += 0.3 * torch.randn_like(weight)
    model.save_pretrained(directory)
    return model


@pytest.mark.parametrize("values", CASES)
def test_family_computes_what_transformers_computes(tmp_path, values):
    """Promise 1: logits, expert sets, 64 greedy tokens and their log-probabilities."""
    theirs = write_checkpoint(tmp_path / "hf", values)
    ours = jaxmoe.load(tmp_path / "hf")
    vocab, k = ours.config.vocab_size, ours.config.experts_per_token
    prompt = np.random.default_rng(0).integers(8, vocab, 70)
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
    tolerance = TOLERANCES.get(ours.config.family, 1e-4)
    assert np.abs(np.asarray(logits) - reference).max() <= tolerance * scale
    layers = ours.config.moe_layers
    for layer, router in zip(layers, run.router_logits, strict=True):
        best = torch.topk(router, k).indices.numpy()
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
