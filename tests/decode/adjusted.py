"""What samplers do to logits before they draw, in NumPy: vLLM's order and meaning."""

from collections.abc import Sequence

import numpy as np

from jaxmoe import TokenSampler


def adjusted(
    sampler: TokenSampler,
    logits: np.ndarray,
    prompt: Sequence[int],
    answer: Sequence[int],
    end_ids: Sequence[int] = (),
) -> np.ndarray:
    """float64 [V], of one position, after the tokens of prompt and answer."""
    z, answer = np.array(logits, np.float64), list(answer)
    for word in sampler.bad_words or ():
        begun, last = list(word[:-1]), word[-1]
        if answer[len(answer) - len(begun) :] == begun and len(begun) <= len(answer):
            z[last] = -np.inf
    if len(answer) < (sampler.min_tokens or 0):
        z[list(end_ids)] = -np.inf
    for token, bias in (sampler.logit_bias or {}).items():
        z[token] += bias
    for token in {*prompt, *answer}:
        p = sampler.repetition_penalty or 1.0
        z[token] = z[token] / p if z[token] > 0 else z[token] * p
    for token in set(answer):
        z[token] -= (sampler.frequency_penalty or 0.0) * answer.count(token)
        z[token] -= sampler.presence_penalty or 0.0
    return z
