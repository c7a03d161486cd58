"""How likely recorded routes are under policies: exact importance weights between two.

An answer and its routes, drawn by a policy B, are worth under a policy A

    w = prod over tokens and layers of P_A(route) / P_B(route)

as much as they are drawn more often by A than by B: with the routes given, tokens have
one and the same distribution under both, and cancel. Each P is the law of the set of
experts (`Policy.log_probability`), of what the router scored in one pass over the text
with these routes; so both policies are asked about the same scores.

The route at the prompt's last position, whose logits give the answer's first token, is
chosen without noise under every policy, unless prompts are routed with noise too: its
log-probability is 0, as `jaxmoe.sample` records it.
"""

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxmoe.analysis.router_pass import (
    Passage,
    check_passage,
    padded,
    require_routers,
)
from jaxmoe.config import ModelConfig
from jaxmoe.decode.prefill import run_sequences
from jaxmoe.decode.program import program
from jaxmoe.execution import Execution
from jaxmoe.model import Model
from jaxmoe.nn.base import Context
from jaxmoe.nn.decoder import bind
from jaxmoe.router.policies import Policy, TopK, for_model
from jaxmoe.router.routing import every_route_logprob
from jaxmoe.sharding.collectives import DeviceContext
from jaxmoe.typing import Array, Bool, Float, Int, Params


@dataclass(frozen=True, eq=False)
class RouteWeights:
    """Log weights between two policies, of P answers.

    tokens: of each answer float64 [T], of the routes of each of its passes, nats: log
    P_A - log P_B; 0 where nothing was recorded. layers: float64 [T, L], of each layer.
    -inf: A never takes that route. nan: B never takes it, but A may, so that B has not
    drawn it; see `impossible`.
    impossible: of each answer, routes (a layer of a token) that B cannot take.
    """

    tokens: tuple[Float[np.ndarray, "_"], ...]
    layers: tuple[Float[np.ndarray, "_ L"], ...]
    impossible: tuple[int, ...]

    @property
    def answers(self) -> Float[np.ndarray, "P"]:
        """log w of each answer, nats."""
        return np.array([one.sum() for one in self.tokens], np.float64)

    @property
    def effective(self) -> float:
        """Effective sample size, (sum w)^2 / sum w^2: from 1 to P; 0 if all w are 0.

        nan with a weight that is none. Source: Kong 1992, "A note on importance
        sampling using standardized weights".
        """
        return effective_size(self.answers)

    def normalised(self) -> Float[np.ndarray, "P"]:
        """w of each answer over the sum of them, for means under A."""
        log_w = self.answers
        if not np.isfinite(log_w).any():
            return np.full(len(log_w), np.nan)
        w = np.exp(log_w - log_w.max())
        return w / w.sum()


def effective_size(log_weights: Float[np.ndarray, "P"]) -> float:
    """(sum w)^2 / sum w^2 of log w, whatever their scale."""
    if np.isnan(log_weights).any():
        return float("nan")
    if not np.isfinite(log_weights).any():
        return 0.0
    w = np.exp(log_weights - log_weights.max())
    return float(w.sum() ** 2 / (w**2).sum())


