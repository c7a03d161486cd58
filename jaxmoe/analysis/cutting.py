"""What is lost where fewer experts compute each token: the price of cutting the tail.

A model reads given answers with its best m experts a token instead of its k; what it
loses is log-probability of the tokens that are there, and how often the most likely
token is the one that is there. Nothing is drawn, so no accuracy on problems is claimed.
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxmoe.analysis.jackknife import jackknife
from jaxmoe.analysis.router_pass import (
    ROWS,
    Passage,
    batches,
    check_passage,
    require_routers,
)
from jaxmoe.decode.scoring import Whole, score_whole
from jaxmoe.evals.metrics import Interval
from jaxmoe.model import Model
from jaxmoe.router.policies import TopK, for_model
from jaxmoe.typing import Float


@dataclass(frozen=True, eq=False)
class Cutting:
    """Answers read with fewer experts.

    sizes: m of each reading; the last one is the model's own k. groups: prompts, P.
    sums: float64 [P, S, 3] of each reading: tokens, their log-probabilities, and how
    many were the most likely.
    """

    sizes: tuple[int, ...]
    groups: tuple[Hashable, ...]
    sums: Float[np.ndarray, "P S 3"]

    @property
    def tokens(self) -> int:
        """That were predicted."""
        return int(self.sums[:, -1, 0].sum())

    def logprob_lost(self, size: int) -> Interval:
        """Mean over tokens of log p with all k less that with m, nats."""
        return self._lost(size, 1)

    def accuracy_lost(self, size: int) -> Interval:
        """Share of tokens that are the most likely with all k, less that with m."""
        return self._lost(size, 2)

    def _lost(self, size: int, at: int) -> Interval:
        place = self.sizes.index(size)
        lost = self.sums[:, -1, at] - self.sums[:, place, at]
        pair = np.stack([lost, self.sums[:, -1, 0]], axis=1)
        return jackknife(lambda s: float(s[0] / s[1]), pair, self.groups)


def cut(
    model: Model,
    passages: Iterable[Passage],
    sizes: Sequence[int],
    *,
    rows: int = ROWS,
) -> Cutting:
    """Reads answers (of prompts alone, all tokens) with fewer experts; one program.

    Args:
      sizes: m, each in 1..k - 1.
      rows: positions run at once.

    Raises:
      ValueError: sizes that are none, a model without experts, or no tokens.
    """
    require_routers(model, "cutting")
    config, k = model.config, model.config.experts_per_token
    if not sizes or not all(1 <= size < k for size in sizes):
        raise ValueError(
            f"sizes must be in 1..{k - 1} (the model has {k} experts a token), found "
            f"{list(sizes)}"
        )
    every = (*sorted(set(sizes)), k)
    policies = [for_model(TopK(size), config) for size in every]
    checked = (check_passage(model, one, k) for one in passages)
    sums: dict[bytes, np.ndarray] = {}
    for batch in batches(checked, config.num_layers, k, rows):
        given, there = _whole(batch)
        for place, policy in enumerate(policies):
            found = jax.device_get(
                score_whole(
                    config, model.params, given, policy, execution=model.execution
                )
            )
            values = (there, np.where(there, found.logprob, 0), there & found.greedy)
            three = np.stack([v.sum(axis=1, dtype=np.float64) for v in values], axis=1)
            _add(sums, batch, place, three, len(every))
    if not any(part[-1, 0] for part in sums.values()):
        raise ValueError("cutting needs tokens to predict, found none; give answers")
    return Cutting(every, tuple(sums), np.stack(list(sums.values())))


def _whole(batch: Any) -> tuple[Whole, np.ndarray]:
    """The batch as it is scored, and which places [B, T] are."""
    count, size = batch.tokens.shape
    targets = np.zeros_like(batch.tokens)
    targets[:, :-1] = batch.tokens[:, 1:]
    lengths = np.maximum(batch.lengths - 1, 0)
    alone = batch.prompt_lengths == batch.lengths
    first = np.where(alone, 0, np.maximum(batch.prompt_lengths - 1, 0))
    place = np.arange(size)[None]
    there = (place >= first[:, None]) & (place < lengths[:, None])
    none = np.zeros((count, 2), np.uint32), np.zeros(count, np.int32)
    return Whole(batch.tokens, targets, lengths, first.astype(np.int32), *none), there


def _add(
    sums: dict[bytes, np.ndarray], batch: Any, place: int, three: np.ndarray, sizes: int
) -> None:
    for row in np.flatnonzero(batch.lengths):
        prompt = batch.tokens[row, : batch.prompt_lengths[row]].tobytes()
        sums.setdefault(prompt, np.zeros((sizes, 3)))[place] += three[row]
