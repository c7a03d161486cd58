"""Policies: which experts compute a token.

A policy is a frozen pytree. Its numbers (k_keep, r, tau, ...) are scalars or hold one
value per layer, and are traced, so that a sweep over values compiles once; only the
number of experts chosen, and how many ranks are looked at (4 k, or where r is larger
the next doubling of it), are part of the compiled shape. Noise chooses and never
weighs: a policy returns experts, in rank order, and the scoring rule weighs them.

Expert-Sample is from arXiv 2602.02443, `GumbelTopK` is how RoE (arXiv 2509.17238)
selects, and drawing with Gumbel noise is exact sampling without replacement
(Gumbel-top-k, arXiv 1903.06059). `jaxmoe.router.modifiers` has policies that change
another one.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import Tracer
from jax.scipy.special import xlog1py, xlogy

from jaxmoe.config import ModelConfig
from jaxmoe.ops.top_k import best_first
from jaxmoe.router.plackett_luce import log_probability_of_set
from jaxmoe.typing import Array, ArrayLike, Bool, Float, Int, Key, pytree

_LARGEST = float(np.finfo(np.float32).max)
DERIVED = {"derived": True}
"""Of a field that `resolve` computes: the command line has no option for it."""


class Ranked(NamedTuple):
    """The best experts of one token, the best first.

    scores: float32 [R], what they are ranked by. experts: int32 [R], their indices.
    """

    scores: Array
    experts: Array


def ranked(ranking: Float[Array, "E"], count: int) -> Ranked:
    """The best `count` experts; of equals the lower index ranks first."""
    scores, experts = best_first(ranking, count)
    return Ranked(scores, experts.astype(jnp.int32))


def draw_tail(
    best: Ranked,
    noise: Float[Array, "E"],
    *,
    head: Bool[Array, "R"],
    candidate: Bool[Array, "R"],
    tau: ArrayLike,
    k: int,
    count: ArrayLike | None = None,
) -> Int[Array, "K"]:
    """All of `head`, and the rest drawn from `candidate` with logits scores / tau.

    scores + tau * noise orders as scores / tau + noise does, and is exact at 0.

    Args:
      k: K, the static number of places for experts.
      count: Experts chosen, 1..K; -1 fills the other places. None for all K.
    """
    # Finite, so that no tau is large enough to pass the head or fall behind r.
    perturbed = best.scores + tau * noise[best.experts]
    perturbed = jnp.clip(perturbed, -_LARGEST, _LARGEST)
    # No noise, be it infinite, brings back an expert that the rule forbids.
    perturbed = jnp.where(best.scores > -jnp.inf, perturbed, -_LARGEST)
    scores = jnp.where(head, jnp.inf, jnp.where(candidate, perturbed, -jnp.inf))
    rank = ranked(scores, k).experts
    if count is not None:
        # What was drawn after the first `count` is ranked behind all of them.
        surplus = jnp.arange(k) >= count
        rank = jnp.where(surplus, scores.shape[0] + jnp.arange(k), rank)
    # In rank order, so that equal sets give equal sums.
    place = (rank[None, :] < rank[:, None]).sum(axis=1)
    here = place[None, :] == jnp.arange(k)[:, None]
    in_order = jnp.where(here, rank[None, :], 0).sum(axis=1)
    if count is None:
        return best.experts[in_order]
    # Surplus ranks lie past the end; what is read there is not used.
    return jnp.where(surplus, -1, best.experts[in_order])


def certain_head(
    ranking: Float[Array, "E"], best: Ranked, *, mass: ArrayLike, k: int
) -> Int[Array, ""]:
    """Size of the shortest run of best ranks whose probabilities reach `mass`, 1..K.

    Probabilities are softmax(ranking) over all E experts. The result does not depend
    on how many ranks `best` holds, nor on the program it is computed in: a sum taken
    in another order could move the end of the head.
    """
    relative = lax.optimization_barrier(ranking) - best.scores[0]
    total = lax.optimization_barrier(jnp.exp(relative).sum())
    probability = jnp.exp(best.scores[:k] - best.scores[0]) / total
    # Added one by one: never decreasing, rounding included.
    reached = list(itertools.accumulate(probability[j] for j in range(k - 1)))
    if not reached:
        return jnp.int32(1)
    return 1 + (jnp.stack(reached) < mass).sum(dtype=jnp.int32)


def packed(experts: Int[Array, "K"], kept: Bool[Array, "K"]) -> Int[Array, "K"]:
    """The experts that are kept, in the same order; -1 in the places behind them."""
    order = jnp.argsort(~kept, stable=True)
    return jnp.where(kept, experts, -1)[order]


def drop_out(
    best: Int[Array, "K"],
    ranking: Float[Array, "E"],
    noise: Float[Array, "E"],
    q: ArrayLike,
) -> Int[Array, "K"]:
    """Each of the best experts left out with probability q, but never all of them.

    best: in rank order, -1 in places behind them.
    """
    # u >= q in Gumbel numbers: -inf at q = 0 and inf at q = 1, which are exact.
    kept = noise[best] >= -jnp.log(-jnp.log(q))
    kept &= (best >= 0) & (ranking[best] > -jnp.inf)
    kept = kept.at[0].set(kept[0] | ~kept.any())
    return packed(best, kept)


def log_probability_of_dropout(
    experts: Int[Array, "K"],
    best: Int[Array, "K"],
    ranking: Float[Array, "E"],
    q: ArrayLike,
) -> Float[Array, ""]:
    """Log-probability that `drop_out` leaves this set of the best experts."""
    q, there = jnp.asarray(q), (best >= 0) & (ranking[best] > -jnp.inf)
    kept = (experts[:, None] == best[None, :]).any(axis=0) & there
    k, m = there.sum(), kept.sum()
    # Experts given twice, or others than the best k.
    possible = ((experts >= 0).sum() == m) & (m > 0)
    law = xlog1py(m, -q) + xlogy(k - m, q)
    law = jnp.where((m == 1) & kept[0], xlogy(k - 1, q), law)
    return jnp.where(possible, law, -jnp.inf)


def certainty_of_set(
    experts: Int[Array, "K"], chosen: Int[Array, "K"]
) -> Float[Array, ""]:
    """Log-probability of a set where `chosen` is the only one: 0, or -inf."""
    same = (jnp.sort(experts) == jnp.sort(chosen)).all()
    return jnp.where(same, 0.0, -jnp.inf)


class Changes(NamedTuple):
    """What changes a choice by numbers; scalars or [..., L], bias [..., L, E].

    bias: float32, added to the ranking; 0 for none, -inf bans (`Biased`).
    entropy, margin: float32, there is noise where the router's entropy is above the
      one and its margin below the other (`Gated`); -1 and inf where there always is.
    gate_biased: bool, whether that is asked of the ranking with its bias.
    q: float32, probability of leaving out each expert (`Dropout`); -1 for keeping all.
    """

    bias: ArrayLike
    entropy: ArrayLike
    margin: ArrayLike
    gate_biased: ArrayLike
    q: ArrayLike

    @classmethod
    def none(cls, shape: tuple[int, ...], num_experts: int) -> Self:
        """Nothing changed, in NumPy arrays; shape: [..., L]."""
        return cls(
            bias=np.zeros((*shape, num_experts), np.float32),
            entropy=np.full(shape, -1, np.float32),
            margin=np.full(shape, np.inf, np.float32),
            gate_biased=np.zeros(shape, bool),
            q=np.full(shape, -1, np.float32),
        )


class PolicyNumbers(NamedTuple):
    """What any built-in policy chooses by; each field is a scalar or [..., L].

    k: int32, 1..K, experts chosen. k_keep: int32, 0..k, ranks always taken.
    r: int32, k..E, ranks drawn from. tau: float32, >= 0, temperature of the draw.
    mass: float32, 0..1, probability that the head reaches (`AdaptiveHead`); -1 where
      k_keep alone says how long the head is.
    k_min: int32, 1..k: where the head is shorter than k, so many experts are chosen, or
      as many as the head has (`TopP`). k where all k always are.
    changes: what else there is to it; None for nothing, which costs nothing.
    """

    k: ArrayLike
    k_keep: ArrayLike
    r: ArrayLike
    tau: ArrayLike
    mass: ArrayLike
    k_min: ArrayLike
    changes: Changes | None = None


@dataclass(frozen=True)
class Policy:
    """What all policies share. Subclass it to write one; `choose` is the heart.

    noisy: whether `choose` uses its noise; where False no noise is drawn.
    fills: whether as many experts as are left are chosen, whatever the noise, where the
      ranking leaves fewer than K (the others are -inf).
    """

    noisy: ClassVar[bool] = True
    fills: ClassVar[bool] = True

    @property
    def width(self) -> int:
        """K, the static number of places for chosen experts (after `resolve`)."""
        raise NotImplementedError

    @property
    def of_pass(self) -> "Policy":
        """What chooses in one pass: itself, but for a `RouteEnsemble`."""
        return self

    @property
    def passes(self) -> int:
        """Passes of a token: one, but for a `RouteEnsemble`."""
        return 1

    def resolve(self, *, k: int, num_experts: int, num_layers: int) -> Self:
        """Fill defaults from the model and give every number one value per layer.

        Raises ValueError for values that do not fit the model, where concrete.
        """
        raise NotImplementedError

    def check_layers(self, layers: Sequence[int]) -> None:
        """Raises ValueError where a resolved policy does not fit a layer, if concrete.

        layers: those with experts; what it has for others is never used.
        """

    def deterministic(self, num_layers: int) -> "Policy":
        """The same number of experts without noise, for prompt tokens."""
        return TopK(np.full(num_layers, self.width, np.int32), places=self.width)

    def at_layer(self, layer: Array | int) -> Self:
        """The policy of one layer, from a resolved one."""
        return jax.tree.map(lambda values: jnp.asarray(values)[layer], self)

    def choose(
        self, ranking: Float[Array, "E"], noise: Float[Array, "E"] | None
    ) -> Int[Array, "K"]:
        """Experts of one token in rank order; -1 fills places that stay empty.

        ranking: the scoring rule's, float32; noise: one standard Gumbel an expert.
        """
        raise NotImplementedError

    def select(
        self, key: Key[Array, ""], ranking: Float[Array, "E"]
    ) -> Int[Array, "K"]:
        """Experts of one token; `key` is `jaxmoe.keys.route_key`'s."""
        noise = jax.random.gumbel(key, ranking.shape) if self.noisy else None
        return self.choose(ranking, noise)

    def log_probability(
        self, ranking: Float[Array, "E"], experts: Int[Array, "K"]
    ) -> Float[Array, ""]:
        """Log-probability, in nats, that `choose` returns this set of experts.

        The probability is over the noise. A policy of your own need not have it; then
        the log-probabilities of its routes cannot be recorded.

        Args:
          ranking: The scoring rule's, float32.
          experts: The set, in any order; -1 in empty places.

        Returns:
          float32; -inf for a set that the policy cannot choose.
        """
        raise NotImplementedError(f"{type(self).__name__} has no log_probability")

    @property
    def has_log_probability(self) -> bool:
        """Whether `log_probability` is there."""
        return type(self).log_probability is not Policy.log_probability

    def numbers(self, num_experts: int) -> PolicyNumbers | None:
        """The numbers of a resolved policy, [L] each, for a `PerSlot` policy.

        None where it has none (the default): it then needs a program of its own.
        """
        return None


