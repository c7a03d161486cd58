"""Kernels: whether what runs here computes what the reference does, at real widths."""

from collections.abc import Iterator
from functools import partial
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np

import jaxmoe
from jaxmoe import TokenSampler, TopK
from jaxmoe.benchmarks import targets
from jaxmoe.benchmarks.report import Row
from jaxmoe.benchmarks.subject import Subject
from jaxmoe.benchmarks.targets import Place
from jaxmoe.config import ModelConfig, MoEConfig
from jaxmoe.execution import lanes_found
from jaxmoe.ops.bf16_bits import hold_for
from jaxmoe.ops.experts import apply_experts, runs_kernels
from jaxmoe.typing import Array

ROWS = 8
TOKENS = 8
"""Of answers that are drawn and computed once more in one pass."""


def measure(place: Place, config: ModelConfig) -> Iterator[Row]:
    """Rows: error of each kernel for experts, and of decoding against one pass."""
    moe = next(
        layer.feed_forward
        for layer in config.layers
        if isinstance(layer.feed_forward, MoEConfig)
    )
    for kernel in kernels_of(place.backend, moe.hidden):
        yield from _experts(place, moe, config.d_model, kernel)
    yield _decoding(place)


def kernels_of(backend: str, hidden: int) -> list[str]:
    """Implementations of experts that a machine of this kind would run."""
    if backend == "cpu":
        found = ["blocks", *(["lanes"] if lanes_found().width > 1 else [])]
        # Interpreted, which takes minutes for large matrices.
        return [*found, *(["pallas"] if hidden <= 64 else [])]
    pallas = ["pallas"] if runs_kernels(jax.devices()[0]) else []
    return ["ragged", "batched", *pallas]


def _experts(place: Place, moe: MoEConfig, model: int, kernel: str) -> Iterator[Row]:
    """Against the reference in float32, and a row among others against itself."""
    backend, arguments = place.backend, _arguments(place.backend, moe, model)
    x, chosen, weights, gate_up, down = arguments
    run = jax.jit(
        partial(apply_experts, activation=moe.activation),
        static_argnames="implementation",
    )
    found = run(*arguments, implementation=kernel)
    expected = run(
        x.astype(jnp.float32),
        chosen,
        weights,
        gate_up,
        down,
        implementation="reference",
    )
    error = jnp.abs(found - expected).max() / jnp.abs(expected).max()
    what = targets.kernel_error(kernel)
    yield place.row("kernels", what, float(error), "of the largest", rows=ROWS)
    # The last row where it was, and all others replaced: by skewed ones, one NaN.
    others = jnp.roll(x, 1, axis=0).at[0].set(jnp.nan).at[-1].set(x[-1])
    skewed = jnp.broadcast_to(chosen[:1], chosen.shape).at[-1].set(chosen[-1])
    moved = run(others, skewed, weights, gate_up, down, implementation=kernel)
    changed = int((moved[-1] != found[-1]).sum())
    what = targets.kernel_variance(kernel)
    yield place.row("kernels", what, changed, "values", of=model, on=backend)


def _arguments(backend: str, moe: MoEConfig, model: int) -> tuple[Array, ...]:
    """Rows, chosen experts, weights, and random matrices as they are held here."""
    keys = iter(np.random.default_rng(0).integers(0, 1 << 31, 8).tolist())
    normal = lambda *shape: jax.random.normal(jax.random.key(next(keys)), shape)  # noqa: E731
    experts, k, hidden = moe.num_experts, moe.experts_per_token, moe.hidden
    gate_up = normal(experts, 2, hidden, model) / np.sqrt(model)
    down = normal(experts, model, hidden) / np.sqrt(hidden)
    held = [hold_for(backend, a.astype(jnp.bfloat16)) for a in (gate_up, down)]
    dtype = jnp.float32 if backend == "cpu" else jnp.bfloat16
    chosen = jnp.argsort(normal(ROWS, experts), axis=1)[:, :k].astype(jnp.int32)
    weights = jnp.full((ROWS, k), 1 / k, jnp.float32)
    return normal(ROWS, model).astype(dtype), chosen, weights, *held


def _decoding(place: Place) -> Row:
    """Answers of a tiny model: each token's log-probability, and that of one pass.

    Of the tiny preset's shapes, in the types of this machine: prefill, the prompt's
    cache, a sample's own, experts and head meet in it.
    """
    subject = Subject.random("tiny")
    model = jaxmoe.Model(subject.config, subject.params)
    prompt = subject.prompt(subject.preset.prompt)
    drawn = jaxmoe.sample(
        model,
        prompt,
        key=jax.random.key(0),
        n=ROWS,
        policy=TopK(),
        sampler=TokenSampler(1.0),
        max_new_tokens=TOKENS,
        stop_ids=(),
    )
    worst = 0.0
    one = cast(jaxmoe.Samples, drawn)  # of one prompt, no list
    for tokens, logprobs in zip(one.tokens, one.logprobs, strict=True):
        whole = np.concatenate([prompt, tokens])
        logits = np.asarray(jaxmoe.forward(model, whole))[len(prompt) - 1 : -1]
        log_softmax = np.asarray(jax.nn.log_softmax(logits, axis=-1))
        again = log_softmax[np.arange(len(tokens)), tokens]
        worst = max(worst, float(np.abs(again - logprobs).max()))
    what = targets.DECODING_ERROR
    return place.row("kernels", what, worst, "nats", answers=ROWS, tokens=TOKENS)
