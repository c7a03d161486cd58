"""Several routes a token, whose next-token probabilities are averaged."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from jaxmoe.router.policies import Policy, require_one_pass
from jaxmoe.typing import Array, Float, Int, pytree

MOST_ROUTES = 64
"""Of a token: so many times the rows of a step, and the width of recorded routes."""


@pytree("routes")
@dataclass(frozen=True)
class RouteEnsemble(Policy):
    """J routes a token by another policy, their next-token probabilities averaged.

    RoE, Roster of Experts (arXiv 2509.17238, section 2):

        p(v | x_1..t) = 1/J sum_j softmax(z_j)_v,    z_j = logits(x_t, route j | C)

    Route j is drawn by `policy` with noise of its own
    (`jaxmoe.random.keys.ensemble_keys`). C is one clean cache: keys and values, latents
    or memories of x_1..t-1 as a pass without noise leaves them, which is the J + 1st
    pass of each token; what route j computes of position t itself only route j sees.
    RoE's policy is `GumbelTopK(tau)`, tau one a layer.

    A token costs J + 1 passes: its experts and projections have J + 1 rows, and the
    vocabulary J; the cache is as large as of one. The first token of an answer comes of
    the prompt's pass, which has no noise, under every policy. Where route j is the
    model's own, as with `TopK()` or tau = 0, so is the answer; J = 1 is `policy` but
    for the cache. Log-probabilities and certainties are those of the averaged
    distribution. Recorded routes have J K places, those of route 1 first (-1 in all
    others for the token of the prompt's pass); their log-probability is that of all.

    policy: draws each route.
    routes: J, 1..64; the first routes of a larger J are those of a smaller.
    """

    policy: Policy
    routes: int = field(default=8)

    @property
    def noisy(self) -> bool:
        """As the policy within."""
        return self.policy.noisy

    @property
    def width(self) -> int:
        """J K, places for the experts of all routes."""
        return self.routes * self.policy.width

    @property
    def of_pass(self) -> Policy:
        """What draws one route."""
        return self.policy

    @property
    def passes(self) -> int:
        """J + 1: each route, and the pass that the cache is of."""
        return self.routes + 1

    def resolve(self, *, k: int, num_experts: int, num_layers: int) -> "RouteEnsemble":
        """See `Policy`."""
        whole = self.routes == int(self.routes)
        if not whole or not 1 <= self.routes <= MOST_ROUTES:
            raise ValueError(
                f"policy: routes must be a whole number in 1..{MOST_ROUTES}, found "
                f"{self.routes}"
            )
        within = require_one_pass(self.policy, "RouteEnsemble")
        fit = {"k": k, "num_experts": num_experts, "num_layers": num_layers}
        return replace(self, policy=within.resolve(**fit), routes=int(self.routes))

    def check_layers(self, layers: Sequence[int]) -> None:
        """See `Policy`: as the policy within."""
        self.policy.check_layers(layers)

    def deterministic(self, num_layers: int) -> Policy:
        """See `Policy`: what routes the pass that the cache is of."""
        return self.policy.deterministic(num_layers)

    def choose(
        self, ranking: Float[Array, "E"], noise: Float[Array, "E"] | None
    ) -> Int[Array, "K"]:
        """Not of an ensemble: `jaxmoe.decode.ensemble` has its step."""
        raise NotImplementedError("one pass has one route; see `of_pass`")

    @property
    def has_log_probability(self) -> bool:
        """As the policy within."""
        return self.policy.has_log_probability