@pytree("places")
@dataclass(frozen=True)
class TopK(Policy):
    """The k best experts: what the model was trained with, or fewer, or more.

    k: None for the model's own, or another number, or one per layer. With fewer than
      `places` filled, the rest hold -1 and cost nothing, so all values up to the
      model's own k share one compiled program.
    places: K of the result; None for the larger of k and the model's own.
    """

    noisy: ClassVar[bool] = False
    k: ArrayLike | None = None
    places: int | None = field(default=None, kw_only=True, metadata=DERIVED)

    @property
    def width(self) -> int:
        return _resolved(self.places)

    def resolve(self, *, k: int, num_experts: int, num_layers: int) -> "TopK":
        chosen = _per_layer("k", k if self.k is None else self.k, num_layers, int)
        _check("k", chosen, low=1, high=num_experts)
        least = 1 if (values := _concrete(chosen)) is None else int(values.max())
        places = max(k, least) if self.places is None else self.places
        if not least <= places <= num_experts:
            bounds = f"{least}..{num_experts} (the largest k, the model's experts)"
            raise ValueError(f"policy: places must lie in {bounds}, found {places}")
        return replace(self, k=chosen, places=places)

    def deterministic(self, num_layers: int) -> "TopK":
        return self

    def choose(
        self, ranking: Float[Array, "E"], noise: Float[Array, "E"] | None
    ) -> Int[Array, "K"]:
        chosen = ranked(ranking, self.width).experts
        return jnp.where(jnp.arange(self.width) < _set(self.k), chosen, -1)

    def log_probability(
        self, ranking: Float[Array, "E"], experts: Int[Array, "K"]
    ) -> Float[Array, ""]:
        return certainty_of_set(experts, self.choose(ranking, None))

    def numbers(self, num_experts: int) -> PolicyNumbers:
        k = _set(self.k)
        return _numbers(k, k=k, k_keep=k, r=k, tau=0.0)


