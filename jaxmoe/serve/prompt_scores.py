"""Log-probabilities of a prompt's own tokens."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxmoe.decode.prefill import Given, prompt_bucket, score
from jaxmoe.model import Model
from jaxmoe.ops.top_k import whole_top_k
from jaxmoe.router.policies import Policy, for_model
from jaxmoe.serve.logprobs import Scored
from jaxmoe.typing import Array, Float, Int


def score_prompt(model: Model, ids: np.ndarray, policy: Policy, top: int) -> Scored:
    """Of each token, as predicted from those before it; the first's mean nothing.

    Experts are those that the policy takes without noise, as for every prompt. One
    program for each padded length; `top` belongs to its shape.

    Args:
      ids: int32 [T]. policy: of the request. top: how many of the most likely tokens.
    """
    config = model.config
    plain = for_model(policy, config).deterministic(config.num_layers)
    tokens = np.zeros(prompt_bucket(len(ids)), np.int32)
    tokens[: len(ids)] = ids
    given = Given(tokens, np.int32(len(ids)))
    logits, _ = score(config, model.params, given, plain, execution=model.execution)
    found = _of_logits(logits, tokens, top=min(top, config.vocab_size))
    cut = [np.asarray(array)[: len(ids)] for array in found]
    return Scored(ids.tolist(), cut[0], cut[2], cut[3], cut[1])


@partial(jax.jit, static_argnames="top")
def _of_logits(
    logits: Float[Array, "T V"], tokens: Int[Array, "T"], *, top: int
) -> tuple[Any, Any, Any, Any]:
    """Log-probability and rank [T] of each token, ids and values [T, Q] of the best.

    Row by row, so that no second array of the logits' size is made.
    """

    def row(given: tuple[Array, Array]) -> tuple[Any, Any, Any, Any]:
        logits, token = given
        total = jax.nn.logsumexp(logits)
        # To `top_k`, 0.0 and -0.0 are no equals.
        best, ids = whole_top_k(jnp.where(logits == 0, 0.0, logits), top)
        rank = 1 + (logits > logits[token]).sum(dtype=jnp.int32)
        return logits[token] - total, rank, ids.astype(jnp.int32), best - total

    # The token at t is predicted at t - 1.
    before = jnp.roll(logits, 1, axis=0)
    return jax.lax.map(row, (before, tokens))
