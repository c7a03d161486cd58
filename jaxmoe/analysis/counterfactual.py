"""Counterfactual routes: would other experts have made an answer likelier?

On a given answer, in one layer (or some, or all) of one position, the experts are
replaced by equally many that a policy draws, M times. What that is worth is

    utility = log p(next token | other experts) - log p(next token | own experts)

in nats, p the model's own distribution and the next token the one that is there; or the
same of all tokens in reach. By layer, and by how uncertain the token is: the entropy of
the next token under the own route, which, unlike the probability of the token that
came, says nothing of how lucky the own route was.

Source: Yoon, Wang, Chen and Ok 2026, "When are experts misrouted?" (arXiv 2605.07260).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from operator import index
from typing import Any, Literal, NamedTuple, SupportsIndex

import jax
import jax.numpy as jnp
import numpy as np

from jaxmoe.analysis.counterfactual_pass import Changes, Found, Text, compare_routes
from jaxmoe.analysis.jackknife import jackknife
from jaxmoe.analysis.router_pass import Passage, check_passage, require_routers
from jaxmoe.decode.cache import bucket
from jaxmoe.decode.inputs import check_whole
from jaxmoe.decode.prefill import prompt_bucket
from jaxmoe.evals.metrics import Interval
from jaxmoe.model import Model
from jaxmoe.random.keys import as_key, prompt_key, sample_keys
from jaxmoe.router.policies import ExpertSample, Policy, for_model
from jaxmoe.typing import Array, Float, Int

EDGES = (0.01, 0.1, 0.5, 1.0, 2.0)
"""Nats of the next token's entropy, between which tokens are counted together."""

SLOTS = 64
"""Alternatives that are computed side by side, at most."""

Layers = SupportsIndex | Literal["all"] | Sequence[SupportsIndex]
"""Layers that are changed together."""


class Sums(NamedTuple):
    """Sums over tokens by set of layers and by uncertainty, [G, B].

    tokens: how many. utility: of the mean of M. best: of the best of M. better: of the
    share of M that are above 0. found: tokens of which the best is above 0. mixed: of
    log mean exp over M, what the mean of the M distributions gives. logprob: by the own
    route. cross, of_score, of_utility: of the products and squares of deviations from
    the token's own mean over M, of the router's score and the utility.
    """

    tokens: Any
    utility: Any
    best: Any
    better: Any
    found: Any
    mixed: Any
    logprob: Any
    cross: Any
    of_score: Any
    of_utility: Any


@dataclass(frozen=True, eq=False)
class Counterfactuals:
    """What other routes were worth, of every answer.

    names: of the G sets of layers. draws: M. reach: tokens that count, None for all.
    policy: that drew the alternatives. groups: what is alike among answers: the prompt.
    sums: `Sums` of float64 [answers, G, B]; B is one more than `EDGES`.
    """

    names: tuple[str, ...]
    draws: int
    reach: int | None
    policy: Policy
    groups: tuple[bytes, ...]
    sums: Sums

    def tokens(self, name: str, at: int | None = None) -> int:
        """Positions that were changed."""
        return int(self._of("tokens", name, at).sum())

    def mean(self, measure: str, name: str, at: int | None = None) -> Interval:
        """A sum of `Sums` over its tokens, with an interval over prompts.

        Args:
          measure: a field of `Sums`, such as "utility".
          name: of a set of layers.
          at: which bin of uncertainty, 0..B-1; None for all tokens.
        """
        pair = np.stack([self._of(m, name, at) for m in (measure, "tokens")], axis=1)
        return jackknife(_ratio, pair, self.groups)

    def correlation(self, name: str, at: int | None = None) -> Interval:
        """Of the router's score with the utility, among the alternatives of a token.

        1: the router knows which of them is best; 0: it says nothing of that. Pooled
        over tokens; nan where alternatives do not differ.
        """
        parts = ("cross", "of_score", "of_utility")
        three = np.stack([self._of(m, name, at) for m in parts], axis=1)
        return jackknife(_correlation, three, self.groups)

    def _of(self, measure: str, name: str, at: int | None) -> np.ndarray:
        array = getattr(self.sums, measure)[:, self.names.index(name)]
        return array.sum(axis=1) if at is None else array[:, at]