class Split(NamedTuple):
    """The ranks [R] of one token as a policy sees them.

    head: bool [R], always taken. candidate: bool [R], drawn from where not in the head.
    tau: temperature of the draw. count: experts chosen; None for all K.
    """

    best: Ranked
    head: Array
    candidate: Array
    tau: ArrayLike
    count: ArrayLike | None = None


@dataclass(frozen=True)
class HeadAndTail(Policy):
    """A policy that takes a head and draws the tail without replacement."""

    def split(self, ranking: Float[Array, "E"]) -> Split:
        """Head and candidates among the ranks of one token."""
        raise NotImplementedError

    def choose(
        self, ranking: Float[Array, "E"], noise: Float[Array, "E"] | None
    ) -> Int[Array, "K"]:
        assert noise is not None
        best, head, candidate, tau, count = self.split(ranking)
        return draw_tail(
            best,
            noise,
            head=head,
            candidate=candidate,
            tau=tau,
            k=self.width,
            count=count,
        )

    def log_probability(
        self, ranking: Float[Array, "E"], experts: Int[Array, "K"]
    ) -> Float[Array, ""]:
        best, head, candidate, tau, count = self.split(ranking)
        # [K, R]; an expert that is not among the ranks looked at has no rank.
        at_rank = experts[:, None] == best.experts[None, :]
        return log_probability_of_set(
            best.scores,
            at_rank,
            head=head,
            candidate=candidate,
            tau=tau,
            count=self.width if count is None else count,
        )


