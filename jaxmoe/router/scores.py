"""Scoring rules: how a model turns router logits into a ranking and into weights.

A rule belongs to the model family: a frozen value that its config names. It says by
what number experts are ranked, and what weight each *chosen* expert gets, in which
type; which experts are chosen is the policy's part. To add one is to add a class here.
"""

from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp

from jaxmoe.ops.top_k import best_first, whole_top_k
from jaxmoe.typing import Array, Bool, Float, Int

WeightType = Literal["activations", "float32"]


@dataclass(frozen=True)
class Groups:
    """Runs of neighbouring experts, of which a token uses a few.

    The groups are chosen by the router's scores alone, as in training: noise chooses
    within them.

    Attributes:
      count: How many groups the experts are cut into.
      kept: How many of them a token uses.
      best: How many of a group's best scores are added up to make its own.
    """

    count: int
    kept: int
    best: int

    def __post_init__(self):
        if not 1 <= self.kept <= self.count or self.best < 1:
            raise ValueError(
                f"groups of experts: kept must lie in 1..{self.count} (count) and best "
                f"be positive, found {self.kept} and {self.best}"
            )

    def check(self, num_experts: int, experts_per_token: int):
        """Raises a ValueError where so many experts do not make such groups."""
        size, rest = divmod(num_experts, self.count)
        if rest or size < self.best:
            raise ValueError(
                f"{num_experts} experts must make {self.count} equal groups of "
                f"{self.best} or more; check n_group in config.json"
            )
        if size * self.kept < experts_per_token:
            raise ValueError(
                f"{self.kept} groups of {size} experts must hold {experts_per_token} "
                "for each token; check topk_group in config.json"
            )

    def allowed(self, scores: Float[Array, "*N E"]) -> Bool[Array, "*N E"]:
        """Which experts lie in the best groups; of equals the lower one is better."""
        apart = scores.reshape(*scores.shape[:-1], self.count, -1)
        totals = whole_top_k(apart, self.best)[0].sum(axis=-1)
        kept = whole_top_k(totals, self.kept)[1]
        here = jax.nn.one_hot(kept, self.count, dtype=bool).any(axis=-2)
        return jnp.repeat(here, apart.shape[-1], axis=-1)


@dataclass(frozen=True)
class ExtraExperts:
    """What experts beside the model's own weigh: alpha times what they would.

    With weights w of the chosen set C by the scoring rule, and B the k best experts:

        v_e = w_e for e in B, alpha w_e for others;    weight_e = v_e sum(w) / sum(v)

    where the rule keeps the sum of weights, and weight_e = v_e where it does not. At
    alpha = 1 all weigh by their original scores (arXiv 2602.02443), at 0 experts that
    are drawn, or come on top of the k best (`TopK(k + m)`), compute for nothing. Of no
    paper: it parts what further experts say from how loudly.

    Attributes:
      k: The model's own number of experts per token.
      alpha: 0 or more.
    """

    k: int
    alpha: float

    def __post_init__(self):
        if not 0 <= self.alpha < float("inf"):
            raise ValueError(f"alpha must be finite and >= 0, found {self.alpha}")