def route_weights(
    model: Model,
    passages: Iterable[Passage],
    *,
    target: Policy,
    behaviour: Policy,
    noisy_prefill: bool = False,
) -> RouteWeights:
    """Importance weights of recorded routes.

    Equal policies have weights of 0, exactly, as have layers whose route is as likely
    under both.

    Args:
      passages: with recorded routes.
      target: A. behaviour: B, by which the routes were drawn.
      noisy_prefill: as they were drawn: whether prompts were routed with noise.

    Raises:
      ValueError: passages without routes, policies of another number of experts, or
        without a law of their sets.

    Warns:
      UserWarning: routes that B cannot take. A pass over the whole text rounds
        otherwise than the steps that drew it, so that of two nearly equal experts the
        other one may rank first; more than a few mean another policy or checkpoint.
    """
    tokens, layers, impossible = [], [], []
    for one in passages:
        of_target, of_behaviour = route_logprobs(
            model, one, [target, behaviour], noisy_prefill=noisy_prefill
        )
        log_w = log_ratio(of_target, of_behaviour)
        layers.append(log_w)
        tokens.append(log_w.sum(axis=1))
        impossible.append(int(np.isneginf(of_behaviour).sum()))
    if not tokens:
        raise ValueError("weights need answers with routes, found no passages")
    if sum(impossible):
        warnings.warn(
            f"{sum(impossible)} routes (a layer of a token) cannot be the behaviour "
            "policy's; name the policy and the checkpoint that drew them",
            stacklevel=2,
        )
    return RouteWeights(tuple(tokens), tuple(layers), tuple(impossible))


def log_ratio(
    target: Float[np.ndarray, "*T"], behaviour: Float[np.ndarray, "*T"]
) -> Float[np.ndarray, "*T"]:
    """log A - log B of log-probabilities; 0 where they are equal, -inf included."""
    a, b = (np.asarray(array, np.float64) for array in (target, behaviour))
    found = np.where(np.isneginf(b), np.nan, a - np.where(np.isneginf(b), 0.0, b))
    return np.where(a == b, 0.0, found)


def route_logprobs(
    model: Model,
    one: Passage,
    policies: Sequence[Policy],
    *,
    noisy_prefill: bool = False,
) -> list[Float[np.ndarray, "T L"]]:
    """Log-probability of each recorded route under policies, nats, one array each.

    0 in dense layers, where nothing was recorded and, unless `noisy_prefill`, at the
    prompt's positions, which are routed without noise.
    """
    require_routers(model, "log-probabilities of routes")
    config = model.config
    if one.routes is None:
        raise ValueError(
            "log-probabilities of routes need recorded ones, found a passage without; "
            "draw with return_routes=True, or evaluate with --keep-routes"
        )
    width = one.routes.shape[2]
    resolved = tuple(for_model(policy, config) for policy in policies)
    for policy in resolved:
        if policy.width != width:
            raise ValueError(
                f"policies must have as many experts as the routes, {width}, found "
                f"{type(policy).__name__} of {policy.width}; pass its k"
            )
        if not policy.has_log_probability:
            raise ValueError(
                f"{type(policy).__name__} has no log_probability of its routes; "
                "implement it, or pass another policy"
            )
    check_passage(model, one, width)
    length, (tokens, routes) = len(one.tokens), padded(one)
    found = _logprobs(
        config,
        model.params,
        tokens,
        np.int32(length),
        routes,
        resolved,
        execution=model.execution,
    )
    drawn = np.arange(length)[:, None] >= (0 if noisy_prefill else one.prompt_length)
    return [np.where(drawn, np.asarray(array)[:length], 0) for array in found]


@program(static_argnames=("config", "execution"))
def _logprobs(
    config: ModelConfig,
    params: Params,
    tokens: Int[Array, "T"],
    length: Int[Array, ""],
    routes: Int[Array, "T L K"],
    policies: Any,
    *,
    execution: Execution,
) -> list[Float[Array, "T L"]]:
    """Of each policy; routes of one pass, taken where given."""
    context = Context(execution, DeviceContext(execution.layout))
    own = TopK(places=routes.shape[2])
    passed = run_sequences(
        bind(config, params, context),
        tokens[None],
        length[None],
        context,
        policy=for_model(own, config),
        keys=None,
        routes=routes,
        keep_rankings=True,
    )
    recorded: Bool[Array, "T L"] = routes[..., 0] >= 0
    layers = config.moe_layers
    every = jnp.ones(len(tokens), bool)

    def of_policy(policy: Policy) -> Array:
        found = every_route_logprob(policy, layers, passed.rankings, routes, every)
        return jnp.where(recorded, found, 0.0)

    return [of_policy(policy) for policy in policies]
