"""Whether routers have a head, as a number with an interval.

Expert-Sample rests on a few experts being far ahead of a long tail of nearly equal
ones. So a router has a head where scores fall faster over its first ranks than behind
them. With m = k // 2 + 1 (the paper's k_keep, 2 at least) and r = min(4 k, R) ranks,

    head = (log p_1 - log p_m) / (m - 1),   tail = (log p_m - log p_r) / (r - m)

in nats a rank, of one token; p is the softmax of what experts are ranked by over the R
that the token may have. `steepness` is the mean of the one over the mean of the other.
Any scores fall faster at the top: R independent normal numbers, of whatever deviation,
have the steepness `Ranks.normal` (4.1 with R = 64 and k = 8). So there is a head where
the interval lies above that, and models of other sizes are compared by their distance
from it. Sums are taken on the device, by layer, class and position, for each prompt
apart: answers to one prompt are alike.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmoe.analysis.jackknife import jackknife
from jaxmoe.evals.metrics import Interval
from jaxmoe.ops.top_k import whole_top_k
from jaxmoe.typing import Array, Bool, Float, Int

PLACES = (16, 64, 256, 1024)
"""Positions between which tokens are counted together."""


class Ranks(NamedTuple):
    """Where the head ends, m, and how far the tail is looked at, r, of R; static."""

    head: int
    tail: int
    allowed: int

    @property
    def normal(self) -> float:
        """Steepness of R independent normal numbers, by their expected order.

        The i-th largest is about Phi^-1(1 - (i - 3/8) / (R + 1/4)) deviations above the
        mean (Blom 1958, "Statistical estimates and transformed beta-variables").
        """
        height = NormalDist().inv_cdf
        first, end, last = (
            height(1 - (i - 0.375) / (self.allowed + 0.25))
            for i in (1, self.head, self.tail)
        )
        head = (first - end) / (self.head - 1)
        return head / ((end - last) / (self.tail - self.head))


def ranks_of(k: int, allowed: int) -> Ranks | None:
    """m and r of a model; None where fewer than three ranks can be told apart."""
    head, tail = max(2, k // 2 + 1), min(4 * k, allowed)
    return Ranks(head, tail, allowed) if head < tail else None


def head_sums(
    ranking: Float[Array, "N E"],
    classes: Bool[Array, "C N"],
    position: Int[Array, "N"],
    count: int,
    ranks: Ranks,
) -> Float[Array, "B C Z 4"]:
    """Sums over the tokens of each of B = `count` sequences, for use inside jit.

    Z are the bins of `PLACES`; the four: tokens, head, tail (nats a rank), and the
    probability of the head's m experts.
    """
    m, r, _ = ranks
    finite = classes.any(axis=0)
    log_p = jax.nn.log_softmax(jnp.where(finite[:, None], ranking, 0.0), axis=-1)
    best = whole_top_k(log_p, r)[0]
    head = (best[:, 0] - best[:, m - 1]) / (m - 1)
    tail = (best[:, m - 1] - best[:, r - 1]) / (r - m)
    mass = jnp.exp(best[:, :m]).sum(axis=1)
    values = jnp.stack([jnp.ones_like(head), head, tail, mass], axis=1)
    place = jnp.searchsorted(jnp.array(PLACES), position, side="right")
    bins = jax.nn.one_hot(place, len(PLACES) + 1)
    apart = lambda a: a.reshape(count, -1, *a.shape[1:])  # noqa: E731
    of_class = jnp.moveaxis(classes, 0, 1).astype(jnp.float32)
    return jnp.einsum(
        "btc,btz,btx->bczx", *map(apart, (of_class, bins, values)), precision="highest"
    )


@dataclass(frozen=True, eq=False)
class Heads:
    """Heads of a model's routers over texts.

    ranks: m and r. layers: X with experts. classes: C, names. groups: prompts, P.
    sums: float64 [P, X, C, Z, 4], see `head_sums`.
    """

    ranks: Ranks
    layers: tuple[int, ...]
    classes: tuple[str, ...]
    groups: tuple[Hashable, ...]
    sums: Float[np.ndarray, "P X C Z 4"]

    def tokens(self, **of: Any) -> int:
        """How many, in one layer (all have as many); `of` as in `steepness`."""
        return int(self._part(**of)[:, 0].sum()) // (
            1 if of.get("layer") is not None else len(self.layers)
        )

    def steepness(
        self,
        *,
        layer: int | None = None,
        of_class: str | None = None,
        place: int | None = None,
    ) -> Interval:
        """Mean fall of the head over that of the tail; a head: above `ranks.normal`.

        Args:
          layer: None for all together.
          of_class: one of `classes`; None for all.
          place: bin of `PLACES`, 0..Z-1; None for all.
        """
        part = self._part(layer=layer, of_class=of_class, place=place)
        return jackknife(lambda s: _over(s[1], s[2]), part, self.groups)

    def mean(self, what: str, **of: Any) -> Interval:
        """Mean over tokens of "head", "tail" (nats a rank) or "mass" (a share)."""
        at = ("tokens", "head", "tail", "mass").index(what)
        return jackknife(lambda s: _over(s[at], s[0]), self._part(**of), self.groups)

    def _part(
        self,
        *,
        layer: int | None = None,
        of_class: str | None = None,
        place: int | None = None,
    ) -> Float[np.ndarray, "P 4"]:
        found = self.sums
        if layer is not None:
            found = found[:, [self.layers.index(layer)]]
        if of_class is not None:
            found = found[:, :, [self.classes.index(of_class)]]
        if place is not None:
            found = found[:, :, :, [place]]
        return found.sum(axis=(1, 2, 3))


def gathered(
    parts: dict[bytes, np.ndarray],
    *,
    ranks: Ranks,
    layers: tuple[int, ...],
    classes: tuple[str, ...],
) -> Heads:
    """`Heads` of sums [X, C, Z, 4] by prompt."""
    sums = np.stack(list(parts.values()))
    return Heads(ranks, layers, classes, tuple(parts), sums)


def _over(a: float, b: float) -> float:
    return float(a / b) if b > 0 else float("nan")