@dataclass(frozen=True, repr=False)
class Scores:
    """Contract of a scoring rule.

    Attributes:
      weight_type: That of the weights where they multiply what experts give: the type
        of the "activations", to which they are rounded, or "float32". Sums over experts
        are in float32 either way.
      scale: What every weight is multiplied by.
      choice_bias: Whether the router has one more number an expert, which is added to
        its score for the choice of experts and of groups, and never weighs.
      groups: Groups that the choice is confined to.
      keep_sum: Of a rule that does not normalise: whether experts other than the best
        share what the best would have weighed, instead of their own, smaller sum. The
        best weigh what they did, bit for bit (`jaxmoe.Model.weighing`).
      extra: What experts beside the best weigh; None for what their scores say.
    """

    weight_type: WeightType = field(default="activations", kw_only=True)
    scale: float = field(default=1.0, kw_only=True)
    choice_bias: bool = field(default=False, kw_only=True)
    groups: Groups | None = field(default=None, kw_only=True)
    keep_sum: bool = field(default=False, kw_only=True)
    extra: ExtraExperts | None = field(default=None, kw_only=True)

    def __repr__(self) -> str:
        """As of any dataclass, but for `extra` where there is none.

        A run's identity holds this text, and must not change with every new field.
        """
        given = {f.name: getattr(self, f.name) for f in fields(self)}
        shown = [
            f"{name}={value!r}"
            for name, value in given.items()
            if name != "extra" or value is not None
        ]
        return f"{type(self).__qualname__}({', '.join(shown)})"

    def __post_init__(self):
        if self.weight_type not in get_args(WeightType):
            raise ValueError(
                f"weight_type must be one of {', '.join(get_args(WeightType))}, found "
                f"{self.weight_type!r}"
            )
        if not self.scale > 0:
            raise ValueError(f"scale must be above 0, found {self.scale}")
        if self.keep_sum and (self.normalises or self.choice_bias):
            raise ValueError(
                "keep_sum is for rules that do not normalise, and have no choice bias, "
                f"found {self}"
            )
        if self.extra is not None and self.choice_bias:
            raise ValueError(f"extra is for rules without a choice bias, found {self}")

    @property
    def normalises(self) -> bool:
        """Whether weights have the same sum, whichever experts are chosen."""
        raise NotImplementedError

    def scores(self, logits: Float[Array, "*N E"]) -> Float[Array, "*N E"]:
        """What experts are scored by, from 0 to 1; float32, as `logits` are."""
        raise NotImplementedError

    def plain_ranking(self, logits: Float[Array, "*N E"]) -> Float[Array, "*N E"]:
        """The ranking where there is neither a choice bias nor groups."""
        raise NotImplementedError

    def plain_weights(
        self, logits: Float[Array, "*N E"], experts: Int[Array, "*N K"]
    ) -> Float[Array, "*N K"]:
        """The weights without `scale`; float32, as `logits` are."""
        raise NotImplementedError

    def ranking(
        self,
        logits: Float[Array, "*N E"],
        choice_bias: Float[Array, "E"] | None = None,
    ) -> Float[Array, "*N E"]:
        """What experts are ranked by, in log space, float32; -inf if forbidden.

        It orders experts as the model does, and noise is added to it. With scores s and
        a choice bias b the model orders by c = s + b, and the ranking is
        `log_score(c - mean(b))`: a bias common to all changes nothing.

        Args:
          logits: The router's.
          choice_bias: b, float32, where the rule has one.
        """
        assert (choice_bias is not None) == self.choice_bias
        logits = logits.astype(jnp.float32)
        if choice_bias is None:
            chosen_by, ranking = self.scores(logits), self.plain_ranking(logits)
        else:
            every = jnp.broadcast_to(choice_bias, logits.shape)
            chosen_by = self.scores(logits) + every
            ranking = log_score(chosen_by - choice_bias.mean())
        if self.groups is None:
            return ranking
        return jnp.where(self.groups.allowed(chosen_by), ranking, -jnp.inf)

    def weights(
        self, logits: Float[Array, "*N E"], experts: Int[Array, "*N K"]
    ) -> Float[Array, "*N K"]:
        """Weights of the chosen experts, float32; 0 where `experts` is -1."""
        logits = logits.astype(jnp.float32)
        found = self.plain_weights(logits, experts)
        if self.keep_sum:
            best = best_first(self.ranking(logits), experts.shape[-1])[1]
            count = (experts >= 0).sum(axis=-1, keepdims=True)
            place = jnp.broadcast_to(jnp.arange(experts.shape[-1]), experts.shape)
            best = jnp.where(place < count, best, -1)
            # One sum of both: of equal experts the ratio is 1 exactly.
            both = jnp.stack([self.plain_weights(logits, best), found])
            wanted, own = both.sum(axis=-1, keepdims=True)
            found *= wanted / jnp.maximum(own, jnp.finfo(jnp.float32).tiny)
        if self.extra is not None:
            found = self._with_extra(self.extra, logits, experts, found)
        return found if self.scale == 1 else found * self.scale

    def _with_extra(
        self,
        extra: ExtraExperts,
        logits: Float[Array, "*N E"],
        experts: Int[Array, "*N K"],
        weights: Float[Array, "*N K"],
    ) -> Float[Array, "*N K"]:
        """See `ExtraExperts`."""
        best = best_first(self.ranking(logits), extra.k)[1]
        own = (experts[..., :, None] == best[..., None, :]).any(axis=-1)
        found = jnp.where(own, weights, extra.alpha * weights)
        if not (self.normalises or self.keep_sum):
            return found
        # One sum of both: at alpha = 1 the ratio is 1 exactly.
        wanted, left = jnp.stack([weights, found]).sum(axis=-1, keepdims=True)
        return found * (wanted / jnp.maximum(left, jnp.finfo(jnp.float32).tiny))

    def weight_dtype(self, activations: Any) -> Any:
        """The type that weights are rounded to, where activations have this one."""
        return jnp.float32 if self.weight_type == "float32" else activations


