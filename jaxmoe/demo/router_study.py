"""The router scores of the demo model, by rank, where its answers are drawn."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxmoe.analysis.router_scores import (
    RankCurve,
    load_share,
    normalised_entropy,
    rank_curve,
    to_json,
)
from jaxmoe.config import ModelConfig
from jaxmoe.demo.encoding import PROMPT_LENGTH, encode_whole
from jaxmoe.demo.network import logits_of
from jaxmoe.typing import Float, Int, Params


def router_logits(
    config: ModelConfig, params: Params, texts: Sequence[str]
) -> tuple[Float[np.ndarray, "L N E"], Int[np.ndarray, "L N K"]]:
    """Router logits and chosen experts of every pass that an answer's token comes from.

    texts: problems with their answers; those of another length than a right answer's
      are left out.
    """
    tokens = encode_whole(texts)
    run = jax.jit(lambda params, tokens: logits_of(config, params, tokens, "auto")[1:])
    logits, experts = run(params, tokens)
    drawn = np.tile(np.arange(tokens.shape[1]) >= PROMPT_LENGTH - 1, len(tokens))
    return np.asarray(logits)[:, drawn], np.asarray(experts)[:, drawn]


def curves(logits: Float[np.ndarray, "L N E"]) -> dict[str, RankCurve]:
    """The score curve of each layer, by name."""
    return {f"layer {layer}": rank_curve(part) for layer, part in enumerate(logits)}


def describe(
    logits: Float[np.ndarray, "L N E"], experts: Int[np.ndarray, "L N K"]
) -> dict[str, Any]:
    """Curves, and how evenly the experts are used (1: all alike), as JSON."""
    loads = [load_share(part, logits.shape[-1]) for part in experts]
    return {
        name: to_json(curve) | {"load_entropy": round(normalised_entropy(load), 4)}
        for (name, curve), load in zip(curves(logits).items(), loads, strict=True)
    }