@dataclass(frozen=True, eq=False)
class Importance:
    """What each expert is worth where it was chosen: log-probability lost without it.

    layers: of the model, X with experts. loss: float64 [answers, X, E], sums over
    tokens, nats. count: of the tokens that had it, [answers, X, E]. by_rank: [answers,
    X, K], the same sums by the expert's place in the route, the best first, of `tokens`
    [answers] tokens. groups: as of `Counterfactuals`.
    """

    layers: tuple[int, ...]
    loss: Float[np.ndarray, "P X E"]
    count: Float[np.ndarray, "P X E"]
    by_rank: Float[np.ndarray, "P X K"]
    tokens: Float[np.ndarray, "P"]
    groups: tuple[bytes, ...]

    def expert(self, layer: int, expert: int) -> Interval:
        """Mean loss of a token that has this expert and goes without; nan if none."""
        place = self.layers.index(layer)
        pair = [a[:, place, expert] for a in (self.loss, self.count)]
        return jackknife(_ratio, np.stack(pair, axis=1), self.groups)

    def rank(self, layer: int, rank: int) -> Interval:
        """Mean loss without the expert of a rank, 0 the best."""
        pair = [self.by_rank[:, self.layers.index(layer), rank], self.tokens]
        return jackknife(_ratio, np.stack(pair, axis=1), self.groups)

    @property
    def means(self) -> Float[np.ndarray, "X E"]:
        """Mean loss of every expert; nan where none was chosen."""
        count = self.count.sum(axis=0)
        return np.where(count > 0, self.loss.sum(axis=0) / np.maximum(count, 1), np.nan)


