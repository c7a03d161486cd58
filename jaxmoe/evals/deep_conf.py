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

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float

from jaxmoe.decode.inputs import Prompt, check_whole, is_many
from jaxmoe.decode.request import Progress
from jaxmoe.decode.slots import default_slots
from jaxmoe.decode.stop_rule import SoFar
from jaxmoe.evals.votes import SUREST
from jaxmoe.model import Model
from jaxmoe.sampling import Finished, stream
from jaxmoe.typing import Array, Key

LOW, HIGH = SUREST
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
    drawn = confident_stream(
        model, prompt, key=key, n=n, rule=rule, slots=slots, **options
    )
    answers = sorted(drawn, key=lambda answer: answer.sample)
    lowest = np.array([lowest_group(answer, rule.group) for answer in answers])
    threshold = threshold_of(lowest[: rule.warm_up], rule.keep)
    return ConfidentAnswers(tuple(answers), lowest, threshold)


def confident_stream(
    model: Model,
    prompt: Prompt | Sequence[Prompt],
    *,
    n: int,
    rule: DeepConf,
    known: Mapping[tuple[int, int], float] | None = None,
    skip: Collection[tuple[int, int]] = (),
    progress: Callable[[Progress], None] | None = None,
    **options: Any,
) -> Iterator[Finished]:
    """As `jaxmoe.stream`: the warm-up of all prompts, then what is left of the others.

    Each prompt has a threshold of its own. With n up to the warm-up nothing is ended.

    Args:
      known: confidences of answers that are skipped, by prompt and sample index, as
        far as thresholds need them.
      options: as of `deep_conf`; slots too.
    """
    lowest, first = dict(known or {}), min(n, rule.warm_up)
    shared: dict[str, Any] = {**options, "skip": skip, "top_logprobs": rule.top}
    before: list[Progress] = []

    def report(now: Progress) -> None:
        before[:] = [now]
        if progress is not None:
            progress(now)

    for answer in stream(
        model, prompt, samples=range(first), progress=report, **shared
    ):
        lowest[answer.prompt, answer.sample] = lowest_group(answer, rule.group)
        yield answer
    if first == n:
        return
    rules = {
        j: unsure(threshold_of(values, rule.keep), rule.group)
        for j, values in _by_prompt(lowest, first).items()
    }

    def report_all(now: Progress) -> None:
        if progress is not None:
            progress(_together(*before, now))

    yield from stream(
        model,
        prompt,
        samples=range(first, n),
        stop_when=lambda so_far: rules[so_far.prompt](so_far),
        progress=report_all,
        **shared,
    )


def _by_prompt(
    lowest: Mapping[tuple[int, int], float], first: int
) -> dict[int, Float[np.ndarray, "n"]]:
    """Confidences of the first answers to each prompt."""
    found: dict[int, list[float]] = {}
    for (prompt, sample), value in sorted(lowest.items()):
        if sample < first:
            found.setdefault(prompt, []).append(value)
    return {prompt: np.array(values) for prompt, values in found.items()}


def _together(*parts: Progress) -> Progress:
    """Of calls one after the other."""
    last = parts[-1]
    sums = ("finished", "total", "tokens", "seconds", "steps")
    return replace(
        last, **{name: sum(getattr(part, name) for part in parts) for name in sums}
    )


def lowest_group(answer: Finished, window: int) -> float:
    """An answer's confidence; it must have been drawn with `top_logprobs`."""
    assert answer.top_logprobs is not None
    tokens = token_confidence(answer.top_logprobs)
    return float(group_confidence(tokens, window).min())
