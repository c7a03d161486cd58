"""What weights of int8 change: next tokens, beside those of the weights as they were.

KL divergence from the model as it is to the quantised one, position by position, and
how often both would say the same token. Of the demo, over its own greedy answers; and
of one layer of the released 30B shapes with random weights, over random tokens.
"""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import jax
import numpy as np

from jaxmoe import demo
from jaxmoe.benchmarks.presets import PRESETS
from jaxmoe.benchmarks.report import Row
from jaxmoe.benchmarks.targets import Place
from jaxmoe.benchmarks.weights import random_params
from jaxmoe.decode.sampler import TokenSampler
from jaxmoe.families.config_json import from_hf
from jaxmoe.model import Model, load
from jaxmoe.nn.decoder import quantise_params
from jaxmoe.router.policies import TopK
from jaxmoe.sampling import Samples, forward, sample

LAYER: dict[str, Any] = {"num_hidden_layers": 1, "vocab_size": 32000}
"""Of the 30B shapes: what makes them fit into small memory."""

TOKENS = 512
"""Random ones, for the layer of random weights."""

PROBLEMS = 64
"""Of the demo."""


def measure(place: Place) -> Iterator[Row]:
    """Rows of both models."""
    model = load("demo")
    other = load("demo", weights="int8")
    prompts = [problem.prompt for problem in demo.problems()[:PROBLEMS]]
    answers, others = (_greedy(m, prompts) for m in (model, other))
    sequences = [
        (np.concatenate([model.encode(prompt), answer]), len(answer))
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    yield from _rows(place, "demo, its greedy answers", model, other, sequences)
    same = sum(map(np.array_equal, answers, others)) / len(answers)
    yield place.row("quantise", "demo: greedy answers unchanged", 100 * same, "%")
    del model, other
    config = from_hf(PRESETS["30b"].attributes | LAYER)
    model = Model(config, random_params(config, place.backend))
    config, params = quantise_params(config, model.params)
    other = replace(model, config=config, params=params)
    tokens = np.random.default_rng(0).integers(0, config.vocab_size, TOKENS)
    what = "one layer of 30b, random"
    yield from _rows(place, what, model, other, [(tokens, TOKENS)])


def _greedy(model: Model, prompts: list[str]) -> list[np.ndarray]:
    """Token ids of the one answer to each prompt."""
    options: Any = {"n": 1, "policy": TopK(), "sampler": TokenSampler(0.0)}
    options |= {"key": jax.random.key(0), "max_new_tokens": 64, "slots": 32}
    found = [f for f in sample(model, prompts, **options) if isinstance(f, Samples)]
    return [np.asarray(f.tokens[0][: f.lengths[0]]) for f in found]


def _rows(
    place: Place,
    what: str,
    model: Model,
    other: Model,
    sequences: list[tuple[np.ndarray, int]],
) -> Iterator[Row]:
    """sequences: tokens, and after how many of the last ones a token is compared."""
    divergence, agree, experts = [], [], []
    for tokens, count in sequences:
        passes = [
            forward(m, tokens, policy=TopK(), return_routes=True)
            for m in (model, other)
        ]
        logits = [np.asarray(found[0])[-count - 1 : -1] for found in passes]
        divergence.append(_divergence(*logits))
        agree.append(logits[0].argmax(axis=1) == logits[1].argmax(axis=1))
        layers = list(model.config.moe_layers)
        one, two = (np.sort(np.asarray(found[1])[:, layers]) for found in passes)
        experts.append((one == two).all(axis=2).ravel())
    nats = np.concatenate(divergence)
    yield place.row(
        "quantise",
        f"{what}: KL from the model to its int8 form",
        float(nats.mean()),
        "nats",
        most=float(nats.max()),
        positions=len(nats),
    )
    yield place.row(
        "quantise",
        f"{what}: same most likely token",
        100 * float(np.concatenate(agree).mean()),
        "%",
        same_experts=f"{100 * np.concatenate(experts).mean():.1f} %",
    )


def _divergence(logits: np.ndarray, other: np.ndarray) -> np.ndarray:
    """KL of each row, nats."""
    p, q = (_log_softmax(a.astype(np.float64)) for a in (logits, other))
    return (np.exp(p) * (p - q)).sum(axis=1)


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
