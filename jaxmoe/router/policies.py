"""Policies: which experts compute a token.

A policy is a frozen pytree. Its numbers (k_keep, r, tau, ...) are scalars or hold one
value per layer, and are traced, so that a sweep over values compiles once; only the
number of experts chosen, and how many ranks are looked at (4 k, or where r is larger
the next doubling of it), are part of the compiled shape. Noise chooses and never
weighs: a policy returns experts, in rank order, and the scoring rule weighs them.

Expert-Sample is from arXiv 2602.02443, `GumbelTopK` is how RoE (arXiv 2509.17238)
selects, and drawing with Gumbel noise is exact sampling without replacement
(Gumbel-top-k, arXiv 1903.06059).
"""

import dataclasses
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxmoe.config import ModelConfig
from jaxmoe.ops.top_k import whole_top_k
from jaxmoe.typing import Array, ArrayLike, Bool, Float, Int, Key

_LARGEST = float(np.finfo(np.float32).max)


class Ranked(NamedTuple):
    """The best experts of one token, the best first.

    scores: float32 [R], what they are ranked by. experts: int32 [R], their indices.
    """

    scores: Array
    experts: Array


def ranked(ranking: Float[Array, "E"], count: int) -> Ranked:
    """The best `count` experts; of equals the lower index ranks first."""
    # 0.0 and -0.0 are equals, but not to `top_k`.
    scores, experts = whole_top_k(jnp.where(ranking == 0, 0.0, ranking), count)
    return Ranked(scores, experts.astype(jnp.int32))


def draw_tail(
    best: Ranked,
    noise: Float[Array, "E"],
    *,
    head: Bool[Array, "R"],
    candidate: Bool[Array, "R"],
    tau: ArrayLike,
    k: int,
) -> Int[Array, "K"]:
    """All of `head`, and the rest drawn from `candidate` with logits scores / tau.

    scores + tau * noise orders as scores / tau + noise does, and is exact at 0.
    """
    # Finite, so that no tau is large enough to pass the head or fall behind r.
    perturbed = best.scores + tau * noise[best.experts]
    perturbed = jnp.clip(perturbed, -_LARGEST, _LARGEST)
    scores = jnp.where(head, jnp.inf, jnp.where(candidate, perturbed, -jnp.inf))
    rank = ranked(scores, k).experts
    # In rank order, so that equal sets give equal sums.
    place = (rank[None, :] < rank[:, None]).sum(axis=1)
    here = place[None, :] == jnp.arange(k)[:, None]
    return best.experts[jnp.where(here, rank[None, :], 0).sum(axis=1)]


@dataclass(frozen=True)
class Policy:
    """What all policies share. Subclass it to write one; `choose` is the heart.

    noisy: whether `choose` uses its noise; where False no noise is drawn.
    """

    noisy: ClassVar[bool] = True

    @property
    def width(self) -> int:
        """K, the static number of places for chosen experts (after `resolve`)."""
        raise NotImplementedError

    def resolve(self, *, k: int, num_experts: int, num_layers: int) -> Self:
        """Fill defaults from the model and give every number one value per layer.

        Raises ValueError for values that do not fit the model, where concrete.
        """
        raise NotImplementedError

    def deterministic(self, num_layers: int) -> "TopK":
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


def _pytree(*static: str):
    """Register a policy: its fields are leaves, but for the names in `static`."""

    def register(cls):
        names = [f.name for f in dataclasses.fields(cls)]
        return jax.tree_util.register_dataclass(
            cls, [n for n in names if n not in static], list(static)
        )

    return register


@_pytree("places")
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
    places: int | None = field(default=None, kw_only=True)

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
        return TopK(chosen, places=places)

    def deterministic(self, num_layers: int) -> "TopK":
        return self

    def choose(
        self, ranking: Float[Array, "E"], noise: Float[Array, "E"] | None
    ) -> Int[Array, "K"]:
        chosen = ranked(ranking, self.width).experts
        return jnp.where(jnp.arange(self.width) < _set(self.k), chosen, -1)


@_pytree("k", "reach")
@dataclass(frozen=True)
class ExpertSample(Policy):
    """Expert-Sample (arXiv 2602.02443): keep the certain head, draw from the tail.

    Ranks 1..k_keep are always taken; k - k_keep more are drawn without replacement
    from ranks k_keep+1..r with probability driven by logits / tau.

    k_keep: 0..k; None for k // 2 + 1, the paper's.
    r: k..E; None for min(4 k, E), the paper's 4 k.
    tau: >= 0; 0 is `TopK()`.
    k: experts per token; None for the model's own.
    reach: set by `resolve`, whatever is given: the ranks looked at, 4 k or 4 k doubled
      until it holds r (E where r is traced). All r under one reach share a program.
    """

    k_keep: ArrayLike | None = None
    r: ArrayLike | None = None
    tau: ArrayLike = 1.0
    k: int | None = field(default=None, kw_only=True)
    reach: int | None = field(default=None, kw_only=True, repr=False)

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
        return ExpertSample(keep, r, tau, k=k, reach=_reach(r, k, num_experts))

    def choose(
        self, ranking: Float[Array, "E"], noise: Float[Array, "E"] | None
    ) -> Int[Array, "K"]:
        assert noise is not None
        best = ranked(ranking, _resolved(self.reach))
        rank = jnp.arange(best.experts.shape[0])
        return draw_tail(
            best,
            noise,
            head=rank < _set(self.k_keep),
            candidate=rank < _set(self.r),
            tau=self.tau,
            k=self.width,
        )


