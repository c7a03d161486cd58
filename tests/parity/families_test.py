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
    for name, buffer in model.named_buffers():
        if name.endswith("e_score_correction_bias"):  # zero in a new model
            buffer += 0.3 * torch.randn_like(buffer)
    model.save_pretrained(directory)
    return model


def experts_of(model, run) -> list[np.ndarray]:
    """What the router of each mixture chooses in `run()`, [N, K], sorted."""
    found = []
    routers = [m for m in model.modules() if type(m).__name__.endswith("Router")]
    hooks = [
        router.register_forward_hook(lambda _, __, out: found.append(out[2].numpy()))
        for router in routers
    ]
    run()
    for hook in hooks:
        hook.remove()
    assert found and len(found) == len(routers)
    return [np.sort(experts) for experts in found]


@pytest.mark.parametrize("values", CASES)
def test_family_computes_what_transformers_computes(tmp_path, values):
    """Promise 1: logits, expert sets, 64 greedy tokens and their log-probabilities."""
    theirs = write_checkpoint(tmp_path / "hf", values)
    ours = jaxmoe.load(tmp_path / "hf")
    prompt = np.random.default_rng(0).integers(8, ours.config.vocab_size, 70)
    with torch.no_grad():
        answer = theirs.generate(
            torch.tensor(prompt)[None],
            max_new_tokens=64,
            do_sample=False,
            eos_token_id=None,
        )
        chosen = experts_of(theirs, lambda: theirs(answer))
        run = theirs(answer)
    sequence, reference = answer[0].numpy(), run.logits[0].numpy()

    logits, routes = jaxmoe.forward(ours, sequence, return_routes=True)
    scale = np.abs(reference).max()
    assert np.abs(np.asarray(logits) - reference).max() <= 1e-4 * scale
    for layer, experts in zip(ours.config.moe_layers, chosen, strict=True):
        assert np.array_equal(np.sort(routes[:, layer]), experts)

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
