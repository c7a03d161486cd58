"""jaxmoe computes what transformers computed (`tests/golden/make.py`).

From the checkpoint as transformers wrote it, through `python -m convert`.
"""

from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest

import jaxmoe
from convert import convert
from jaxmoe import TokenSampler, TopK

GOLDENS = Path(__file__).resolve().parent / "golden"


@pytest.fixture(scope="module", params=["plain", "unusual"])
def golden(request, tmp_path_factory):
    """A converted golden: its model and what is expected of it."""
    source = GOLDENS / request.param
    out = tmp_path_factory.mktemp("golden") / "ckpt"
    convert(source, out)
    with np.load(source / "expected.npz") as file:
        arrays = dict(file)
    return SimpleNamespace(model=jaxmoe.load(out), **arrays)


@pytest.mark.parametrize("implementation", ["blocks", "ragged"])
def test_logits_and_experts(golden, implementation):
    """Some part of the network would compute something else than transformers."""
    logits, routes = jaxmoe.forward(
        golden.model,
        golden.sequence,
        return_routes=True,
        implementation=implementation,
    )
    scale = np.abs(golden.logits).max()
    assert np.abs(np.asarray(logits) - golden.logits).max() <= 1e-4 * scale
    with_experts = list(golden.model.config.moe_layers)
    assert np.array_equal(np.sort(routes[:, with_experts]), golden.routes)


def test_greedy_tokens_and_log_probabilities(golden):
    """Decoding step by step would leave transformers' path."""
    prompt = golden.sequence[: golden.prompt_length]
    answer = golden.sequence[golden.prompt_length :]
    drawn = jaxmoe.sample(
        golden.model,
        prompt,
        key=jax.random.key(0),
        policy=TopK(),
        sampler=TokenSampler(temperature=0),
        max_new_tokens=len(answer),
        stop_ids=(),
    )
    assert drawn.tokens[0].tolist() == answer.tolist()
    np.testing.assert_allclose(drawn.logprobs[0], golden.logprobs, atol=1e-3)
