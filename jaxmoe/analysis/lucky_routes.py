"""Which routes made an answer that only one policy gave.

Of an answer drawn by one policy, every route (a layer of a position) is looked at in
two ways: how unlikely it is under another policy, and what the answer loses where that
other policy chooses there instead, all else being as it was.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxmoe.analysis.counterfactual import alternatives, answer_positions
from jaxmoe.analysis.route_weights import route_logprobs
from jaxmoe.analysis.router_pass import Passage
from jaxmoe.analysis.run_texts import run_rows
from jaxmoe.analysis.texts import Row
from jaxmoe.evals.draw import KIND, in_words
from jaxmoe.evals.run import Run, read_run
from jaxmoe.model import Model
from jaxmoe.router.policies import POLICIES, Policy
from jaxmoe.typing import Bool, Float, Int


class LuckyRoute(NamedTuple):
    """One route. position: of the pass; its logits gave `token`. The rest as below."""

    position: int
    layer: int
    token: int
    own: float
    other: float
    loss: float


@dataclass(frozen=True, eq=False)
class LuckyRoutes:
    """Routes of one answer at W positions in X layers.

    positions: int32 [W]. layers: [X]. tokens: int32 [W], that followed. own, other:
    float32 [W, X], log-probability of the route under the policy that drew it and under
    the other one, nats. loss: float32 [W, X], log-probability of what follows less that
    with the other policy's choice, mean over its draws; above 0 the route helped.
    differs: bool [W, X], whether that choice was another one in any draw.
    """

    positions: Int[np.ndarray, "W"]
    layers: tuple[int, ...]
    tokens: Int[np.ndarray, "W"]
    own: Float[np.ndarray, "W X"]
    other: Float[np.ndarray, "W X"]
    loss: Float[np.ndarray, "W X"]
    differs: Bool[np.ndarray, "W X"]

    def ranked(self, by: str = "loss", most: int = 20) -> list[LuckyRoute]:
        """The first routes among those that differ.

        Args:
          by: "loss", the largest first; or "surprise", the least likely under the other
            policy first, of equals those of the largest loss.
        """
        if by not in ("loss", "surprise"):
            raise ValueError(f"by must be 'loss' or 'surprise', found {by!r}")
        keys = (-self.loss,) if by == "loss" else (-self.loss, self.other)
        order = np.lexsort([key.ravel() for key in keys])
        order = [place for place in order.tolist() if self.differs.flat[place]]
        return [self._at(place) for place in order[:most]]

    def _at(self, place: int) -> LuckyRoute:
        w, x = divmod(place, len(self.layers))
        numbers = (float(a[w, x]) for a in (self.own, self.other, self.loss))
        return LuckyRoute(
            int(self.positions[w]), self.layers[x], int(self.tokens[w]), *numbers
        )


def lucky_routes(
    model: Model,
    one: Passage,
    *,
    own: Policy,
    other: Policy,
    key: Any = 0,
    draws: int = 1,
    positions: int | None = None,
    reach: int | None = None,
) -> LuckyRoutes:
    """What each route of an answer was worth against another policy's.

    Args:
      one: an answer with recorded routes, of two tokens at least: the first one's are
        chosen without noise.
      own: the policy that drew it. other: the one that did not find it.
      draws: of the other policy at each route; 1 says all of one without noise.
      positions: at most so many, evenly spread; None for all.
      reach: tokens that count; None for the rest of the answer.

    Raises:
      ValueError: as of `jaxmoe.analysis.counterfactual.alternatives`.
    """
    of_own, of_other = route_logprobs(model, one, [own, other])
    # The first token's route is the prompt's last, which no policy draws.
    where, layers = answer_positions(one, positions, first=1), model.config.moe_layers
    found = alternatives(
        model,
        one,
        where.tolist(),
        policy=other,
        key=key,
        draws=draws,
        layers=layers,
        reach=reach,
        hold=True,
    )
    columns = np.array(layers)
    taken = np.sort(found.routes[:, columns], axis=-1)  # [W, X, K]
    others = np.stack(
        [np.sort(found.others[:, x, :, l], axis=-1) for x, l in enumerate(layers)], 1
    )
    after = [] if one.following is None else [one.following]
    return LuckyRoutes(
        where,
        layers,
        np.append(one.tokens, after).astype(np.int32)[where + 1],
        of_own[where][:, columns],
        of_other[where][:, columns],
        -found.utility.mean(axis=2),
        (others != taken[:, :, None]).any(axis=(2, 3)),
    )


# -- answers of two runs -----------------------------------------------------------


def solved_by_one(first: Run, second: Run) -> tuple[str, ...]:
    """Problems that both runs have, and only the first one solved, in its order."""
    failed = {
        name: not right.any()
        for name, right in zip(second.ids, second.correct, strict=True)
    }
    return tuple(
        name
        for name, right in zip(first.ids, first.correct, strict=True)
        if right.any() and failed.get(name, False)
    )


def lucky_rows(path: Path, against: Path, digest: str, find_task: Any) -> list[Row]:
    """The right answers of a run to problems that another run never solved.

    Args:
      path, digest, find_task: as of `jaxmoe.analysis.run_texts.run_rows`.
      against: the other run.

    Raises:
      ValueError: no such problem, or answers without tokens and routes.
    """
    run, other = (read_run(p, partial=True) for p in (path, against))
    only = solved_by_one(run, other)
    if not only:
        raise ValueError(
            f"expected problems that {run.name} solved and {other.name} did not, found "
            "none; name other runs, or with more answers"
        )
    rows = dict(zip(run.ids, run_rows(path, digest, find_task), strict=True))
    right = dict(zip(run.ids, run.correct, strict=True))
    if not all(rows[name].routes for name in only):
        raise ValueError(
            f"{run.name} has no routes of this checkpoint beside its answers; draw it "
            "anew with evaluate --keep-routes --keep-tokens"
        )
    return [_right(rows[name], right[name]) for name in only]


def _right(row: Row, right: Bool[np.ndarray, "n"]) -> Row:
    """The row with its right answers alone."""
    keep = np.flatnonzero(right).tolist()
    return replace(
        row,
        answers=tuple(row.answers[i] for i in keep),
        routes=tuple(row.routes[i] for i in keep),
    )


def policy_of_run(run: Run) -> Policy:
    """The policy that a run's manifest describes.

    Raises:
      ValueError: one that cannot be made of its description: of your own, or with
        numbers of which only a digest was kept.
    """
    described = run.manifest.get("policy")
    kinds = {cls.__name__: cls for cls in POLICIES.values()}
    known = isinstance(described, Mapping) and described.get(KIND) in kinds
    if not known:
        raise ValueError(
            f"{run.name} was drawn by {in_words(described)}, which cannot be made of "
            f"its description; expected one of {', '.join(kinds)}"
        )
    assert isinstance(described, Mapping)
    cls = kinds[described[KIND]]
    names = {item.name for item in fields(cls)}
    values = {n: v for n, v in described.items() if n in names}
    as_array = lambda v: np.array(v) if isinstance(v, list) else v  # noqa: E731
    return cls(**{name: as_array(value) for name, value in values.items()})