@pytree("k", "reach")
@dataclass(frozen=True)
class ExpertSample(HeadAndTail):
    """Expert-Sample (arXiv 2602.02443): keep the certain head, draw from the tail.

    Ranks 1..k_keep are always taken; k - k_keep more are drawn without replacement
    from ranks k_keep+1..r with probability driven by logits / tau.

    k_keep: the best experts, always taken, 0..k; None for k // 2 + 1, the paper's.
    r: the others are drawn from the r best, k..E; None for min(4 k, E), the paper's
      4 k.
    tau: how noisy the choice is, >= 0; 0 is `TopK()`.
    k: experts per token; None for the model's own.
    reach: set by `resolve`, whatever is given: the ranks looked at, 4 k or 4 k doubled
      until it holds r (E where r is traced). All r under one reach share a program.
    """

    k_keep: ArrayLike | None = None
    r: ArrayLike | None = None
    tau: ArrayLike = 1.0
    k: int | None = field(default=None, kw_only=True)
    reach: int | None = field(default=None, kw_only=True, repr=False, metadata=DERIVED)

    @property
    def width(self) -> int:
        return _resolved(self.k)

    def resolve(self, *, k: int, num_experts: int, num_layers: int) -> "ExpertSample":
        k = _width(self.k, k, num_experts)
        # With k <= 2 nothing is left to draw; k // 2 + 1 would pass k at k = 1.
        keep = min(k // 2 + 1, k) if self.k_keep is None else self.k_keep
        r = min(4 * k, num_experts) if self.r is None else self.r
        keep = _per_layer("k_keep", keep, num_layers, int)
        r = _per_layer("r", r, num_layers, int)
        tau = _per_layer("tau", self.tau, num_layers, float)
        _check("k_keep", keep, low=0, high=k)
        _check("r", r, low=k, high=num_experts)
        _check("tau", tau, low=0)
        reach = _reach(r, k, num_experts)
        return replace(self, k_keep=keep, r=r, tau=tau, k=k, reach=reach)

    def split(self, ranking: Float[Array, "E"]) -> Split:
        best = ranked(ranking, _resolved(self.reach))
        rank = jnp.arange(best.experts.shape[0])
        return Split(best, rank < _set(self.k_keep), rank < _set(self.r), self.tau)

    def numbers(self, num_experts: int) -> PolicyNumbers:
        keep, r = _set(self.k_keep), _set(self.r)
        return _numbers(keep, k=self.width, k_keep=keep, r=r, tau=self.tau)


@pytree("k")
@dataclass(frozen=True)
class GumbelTopK(HeadAndTail):
    """All experts noisy, no head: top-k of logits + tau * Gumbel (RoE's selection).

    tau: >= 0; 0 is `TopK()`. k: experts per token; None for the model's own.
    """

    tau: ArrayLike = 1.0
    k: int | None = field(default=None, kw_only=True)

    @property
    def width(self) -> int:
        return _resolved(self.k)

    def resolve(self, *, k: int, num_experts: int, num_layers: int) -> "GumbelTopK":
        k = _width(self.k, k, num_experts)
        tau = _per_layer("tau", self.tau, num_layers, float)
        _check("tau", tau, low=0)
        return replace(self, tau=tau, k=k)

    def split(self, ranking: Float[Array, "E"]) -> Split:
        best = ranked(ranking, ranking.shape[0])
        everyone = jnp.ones(ranking.shape, bool)
        return Split(best, ~everyone, everyone, self.tau)

    def numbers(self, num_experts: int) -> PolicyNumbers:
        tau = self.tau
        return _numbers(tau, k=self.width, k_keep=0, r=num_experts, tau=tau)


@pytree("k", "reach")
@dataclass(frozen=True)
class AdaptiveHead(HeadAndTail):
    """A head as long as the router is certain: the paper's open question.

    The head is the shortest run of best ranks whose probabilities (softmax of the
    ranking) reach `mass`, at least 1 and at most k; the rest is drawn as in
    `ExpertSample`.

    mass: the probability that the experts always taken reach, 0..1.
    r: k..E; None for min(4 k, E). tau: >= 0; 0 is `TopK()`.
    k: experts per token; None for the model's own.
    reach: as in `ExpertSample`.
    """

    mass: ArrayLike = 0.5
    r: ArrayLike | None = None
    tau: ArrayLike = 1.0
    k: int | None = field(default=None, kw_only=True)
    reach: int | None = field(default=None, kw_only=True, repr=False, metadata=DERIVED)

    @property
    def width(self) -> int:
        return _resolved(self.k)

    def resolve(self, *, k: int, num_experts: int, num_layers: int) -> "AdaptiveHead":
        k = _width(self.k, k, num_experts)
        r = min(4 * k, num_experts) if self.r is None else self.r
        mass = _per_layer("mass", self.mass, num_layers, float)
        r = _per_layer("r", r, num_layers, int)
        tau = _per_layer("tau", self.tau, num_layers, float)
        _check("mass", mass, low=0, high=1)
        _check("r", r, low=k, high=num_experts)
        _check("tau", tau, low=0)
        reach = _reach(r, k, num_experts)
        return replace(self, mass=mass, r=r, tau=tau, k=k, reach=reach)

    def head(self, ranking: Float[Array, "E"], best: Ranked) -> Bool[Array, "R"]:
        """Which ranks are in the head; `best` are those of `ranking`."""
        size = certain_head(ranking, best, mass=self.mass, k=self.width)
        return jnp.arange(best.scores.shape[0]) < size

    def split(self, ranking: Float[Array, "E"]) -> Split:
        best = ranked(ranking, _resolved(self.reach))
        candidate = jnp.arange(best.experts.shape[0]) < _set(self.r)
        return Split(best, self.head(ranking, best), candidate, self.tau)

    def numbers(self, num_experts: int) -> PolicyNumbers:
        r = _set(self.r)
        return _numbers(r, k=self.width, k_keep=0, r=r, tau=self.tau, mass=self.mass)


@pytree("places")
@dataclass(frozen=True)
class TopP(Policy):
    """As many of the best experts as reach a probability mass, k_min to k_max of them.

    k(x) = min(max(j, k_min), k_max), with j the least number of best ranks for which
    p_1 + ... + p_j >= mass, and p = softmax(ranking) over all E experts (arXiv
    2403.07652, which has no bounds: k_min = 1, k_max = E). The rest of the k_max places
    hold -1 and cost nothing. There is no noise, and k_min = k_max = k is `TopK(k)`.

    Prompt tokens, which other policies route without noise, get k_max experts each;
    `noisy_prefill=True` routes them by mass too.

    mass: the probability that the experts chosen reach, 0..1.
    k_min: the fewest experts, 1..k_max.
    k_max: the most experts; None for the model's own k.
    places: K of the result, set by `resolve`: the largest k_max.
    """

    noisy: ClassVar[bool] = False
    mass: ArrayLike = 0.5
    k_min: ArrayLike = field(default=1, kw_only=True)
    k_max: ArrayLike | None = field(default=None, kw_only=True)
    places: int | None = field(default=None, kw_only=True, repr=False, metadata=DERIVED)

    @property
    def width(self) -> int:
        return _resolved(self.places)

    def resolve(self, *, k: int, num_experts: int, num_layers: int) -> "TopP":
        most = k if self.k_max is None else self.k_max
        k_max = _per_layer("k_max", most, num_layers, int)
        k_min = _per_layer("k_min", self.k_min, num_layers, int)
        mass = _per_layer("mass", self.mass, num_layers, float)
        _check("k_max", k_max, low=1, high=num_experts)
        largest = _concrete(k_max)
        _check("k_min", k_min, low=1, high=num_experts if largest is None else largest)
        _check("mass", mass, low=0, high=1)
        widest = num_experts if largest is None else int(largest.max())
        places = widest if self.places is None else self.places
        return replace(self, mass=mass, k_min=k_min, k_max=k_max, places=places)

    def deterministic(self, num_layers: int) -> Policy:
        return TopK(_set(self.k_max), places=self.width)

    def choose(
        self, ranking: Float[Array, "E"], noise: Float[Array, "E"] | None
    ) -> Int[Array, "K"]:
        best = ranked(ranking, self.width)
        reached = certain_head(ranking, best, mass=self.mass, k=self.width)
        count = jnp.clip(reached, self.k_min, _set(self.k_max))
        return jnp.where(jnp.arange(self.width) < count, best.experts, -1)

    def log_probability(
        self, ranking: Float[Array, "E"], experts: Int[Array, "K"]
    ) -> Float[Array, ""]:
        return certainty_of_set(experts, self.choose(ranking, None))

    def numbers(self, num_experts: int) -> PolicyNumbers:
        # A head that reaches the mass, and noise of no temperature behind it.
        k = _set(self.k_max)
        least = self.k_min
        return _numbers(k, k=k, k_keep=0, r=k, tau=0.0, mass=self.mass, k_min=least)


@pytree("k")
@dataclass(frozen=True)
class Dropout(Policy):
    """The k best experts, each left out with probability q; at least one is kept.

    chosen = {e in top-k : u_e >= q} with u_e uniform in 0..1, of which the noise g_e is
    the Gumbel number -log(-log u_e); the best expert alone where all would be left out.
    A control, of no paper: it has randomness of equal cost, or less, that knows nothing
    of the router's scores. Weights are those of the experts kept, as the model weighs
    so many. With m of k experts kept the set has probability (1 - q)^m q^(k - m), the
    best expert alone q^(k - 1).

    q: probability, 0..1, of leaving out; 0 is `TopK()`.
    k: experts per token before any is left out; None for the model's own.
    """

    fills: ClassVar[bool] = False
    q: ArrayLike = 0.1
    k: int | None = field(default=None, kw_only=True)

    @property
    def width(self) -> int:
        return _resolved(self.k)

    def resolve(self, *, k: int, num_experts: int, num_layers: int) -> "Dropout":
        k = _width(self.k, k, num_experts)
        q = _per_layer("q", self.q, num_layers, float)
        _check("q", q, low=0, high=1)
        return replace(self, q=q, k=k)

    def choose(
        self, ranking: Float[Array, "E"], noise: Float[Array, "E"] | None
    ) -> Int[Array, "K"]:
        assert noise is not None
        best = ranked(ranking, self.width).experts
        return drop_out(best, ranking, noise, self.q)

    def log_probability(
        self, ranking: Float[Array, "E"], experts: Int[Array, "K"]
    ) -> Float[Array, ""]:
        best = ranked(ranking, self.width).experts
        return log_probability_of_dropout(experts, best, ranking, self.q)

    def numbers(self, num_experts: int) -> PolicyNumbers:
        # The best k, of which some are left out afterwards.
        q, k = self.q, self.width
        best = _numbers(q, k=k, k_keep=k, r=k, tau=0.0)
        changes = Changes.none(np.shape(q), num_experts)
        return best._replace(changes=changes._replace(q=q))


POLICIES: dict[str, type[Policy]] = {
    "expert-sample": ExpertSample,
    "topk": TopK,
    "gumbel-topk": GumbelTopK,
    "adaptive-head": AdaptiveHead,
    "top-p": TopP,
    "dropout": Dropout,
}
"""By the names that the command line has for them; the first is its default."""


def numbers_of(policy: Policy, num_experts: int) -> PolicyNumbers | None:
    """The numbers of a resolved policy; None where they do not say how it chooses.

    So it is of a subclass that chooses otherwise than the class that states them.
    """
    kinds = type(policy).__mro__
    states = next(i for i, kind in enumerate(kinds) if "numbers" in vars(kind))
    chooses = {"choose", "split", "head", "biased", "uncertain"}
    if any(chooses & vars(kind).keys() for kind in kinds[:states]):
        return None
    return policy.numbers(num_experts)


_UNRESOLVED = (
    "the policy has no number of experts yet; call "
    "policy.resolve(k=..., num_experts=..., num_layers=...) first, or pass k"
)


def _set(value: ArrayLike | None) -> ArrayLike:
    if value is None:
        raise ValueError(_UNRESOLVED)
    return value


def _resolved(k: int | None) -> int:
    if k is None:
        raise ValueError(_UNRESOLVED)
    return k


def _numbers(
    like: ArrayLike,
    *,
    k: ArrayLike,
    k_keep: ArrayLike,
    r: ArrayLike,
    tau: ArrayLike,
    mass: ArrayLike = -1.0,
    k_min: ArrayLike | None = None,
) -> PolicyNumbers:
    """Each number in its type and in the shape of `like`, [L] in a resolved policy."""
    shape = np.shape(like)

    def filled(value: ArrayLike, dtype: type) -> ArrayLike:
        np_or_jnp = np if _concrete(value) is not None else jnp
        return np_or_jnp.broadcast_to(np_or_jnp.asarray(value, dtype), shape)

    return PolicyNumbers(
        filled(k, np.int32),
        filled(k_keep, np.int32),
        filled(r, np.int32),
        filled(tau, np.float32),
        filled(mass, np.float32),
        filled(k if k_min is None else k_min, np.int32),
    )


def _width(asked: int | None, k: int, num_experts: int) -> int:
    width = k if asked is None else asked
    if width != int(width) or not 1 <= width <= num_experts:
        bounds = f"a whole number in 1..{num_experts} (the model's experts)"
        raise ValueError(f"policy: k must be {bounds}, found {width}")
    return int(width)


def _reach(r: ArrayLike, k: int, num_experts: int) -> int:
    """Ranks to look at: 4 k, doubled until it holds r; all where r is traced."""
    values, reach = _concrete(r), 4 * k
    most = num_experts if values is None else int(values.max())
    while reach < most:
        reach *= 2
    return min(reach, num_experts)


def _concrete(values: ArrayLike) -> np.ndarray | None:
    """`values` as NumPy, or None while tracing, when they cannot be looked at."""
    return None if isinstance(values, Tracer) else np.asarray(values)


def _per_layer(
    name: str, values: ArrayLike, num_layers: int, kind: type
) -> Array | np.ndarray:
    """One value per layer, int32 or float32 [L]."""
    dtype = np.int32 if kind is int else np.float32
    concrete = _concrete(values)
    if concrete is None:
        return jnp.broadcast_to(jnp.asarray(values).astype(dtype), (num_layers,))
    if not np.issubdtype(concrete.dtype, np.number) or np.iscomplexobj(concrete):
        raise TypeError(f"policy: {name} must be a number, found {values!r}")
    if kind is int and (concrete != np.floor(concrete)).any():
        raise ValueError(f"policy: {name} must be whole numbers, found {concrete}")
    if concrete.shape not in ((), (num_layers,)):
        raise ValueError(
            f"policy: {name} must be one number or one per layer "
            f"([{num_layers}], dense layers counted), found shape {concrete.shape}"
        )
    # Clipped, or the cast would wrap; NumPy, so that no look starts the device.
    typed = np.clip(concrete, -1, 2**31 - 1) if kind is int else concrete
    with np.errstate(over="ignore"):
        return np.broadcast_to(typed.astype(dtype), (num_layers,)).copy()


def per_layer(
    name: str, values: ArrayLike, num_layers: int, *, low: float, high: float = np.inf
) -> Array | np.ndarray:
    """`values` as float32 [L]; a ValueError for those not in low..high."""
    found = _per_layer(name, values, num_layers, float)
    _check(name, found, low=low, high=high)
    return found


def _check(
    name: str, values: ArrayLike, *, low: float, high: float | np.ndarray = np.inf
) -> None:
    """Refuses values [L] out of bounds; `high` may be one a layer."""
    concrete = _concrete(values)
    if concrete is None:
        return
    wrong = ~(np.isfinite(concrete) & (concrete >= low) & (concrete <= high))
    if wrong.any():
        layer = int(np.argmax(wrong))
        most = np.broadcast_to(high, concrete.shape)[layer]
        bounds = f"{low}..{most}" if np.isfinite(most) else f"finite and >= {low}"
        found = f"{concrete[layer]} in layer {layer}"
        raise ValueError(f"policy: {name} must be {bounds}, found {found}")


def require_one_pass(policy: Policy, whose: str) -> Policy:
    """`policy`, which must be of one pass a token.

    Raises:
      ValueError: an ensemble; whose: what asks, for the message.
    """
    if policy.of_pass is not policy:
        raise ValueError(
            f"policy: {whose} takes policies of one pass a token, found "
            f"{type(policy).__name__} of {type(policy.of_pass).__name__}; pass the "
            "policy that it draws routes by, or draw answers with it (jaxmoe.sample)"
        )
    return policy


def for_model(policy: Policy, config: ModelConfig, *, several: bool = False) -> Policy:
    """`policy` resolved against a model; one without experts gets `TopK` of nothing.

    several: whether it may take several passes a token (`RouteEnsemble`).

    Raises:
      TypeError: not a policy. ValueError: values that do not fit the model.
    """
    if not isinstance(policy, Policy):
        raise TypeError(
            f"policy must be a jaxmoe policy such as ExpertSample(), found {policy!r}"
        )
    if not several:
        require_one_pass(policy, "this function")
    if not config.num_experts:
        policy = TopK()
    resolved = policy.resolve(
        k=config.experts_per_token or 1,
        num_experts=config.num_experts or 1,
        num_layers=config.num_layers,
    )
    resolved.check_layers(config.moe_layers)
    width = resolved.of_pass.width
    if config.num_experts and width > config.allowed_experts:
        raise ValueError(
            f"policy: k must be at most {config.allowed_experts}, the experts of the "
            f"groups that a token may use; found {width}"
        )
    return resolved