@_pytree("k")
@dataclass(frozen=True)
class GumbelTopK(Policy):
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
        return GumbelTopK(tau, k=k)

    def choose(
        self, ranking: Float[Array, "E"], noise: Float[Array, "E"] | None
    ) -> Int[Array, "K"]:
        assert noise is not None
        best = ranked(ranking, ranking.shape[0])
        everyone = jnp.ones(ranking.shape, bool)
        return draw_tail(
            best,
            noise,
            head=~everyone,
            candidate=everyone,
            tau=self.tau,
            k=self.width,
        )


@_pytree("k", "reach")
@dataclass(frozen=True)
class AdaptiveHead(Policy):
    """A head as long as the router is certain: the paper's open question.

    The head is the shortest run of best ranks whose probabilities (softmax of the
    ranking) reach `mass`, at least 1 and at most k; the rest is drawn as in
    `ExpertSample`.

    mass: 0..1. r: k..E; None for min(4 k, E). tau: >= 0; 0 is `TopK()`.
    k: experts per token; None for the model's own.
    reach: as in `ExpertSample`.
    """

    mass: ArrayLike = 0.5
    r: ArrayLike | None = None
    tau: ArrayLike = 1.0
    k: int | None = field(default=None, kw_only=True)
    reach: int | None = field(default=None, kw_only=True, repr=False)

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
        return AdaptiveHead(mass, r, tau, k=k, reach=_reach(r, k, num_experts))

    def head(self, ranking: Float[Array, "E"], best: Ranked) -> Bool[Array, "R"]:
        """Which ranks are in the head; `best` are those of `ranking`."""
        # Over all experts, those beyond the ranks looked at too.
        total = jnp.exp(ranking - best.scores[0]).sum()
        probability = jnp.exp(best.scores - best.scores[0]) / total
        rank = jnp.arange(best.scores.shape[0])
        before = rank[None, :] < rank[:, None]
        mass_before = jnp.where(before, probability[None, :], 0.0).sum(axis=1)
        # Rounding may let a later sum fall short again: the head ends at the first.
        full = (mass_before >= self.mass) & (rank > 0)
        ended = (full[None, :] & (rank[None, :] <= rank[:, None])).any(axis=1)
        return ~ended & (rank < self.width)

    def choose(
        self, ranking: Float[Array, "E"], noise: Float[Array, "E"] | None
    ) -> Int[Array, "K"]:
        assert noise is not None
        best = ranked(ranking, _resolved(self.reach))
        return draw_tail(
            best,
            noise,
            head=self.head(ranking, best),
            candidate=jnp.arange(best.experts.shape[0]) < _set(self.r),
            tau=self.tau,
            k=self.width,
        )


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
    # Clipped lest the cast wrap around; NumPy lest a look start work on the device.
    typed = np.clip(concrete, -1, 2**31 - 1) if kind is int else concrete
    with np.errstate(over="ignore"):
        return np.broadcast_to(typed.astype(dtype), (num_layers,)).copy()


def _check(name: str, values: ArrayLike, *, low: float, high: float = np.inf) -> None:
    concrete = _concrete(values)
    if concrete is None:
        return
    wrong = ~(np.isfinite(concrete) & (concrete >= low) & (concrete <= high))
    if wrong.any():
        layer = int(np.argmax(wrong))
        bounds = f"{low}..{high}" if np.isfinite(high) else f"finite and >= {low}"
        found = f"{concrete[layer]} in layer {layer}"
        raise ValueError(f"policy: {name} must be {bounds}, found {found}")


def for_model(policy: Policy, config: ModelConfig) -> Policy:
    """`policy` resolved against a model; one without experts gets `TopK` of nothing.

    Raises:
      TypeError: not a policy. ValueError: values that do not fit the model.
    """
    if not isinstance(policy, Policy):
        raise TypeError(
            f"policy must be a jaxmoe policy such as ExpertSample(), found {policy!r}"
        )
    if not config.num_experts:
        policy = TopK()
    return policy.resolve(
        k=config.experts_per_token or 1,
        num_experts=config.num_experts or 1,
        num_layers=config.num_layers,
    )
