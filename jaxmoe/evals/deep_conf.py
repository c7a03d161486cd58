"""DeepConf: answers that the model grows unsure of are ended before they are complete.

With P_i(j) the probability of the j-th most likely of Q tokens at position i:

    C_i = -1/Q sum_j log P_i(j)      confidence of a token
    G_i = mean of C over the W tokens up to i     of a group
    min_i G_i                        of an answer, its lowest group

The confidence is high where the model is sure: all but the first token then have tiny
probabilities. Some answers (warm-up) are drawn whole; a percentile of their lowest
groups is the threshold, and later answers end at the first group below it, which frees
their slots. An answer's tokens stay what they are; only where it ends depends on the
threshold, and so on the warm-up answers, which are functions of the key themselves.

Source: Fu et al. 2025, "Deep Think with Confidence" (arXiv 2508.15260), sections 3.1
and 3.3.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxmoe.decode.inputs import Prompt, check_whole, is_many
from jaxmoe.decode.slots import default_slots
from jaxmoe.decode.stop_rule import SoFar
from jaxmoe.model import Model
from jaxmoe.sampling import Finished, stream
from jaxmoe.typing import Array, Key

LOW, HIGH = 0.1, 0.9
"""Shares of answers to keep: DeepConf-low and DeepConf-high."""


@dataclass(frozen=True)
class DeepConf:
    """Numbers of the method; the paper's are the defaults.

    warm_up: answers that are drawn whole. keep: share of them whose lowest group is
    above the threshold. group: W, tokens of a group. top: Q.
    """

    warm_up: int = 16
    keep: float = LOW
    group: int = 2048
    top: int = 20

    def __post_init__(self):
        for name in ("warm_up", "group", "top"):
            check_whole(name, getattr(self, name))
        if not 0 < self.keep <= 1:
            raise ValueError(f"keep must be a share in (0, 1], found {self.keep!r}")


@dataclass(frozen=True)
class ConfidentAnswers:
    """Answers in order of their sample index, with how sure the model was of each.

    answers: n of them; `finish` is "stop_when" where one was ended. confidences:
    float64 [n], of the lowest group of what was drawn. threshold: below which later
    answers were ended.
    """

    answers: tuple[Finished, ...]
    confidences: Float[np.ndarray, "n"]
    threshold: float

    @property
    def complete(self) -> np.ndarray:
        """bool [n], which answers may vote: those that were not ended."""
        return np.array([answer.finish != "stop_when" for answer in self.answers])


def token_confidence(
    top_logprobs: Float[np.ndarray, "T Q"],
) -> Float[np.ndarray, "T"]:
    """C of each token, nats."""
    return -top_logprobs.mean(axis=1, dtype=np.float64)


def group_confidence(
    tokens: Float[np.ndarray, "T"], window: int
) -> Float[np.ndarray, "G"]:
    """G of each whole window, of all tokens where they are fewer."""
    if len(tokens) <= window:
        return tokens.mean(keepdims=True)
    groups = np.lib.stride_tricks.sliding_window_view(tokens, window)
    return groups.mean(axis=1)


def threshold_of(lowest: Float[np.ndarray, "n"], keep: float) -> float:
    """The percentile 100 (1 - keep) of lowest groups, of those that are finite.

    -inf, below which nothing lies, where none is.
    """
    known = lowest[np.isfinite(lowest)]
    return float(np.percentile(known, 100 * (1 - keep))) if len(known) else -np.inf


def unsure(threshold: float, window: int) -> Callable[[SoFar], bool]:
    """A rule for `stop_when`: whether the last whole window is below the threshold.

    Answers must be drawn with `top_logprobs`.
    """

    def stop(so_far: SoFar) -> bool:
        if so_far.length < window:
            return False
        top = so_far.top_logprobs
        if top is None:
            raise ValueError(
                "confidence needs the most likely tokens, found none; pass "
                "top_logprobs=20"
            )
        return bool(token_confidence(top[-window:]).mean() < threshold)

    return stop


def deep_conf(
    model: Model,
    prompt: Prompt,
    *,
    key: Key[Array, ""] | int,
    n: int,
    rule: DeepConf = DeepConf(),
    slots: int | None = None,
    **options: Any,
) -> ConfidentAnswers:
    """n answers to one prompt, hopeless ones ended early.

    The first `rule.warm_up` are drawn whole. Of all, tokens are those of
    `jaxmoe.sample` with the same key and options, up to where they end.

    Args:
      options: of `jaxmoe.stream`, such as policy, sampler and max_new_tokens.

    Raises:
      ValueError: n is not more than the warm-up, several prompts, `top_logprobs`
        (which `rule.top` says), or as `jaxmoe.stream`.
    """
    if is_many(prompt):
        raise ValueError(
            f"deep_conf takes one prompt, found a list of {len(prompt)}, which would "
            "need a threshold each; call it for each of them"
        )
    if "top_logprobs" in options:
        raise ValueError(
            "top_logprobs is what rule=DeepConf(top=...) says, found "
            f"{options['top_logprobs']!r} beside it; leave it out"
        )
    if check_whole("n", n) <= rule.warm_up:
        raise ValueError(
            f"n must be more than the {rule.warm_up} answers of the warm-up, found "
            f"{n}; draw more, or pass rule=DeepConf(warm_up=...)"
        )
    # In both parts alike, so that they share their programs.
    slots = default_slots(n, model.layout) if slots is None else slots
    shared = {**options, "key": key, "slots": slots, "top_logprobs": rule.top}
    whole = _in_order(stream(model, prompt, samples=range(rule.warm_up), **shared))
    lowest = [_lowest(answer, rule.group) for answer in whole]
    threshold = threshold_of(np.array(lowest), rule.keep)
    rest = stream(
        model,
        prompt,
        samples=range(rule.warm_up, n),
        stop_when=unsure(threshold, rule.group),
        **shared,
    )
    answers = (*whole, *_in_order(rest))
    confidences = [_lowest(answer, rule.group) for answer in answers]
    return ConfidentAnswers(answers, np.array(confidences), threshold)


def _in_order(answers: Any) -> list[Finished]:
    return sorted(answers, key=lambda answer: answer.sample)


def _lowest(answer: Finished, window: int) -> float:
    assert answer.top_logprobs is not None
    tokens = token_confidence(answer.top_logprobs)
    return float(group_confidence(tokens, window).min())
