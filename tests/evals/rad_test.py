"""RAD against its formulas written out, and on runs with two crowds of routes."""

from dataclasses import replace

import numpy as np
import pytest

from jaxmoe.evals.rad import density, route_agreement, route_profile
from jaxmoe.evals.run import pack_routes, routes_of
from jaxmoe.evals.summary import scores_of, values_of
from tests.evals.compare_test import RIGHT, run_of

E = 6


def reference(routes, weights, starts, window, neighbours):
    """d of each answer, in loops; routes and weights [n][T, L, K]."""
    profiles = []
    for route, weight, start in zip(routes, weights, starts, strict=True):
        profile, tokens = {}, range(start, min(start + window, len(route)))
        for t in tokens:
            for layer, chosen in enumerate(route[t]):
                for k, expert in enumerate(chosen):
                    if expert >= 0:
                        place = layer, int(expert)
                        share = weight[t, layer, k] / len(tokens)
                        profile[place] = profile.get(place, 0.0) + share
        profiles.append(profile)

    def jaccard(a, b):
        both = a.keys() | b.keys()
        low = sum(min(a.get(p, 0), b.get(p, 0)) for p in both)
        return low / sum(max(a.get(p, 0), b.get(p, 0)) for p in both)

    found = []
    for i, own in enumerate(profiles):
        others = [jaccard(own, p) for j, p in enumerate(profiles) if j != i]
        found.append(np.mean(sorted(others)[::-1][:neighbours]))
    return np.array(found)


def drawn(rng, length, layers=3, chosen=2):
    """Routes of an answer, the first layer dense, and weights that sum to 1."""
    keys = rng.random((length, layers, E))
    routes = np.argsort(keys, axis=2)[..., :chosen].astype(np.int16)
    routes[:, 0] = -1
    weights = rng.random(routes.shape)
    return routes, weights / weights.sum(axis=2, keepdims=True)


def test_a_token_of_fewer_experts_weighs_as_much():
    """Of policies that choose fewer, each expert would count for less."""
    routes = np.array([[[0, 1, -1, -1], [-1] * 4], [[0, 1, 2, 3], [4, -1, -1, -1]]])
    profile = route_profile(routes, 0, experts=E).reshape(2, E)
    np.testing.assert_allclose(profile[0, :4], [0.375, 0.375, 0.125, 0.125])
    np.testing.assert_allclose(profile.sum(axis=1), [1, 0.5])


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("neighbours", [1, 3, 99])
def test_formulas(weighted, neighbours):
    """The densest answer would be another."""
    rng = np.random.default_rng(0)
    routes, weights = zip(*(drawn(rng, int(t)) for t in (9, 5, 3, 7)), strict=True)
    starts = (0, 2, 1, 6)
    profiles = [
        route_profile(r, s, window=4, experts=E, weights=w if weighted else None)
        for r, w, s in zip(routes, weights, starts, strict=True)
    ]
    given = weights if weighted else [np.full(r.shape, 1 / 2) for r in routes]
    wanted = reference(routes, given, starts, 4, neighbours)
    np.testing.assert_allclose(density(np.stack(profiles), neighbours), wanted)


def crowded(answers, lengths=4, tokens=None):
    """A run whose right answers go one way, and all others each a way of its own."""
    rng = np.random.default_rng(1)
    common = drawn(rng, lengths)[0]
    rows = []
    for records in run_of(answers).records:
        row = []
        for r in records:
            routes = common if r.correct else drawn(rng, lengths)[0]
            row.append(replace(r, routes=pack_routes(routes), tokens=tokens))
        rows.append(tuple(row))
    return replace(run_of(answers), records=tuple(rows))


def test_the_densest_crowd_wins():
    """What routes agree on would not be taken, or texts be read for it."""
    answers: list[list[str | None]] = [[RIGHT, "a", "b", RIGHT, "c", RIGHT, "d", "a"]]
    run = crowded(answers * 3)
    values = values_of(run, scores_of(run))
    (name,) = (m for m in values if m.startswith("best of 8, route"))
    assert values[name].tolist() == [1, 1, 1]
    assert not any("route" in name for name in scores_of(run_of(answers)))


def test_anchors():
    """Routes of the reasoning before would be taken for the answer's."""
    run = crowded([[RIGHT, RIGHT, "a"]], tokens=(7, 8, 7, 9))
    free = route_agreement(run)
    assert free[0, 0] == free[0, 1] == 1 > free[0, 2]
    # The last 7 is followed by one token; no answer has 5.
    opened = [route_profile(routes_of(r), 3, experts=E) for r in run.records[0]]
    wanted = density(np.stack(opened), 1)
    np.testing.assert_allclose(route_agreement(run, anchor=(7,))[0], wanted)
    assert np.isnan(route_agreement(run, anchor=(5,))).all()
    assert np.isnan(route_agreement(run, anchor=(9,))).all()  # nothing follows
    with pytest.raises(ValueError, match="keep-tokens"):
        route_agreement(crowded([[RIGHT, "a"]]), anchor=(7,))
    with pytest.raises(ValueError, match="expected routes"):
        route_agreement(run_of([[RIGHT, "a"]]))