def counterfactual(
    model: Model,
    passages: Iterable[Passage],
    *,
    policy: Policy | None = None,
    key: Any = 0,
    draws: int = 8,
    layers: Sequence[Layers] | None = None,
    positions: int | None = None,
    reach: int | None = 1,
    hold: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Counterfactuals:
    """Alternatives to the routes of answers, drawn by a policy.

    The own route is what the passage has recorded, and the model's top-k where it has
    none. Of every changed position T the model computes M + 1 rows for each 64 / M sets
    of layers, which read the states before T and share them; with recurrent mixers also
    all T positions before it anew.

    Args:
      passages: with an answer each; a generator may make them.
      policy: draws the alternatives; None for `ExpertSample()`. It chooses as many
        experts as the model does: equal compute.
      key: alternative m of passage j is drawn as sample m of prompt j is
        (`jaxmoe.keys`).
      draws: M.
      layers: sets of layers to change, each at once: layers, or "all"; None for every
        layer with experts alone, and then all at once.
      positions: at most so many of each answer, evenly spread; None for all.
      reach: how many tokens count, from the next one on; None for the rest of the
        answer, which takes as many steps more.
      hold: keep the own experts in all other layers, and at later positions. False
        lets routers choose anew there, but where the passage has recorded routes.
      progress: called with the number of passages done.

    Raises:
      ValueError: a model without experts or on a mesh, a policy of another number of
        experts, or passages that do not fit the model or have no answer.
    """
    require_routers(model, "counterfactual routes")
    resolved = _as_wide(model, ExpertSample() if policy is None else policy)
    asked = _Asked(model, resolved, _sets(model, layers), draws, reach, hold)
    total, groups = [], []
    for j, one in enumerate(passages):
        where = answer_positions(one, positions)
        keys = sample_keys(prompt_key(as_key(key), j), check_whole("draws", draws))
        found, there = asked.run(one, where, jax.random.key_data(keys))
        total.append(jax.device_get(_summed(found, there)))
        groups.append(_group(one))
        if progress is not None:
            progress(j + 1)
    names = tuple(name for name, _ in asked.sets)
    sums = _stacked(total, len(names))
    return Counterfactuals(names, draws, reach, resolved, tuple(groups), sums)


def alternatives(
    model: Model,
    one: Passage,
    positions: Sequence[int],
    *,
    policy: Policy,
    key: Any = 0,
    draws: int = 8,
    layers: Sequence[Layers] | None = None,
    reach: int | None = 1,
    hold: bool = False,
) -> Found:
    """As `counterfactual` of one passage at given positions: all numbers, and routes.

    Position p is the pass over token p, which predicts token p + 1. `others` of the
    result are the routes that were tried: with them as routes of position p `forward`
    gives the log-probability that is the utility plus `logprob`.

    Args:
      key: alternative m is drawn with `jaxmoe.keys.sample_key(key, m)`.
    """
    require_routers(model, "counterfactual routes")
    resolved = _as_wide(model, policy)
    asked = _Asked(model, resolved, _sets(model, layers), draws, reach, hold)
    keys = sample_keys(as_key(key), check_whole("draws", draws))
    where = np.array([index(position) for position in positions], np.int32)
    found, _ = asked.run(one, where, jax.random.key_data(keys), keep=True)
    count, sets = len(where), len(asked.sets)
    cut = lambda a: np.asarray(a)[:count]  # noqa: E731
    found = jax.tree.map(cut, found)
    by_set = {n: getattr(found, n)[:, :sets] for n in ("utility", "score", "others")}
    return found._replace(**by_set)


def ablate(
    model: Model,
    passages: Iterable[Passage],
    *,
    positions: int | None = None,
    reach: int | None = 1,
    hold: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Importance:
    """Each expert of each route left out, one at a time.

    The others of its layer weigh what the model's rule gives them where there are no
    more: of a rule that normalises all of the weight, else their own share.

    Args:
      passages, positions, reach, hold, progress: as of `counterfactual`.
    """
    require_routers(model, "counterfactual routes")
    config = model.config
    sets = [(str(layer), [layer]) for layer in config.moe_layers]
    if config.experts_per_token < 2:
        raise ValueError(
            "leaving one expert out needs routes of two or more, found a model of "
            f"{config.experts_per_token} an expert a token"
        )
    asked = _Asked(model, None, sets, config.experts_per_token, reach, hold)
    no_keys = jnp.zeros((config.experts_per_token, 2), jnp.uint32)
    total, groups = [], []
    for j, one in enumerate(passages):
        found, there = asked.run(one, answer_positions(one, positions), no_keys)
        part = _importance(found, there, config.moe_layers, config.num_experts)
        total.append([np.asarray(a, np.float64) for a in jax.device_get(part)])
        groups.append(_group(one))
        if progress is not None:
            progress(j + 1)
    if not total:
        raise ValueError("importance needs answers, found no passages; pass some")
    loss, count, by_rank, tokens = (np.stack(part) for part in zip(*total, strict=True))
    return Importance(config.moe_layers, loss, count, by_rank, tokens, tuple(groups))


def answer_positions(
    one: Passage, most: int | None = None, *, first: int = 0
) -> Int[np.ndarray, "W"]:
    """The passes that predict an answer's tokens, at most `most`, evenly spread.

    first: the answer's token from which on they count.

    Raises:
      ValueError: no such token.
    """
    start = one.prompt_length - 1
    every = np.arange(start + first, len(_targets(one)), dtype=np.int32)
    if not len(every):
        alone = f"a passage of a prompt alone, {one.prompt_length} tokens"
        raise ValueError(
            f"counterfactual routes need an answer of {first + 1} tokens at least that "
            f"are predicted, found {alone if len(_targets(one)) <= start else 'fewer'}"
            "; give a longer answer, or a shorter prompt_length"
        )
    if most is None or len(every) <= check_whole("positions", most):
        return every
    return every[np.linspace(0, len(every) - 1, most).round().astype(int)]


def _targets(one: Passage) -> np.ndarray:
    """The token after each position, as far as it is known."""
    after = [] if one.following is None else [one.following]
    return np.append(one.tokens[1:], after).astype(np.int32)


def _as_wide(model: Model, policy: Policy) -> Policy:
    """The policy resolved, which must choose as many experts as the model does."""
    resolved = for_model(policy, model.config)
    if resolved.width != model.config.experts_per_token:
        raise ValueError(
            "alternatives must have as many experts as the model's routes, "
            f"{model.config.experts_per_token}, found a policy of {resolved.width}; "
            "leave out its k"
        )
    return resolved


def _group(one: Passage) -> bytes:
    return one.tokens[: one.prompt_length].tobytes()


def _sets(
    model: Model, layers: Sequence[Layers] | None
) -> list[tuple[str, Sequence[int]]]:
    """(name, layers) of each set."""
    moe = model.config.moe_layers
    asked: Sequence[Layers] = [*moe, "all"] if layers is None else layers
    found = []
    for one in asked:
        some = moe if isinstance(one, str) and one == "all" else _indices(one)
        if not len(some):
            raise ValueError(
                f"layers must be sets of at least one layer, found {layers!r}; leave "
                "out the empty ones"
            )
        if wrong := [layer for layer in some if layer not in moe]:
            raise ValueError(
                f"layers must be among those with experts, {list(moe)}, or 'all', "
                f"found {wrong}; leave them out"
            )
        name = one if isinstance(one, str) else "+".join(map(str, some))
        found.append((name, some))
    if not found or len({name for name, _ in found}) < len(found):
        raise ValueError(
            f"layers must be different sets, at least one, found {layers!r}"
        )
    return found


def _indices(one: Any) -> list[int]:
    """A set of layers as Python's numbers, whoever's they are."""
    try:
        return [index(layer) for layer in (one if np.ndim(one) else [one])]
    except TypeError:
        raise ValueError(
            f"layers must be numbers, lists of them, or 'all', found {one!r}"
        ) from None


@dataclass(frozen=True)
class _Asked:
    """What all passages of a call have in common.

    policy: resolved; None takes experts away.
    """

    model: Model
    policy: Policy | None
    sets: Sequence[tuple[str, Sequence[int]]]
    draws: int
    reach: int | None
    hold: bool

    def __post_init__(self) -> None:
        if self.reach is not None:
            check_whole("reach", self.reach)

    def run(
        self,
        one: Passage,
        positions: Int[np.ndarray, "W"],
        key_data: Array,
        *,
        keep: bool = False,
    ) -> tuple[Found, np.ndarray]:
        """What was found, on the device, and which positions [W] count."""
        config = self.model.config
        check_passage(self.model, one, config.experts_per_token)
        targets = _targets(one)
        if not len(positions):
            raise ValueError("positions must be one at least, found none; name some")
        if not ((positions >= 0) & (positions < len(targets))).all():
            raise ValueError(
                f"positions must be in 0..{len(targets) - 1} (a token follows), found "
                f"{positions.min()}..{positions.max()}"
            )
        where = np.full(1 << (len(positions) - 1).bit_length(), -1, np.int32)
        where[: len(positions)] = positions
        reach = len(targets) if self.reach is None else self.reach
        longest = min(reach, len(targets) - int(positions.min()))
        changes = Changes(
            self._layers(), key_data, np.int32(reach), np.bool_(self.hold)
        )
        found = compare_routes(
            config,
            self.model.params,
            self._text(one, targets, where),
            changes,
            self.policy,
            size=bucket(longest),
            keep=keep,
            execution=self.model.execution,
        )
        return found, where >= 0

    def _text(self, one: Passage, targets: np.ndarray, where: np.ndarray) -> Text:
        config, length = self.model.config, len(targets)
        size = prompt_bucket(length)
        tokens, after = np.zeros((2, size), np.int32)
        tokens[:length], after[:length] = one.tokens[:length], targets
        shape = (size, config.num_layers, config.experts_per_token)
        routes = np.full(shape, -1, np.int16)
        if one.routes is not None:
            routes[:length] = one.routes[:length]
        return Text(tokens, after, np.int32(length), routes, where)

    def _layers(self) -> np.ndarray:
        """The sets as bool [C, G, L], filled up with sets of no layer."""
        chunks = -(-len(self.sets) // max(1, SLOTS // self.draws))
        size = -(-len(self.sets) // chunks)
        found = np.zeros((chunks * size, self.model.config.num_layers), bool)
        for row, (_, layers) in zip(found, self.sets, strict=False):
            row[list(layers)] = True
        return found.reshape(chunks, size, -1)


# -- sums, on the device -----------------------------------------------------------


@jax.jit
def _summed(found: Any, there: Array) -> Sums:
    """`Found` of one answer, summed over the positions that are there."""
    utility, score = found.utility, found.score
    place = jnp.searchsorted(jnp.array(EDGES), found.entropy, side="right")
    bins = jax.nn.one_hot(place, len(EDGES) + 1) * there[:, None]  # [W, B]
    apart = lambda a: a - a.mean(axis=2, keepdims=True)  # noqa: E731
    mixed = jax.nn.logsumexp(utility, axis=2) - jnp.log(utility.shape[2])
    best = utility.max(axis=2)
    every = Sums(
        jnp.ones(best.shape),
        utility.mean(axis=2),
        best,
        (utility > 0).mean(axis=2),
        (best > 0).astype(jnp.float32),
        mixed,
        jnp.broadcast_to(found.logprob[:, None], best.shape),
        (apart(utility) * apart(score)).sum(axis=2),
        (apart(score) ** 2).sum(axis=2),
        (apart(utility) ** 2).sum(axis=2),
    )
    by_bin = lambda a: jnp.einsum("wg,wb->gb", a, bins, precision="highest")  # noqa: E731
    return jax.tree.map(by_bin, every)


def _stacked(total: list[Sums], sets: int) -> Sums:
    """Of all answers, in float64, without the sets that filled up a chunk."""
    if not total:
        raise ValueError(
            "counterfactual routes need answers, found no passages; pass some"
        )
    wide = lambda *parts: np.stack(parts).astype(np.float64)[:, :sets]  # noqa: E731
    return jax.tree.map(wide, *total)


@partial(jax.jit, static_argnames=("layers", "experts"))
def _importance(
    found: Any, there: Array, layers: tuple[int, ...], experts: int
) -> tuple[Array, Array, Array, Array]:
    """loss [X, E], count [X, E], by_rank [X, K] and tokens [] of one answer."""
    routes = found.routes[:, jnp.array(layers)].astype(jnp.int32)  # [W, X, K]
    loss = -found.utility[:, : len(layers)] * there[:, None, None]
    here = jax.nn.one_hot(routes, experts) * there[:, None, None, None]
    return (
        jnp.einsum("wxk,wxke->xe", loss, here, precision="highest"),
        here.sum(axis=(0, 2)),
        loss.sum(axis=0),
        there.sum().astype(jnp.float32),
    )


def _ratio(sums: np.ndarray) -> float:
    return float(sums[0] / sums[1]) if sums[1] else float("nan")


def _correlation(sums: np.ndarray) -> float:
    cross, of_score, of_utility = sums
    product = of_score * of_utility
    return float(cross / np.sqrt(product)) if product > 0 else float("nan")
