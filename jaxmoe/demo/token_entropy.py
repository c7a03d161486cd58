"""How sure a model is of its tokens."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmoe.config import ModelConfig
from jaxmoe.demo.encoding import PROMPT_LENGTH, encode_by_tries
from jaxmoe.demo.network import logits_of
from jaxmoe.typing import Params


class TokenEntropy(NamedTuple):
    """Mean entropy of the next token, in nats, and of how many answers it is."""

    nats: float
    answers: int


def token_entropy(
    config: ModelConfig, params: Params, texts: Sequence[str], *, tries: int = 1
) -> TokenEntropy:
    """How sure the model is of the next token where an answer's tokens are drawn.

    Routed by top-k, without temperature.

    texts: problems with their answers; those of another length than up to `tries`
      tries have are left out, and not counted.
    """

    @jax.jit
    def mean_entropy(params, tokens):
        logits, _, _ = logits_of(config, params, tokens, "auto")
        logp = jax.nn.log_softmax(logits[:, PROMPT_LENGTH - 1 :])
        return -(jnp.exp(logp) * logp).sum(axis=-1).mean()

    parts = encode_by_tries(texts, tries)
    means = [float(mean_entropy(params, tokens)) for tokens in parts]
    places = [tokens[:, PROMPT_LENGTH - 1 :].size for tokens in parts]
    nats = float(np.average(means, weights=places))
    return TokenEntropy(nats, sum(map(len, parts)))