@dataclass(frozen=True, repr=False)
class SoftmaxScores(Scores):
    """Probabilities over all experts, optionally renormalised over the chosen.

    weight_e = p_e, or p_e / sum of p over the chosen set where `normalise`, with
    p = softmax(logits). Ranks by logit, which orders as p does. `least` bounds the sum
    from below.
    """

    normalise: bool
    least: float = 0.0

    @property
    def normalises(self) -> bool:
        """Whether weights have the same sum, whichever experts are chosen."""
        return self.normalise

    def scores(self, logits: Float[Array, "*N E"]) -> Float[Array, "*N E"]:
        """p."""
        return jax.nn.softmax(logits, axis=-1)

    def plain_ranking(self, logits: Float[Array, "*N E"]) -> Float[Array, "*N E"]:
        """The logits."""
        return logits

    def plain_weights(
        self, logits: Float[Array, "*N E"], experts: Int[Array, "*N K"]
    ) -> Float[Array, "*N K"]:
        """The weights without `scale`; float32, as `logits` are."""
        taken = jnp.maximum(experts, 0)
        if self.normalise and not self.least:
            # p / sum of p is the softmax of the chosen, which neither underflows where
            # all of them are unlikely nor divides by 0 where there are none.
            chosen = jnp.take_along_axis(logits, taken, axis=-1)
            return jax.nn.softmax(chosen, axis=-1, where=experts >= 0)
        chosen = jnp.take_along_axis(self.scores(logits), taken, axis=-1)
        chosen = jnp.where(experts >= 0, chosen, 0.0)
        if not self.normalise:
            return chosen
        return chosen / jnp.maximum(chosen.sum(axis=-1, keepdims=True), self.least)


@dataclass(frozen=True, repr=False)
class SigmoidScores(Scores):
    """One probability an expert, each on its own (arXiv 2412.19437).

    weight_e = s_e, or s_e / (sum of s over the chosen set + eps) where `normalise`,
    with s = sigmoid(logits). Ranks by `log_score(s)`: weights are proportional to s, as
    they are to a softmax's probabilities, whose logarithms differ as logits do.
    """

    normalise: bool = True
    eps: float = 1e-20

    @property
    def normalises(self) -> bool:
        """Whether weights have the same sum, whichever experts are chosen."""
        return self.normalise

    def scores(self, logits: Float[Array, "*N E"]) -> Float[Array, "*N E"]:
        """s."""
        return jax.nn.sigmoid(logits)

    def plain_ranking(self, logits: Float[Array, "*N E"]) -> Float[Array, "*N E"]:
        """log s."""
        return log_score(self.scores(logits))

    def plain_weights(
        self, logits: Float[Array, "*N E"], experts: Int[Array, "*N K"]
    ) -> Float[Array, "*N K"]:
        """The weights without `scale`; float32, as `logits` are."""
        taken = jnp.maximum(experts, 0)
        chosen = jnp.take_along_axis(self.scores(logits), taken, axis=-1)
        chosen = jnp.where(experts >= 0, chosen, 0.0)
        if not self.normalise:
            return chosen
        return chosen / (chosen.sum(axis=-1, keepdims=True) + self.eps)


_LEAST = 1e-6


def log_score(score: Float[Array, "..."]) -> Float[Array, "..."]:
    """log(score), and below 1e-6 its tangent there: finite for every score.

    It increases throughout, so that experts keep their order though a choice bias may
    leave less than nothing of a score.
    """
    line = jnp.log(jnp.float32(_LEAST)) + (score - _LEAST) / _LEAST
    return jnp.where(score < _LEAST, line, jnp.log(jnp.maximum(score, _LEAST)))
