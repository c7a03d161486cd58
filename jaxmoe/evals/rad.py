"""RAD: of n answers the one whose routes, where it opens, agree best with others.

With w_t(l, e) the weight of expert e in layer l at token t, 0 where it was not chosen:

    r_i(l, e) = mean over the W tokens from the anchor of answer i on of w_t(l, e)
    J(i, j)   = sum_le min(r_i, r_j) / sum_le max(r_i, r_j)       weighted Jaccard
    d_i       = mean of the K largest J(i, j), j != i             density

and the answer of the largest d_i is taken. No text is read or compared, so it works
where answers cannot be voted on, and a dense crowd of wrong answers wins as it does in
a vote. The anchor is where the answer opens, such as the last "\\boxed{".

Source: Chen et al. 2026 (arXiv 2606.22798), "Routing Agreement Decoding", from its
abstract and the authors' page: a fixed anchor, routing weights averaged over a short
window, the centre of the densest weighted-Jaccard K-NN neighbourhood. The formulas
above are our reading of that. Not known to us: W, K, how layers count, how ties and
answers without an anchor are treated. Here layers count alike, ties are shared
(`jaxmoe.evals.votes.best_of_n`), and such answers are unknown, which counts as the
lowest. Runs keep which experts were chosen and not how much each weighed: their weights
are then equal, which is another form than the paper's.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Integer

from jaxmoe.evals.records import Record
from jaxmoe.evals.run import Run, routes_of

WINDOW = 8
"""W, tokens: ours."""


def route_profile(
    routes: Integer[np.ndarray, "T L K"],
    start: int,
    *,
    window: int = WINDOW,
    experts: int,
    weights: Float[np.ndarray, "T L K"] | None = None,
) -> Float[np.ndarray, "F"]:
    """r of one answer, F = L E values, layers one after the other.

    Args:
      routes: experts of each token; -1 in dense layers, which count for nothing.
      start: the anchor's token.
      experts: E.
      weights: of the chosen experts; None for one over their number each, which may
        be less than K.
    """
    some = routes[start : start + window]
    tokens, layers, _ = some.shape
    there = some >= 0
    if weights is None:
        chosen = np.maximum(1, there.sum(axis=-1, keepdims=True))
        given = np.broadcast_to(1 / chosen, some.shape)
    else:
        given = weights[start : start + window]
    layer = np.broadcast_to(np.arange(layers)[:, None], some.shape)
    place = (layer * experts + some)[there]
    return np.bincount(place, given[there], layers * experts) / max(1, tokens)


def weighted_jaccard(
    profiles: Float[np.ndarray, "n F"],
) -> Float[np.ndarray, "n n"]:
    """J of each pair; two profiles of nothing agree in nothing."""
    n = len(profiles)
    found = np.zeros((n, n))
    total = profiles.sum(axis=1)
    for i, own in enumerate(profiles):
        # max(a, b) = a + b - min(a, b)
        common = np.minimum(own, profiles).sum(axis=1)
        either = total[i] + total - common
        found[i] = np.divide(common, either, where=either > 0, out=np.zeros(n))
    return found


def density(
    profiles: Float[np.ndarray, "n F"], neighbours: int
) -> Float[np.ndarray, "n"]:
    """d of each answer; of all others where there are fewer than K. One alone has 0."""
    agree = weighted_jaccard(profiles)
    np.fill_diagonal(agree, -np.inf)
    nearest = np.sort(agree, axis=1)[:, ::-1][:, : min(neighbours, len(agree) - 1)]
    return nearest.mean(axis=1) if nearest.size else np.zeros(len(agree))


def route_agreement(
    run: Run,
    *,
    anchor: Sequence[int] = (),
    window: int = WINDOW,
    neighbours: int | None = None,
) -> Float[np.ndarray, "P n"]:
    """d of each answer of a run that kept routes: a score for best-of-n.

    Args:
      anchor: token ids after whose last occurrence the answer opens, such as
        `model.encode("\\boxed{")`, in a run that kept tokens; answers without are nan.
        None of them: answers open with their first token.
      window: W.
      neighbours: K; None for a quarter of the answers.

    Raises:
      ValueError: routes, or with an anchor tokens, were not kept.
    """
    scores = np.full((len(run.ids), run.n), np.nan)
    count = neighbours or max(1, run.n // 4)
    for problem, records in enumerate(run.records):
        starts = [_start(record, anchor) for record in records]
        opened = [i for i, start in enumerate(starts) if start is not None]
        routes = {i: routes_of(records[i]) for i in opened}
        if not opened:
            continue
        experts = 1 + max(int(found.max(initial=0)) for found in routes.values())
        profiles = [
            route_profile(routes[i], starts[i] or 0, window=window, experts=experts)
            for i in opened
        ]
        scores[problem, opened] = density(np.stack(profiles), count)
    return scores


def _start(record: Record, anchor: Sequence[int]) -> int | None:
    """The token with which the answer opens; None where there is none."""
    if not anchor:
        return 0
    if record.tokens is None:
        raise ValueError(
            f"an anchor needs tokens, found none kept for answer {record.sample} to "
            f"problem {record.problem!r}; draw the run anew with --keep-tokens"
        )
    size, tokens = len(anchor), record.tokens
    places = range(len(tokens) - size - 1, -1, -1)
    wanted = tuple(anchor)
    return next((i + size for i in places if tokens[i : i + size] == wanted), None)
