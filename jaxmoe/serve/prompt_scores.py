"""Log-probabilities of a prompt's own tokens."""

import jax
import numpy as np

from jaxmoe.decode.prefill import prompt_bucket
from jaxmoe.decode.scoring import Whole, score_whole
from jaxmoe.model import Model
from jaxmoe.router.policies import Policy, for_model
from jaxmoe.serve.logprobs import Scored


def score_prompt(model: Model, ids: np.ndarray, policy: Policy, top: int) -> Scored:
    """Of each token, as predicted from those before it; the first's mean nothing.

    Experts are those that the policy takes without noise, as for every prompt. One
    program for each padded length; `top` belongs to its shape.

    Args:
      ids: int32 [T]. policy: of the request. top: how many of the most likely tokens.
    """
    config, length = model.config, len(ids)
    tokens, targets = np.zeros((2, 1, prompt_bucket(length)), np.int32)
    tokens[0, :length], targets[0, : length - 1] = ids, ids[1:]
    given = Whole(
        tokens,
        targets,
        lengths=np.array([length - 1], np.int32),
        first=np.zeros(1, np.int32),
        key_data=np.zeros((1, 2), np.uint32),
        noise_from=np.zeros(1, np.int32),
    )
    found = jax.device_get(
        score_whole(
            config,
            model.params,
            given,
            for_model(policy, config).deterministic(config.num_layers),
            top_logprobs=min(top, config.vocab_size),
            execution=model.execution,
        )
    )
    # The token at t is predicted at t - 1; what is past the targets is 0.
    at = np.arange(length) - 1
    scores = jax.tree.map(lambda a: a[0, at], found)
    best = scores.top_ids, scores.top_logprobs
    return Scored(ids.tolist(), scores.logprob, *best, scores.rank)
