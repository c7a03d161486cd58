"""What every policy must keep to: defaults, exact limits, head, range and order."""

import itertools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.router.policies import (
    AdaptiveHead,
    Dropout,
    ExpertSample,
    GumbelTopK,
    Policy,
    TopK,
    TopP,
    ranked,
)
from jaxmoe.router.routing import choose_experts

E, K, N = 16, 4, 64
FIT = {"k": K, "num_experts": E, "num_layers": 1}
NOISY = [ExpertSample(), GumbelTopK(), AdaptiveHead()]
KINDS = ["random", "tied", "all equal", "steep"]
policies = pytest.mark.parametrize("policy", NOISY, ids=lambda p: type(p).__name__)
rankings = pytest.mark.parametrize("kind", KINDS)


def _ranking(kind: str) -> jax.Array:
    """N rows of router logits; "tied" has few distinct values."""
    rows = np.random.default_rng(KINDS.index(kind)).normal(size=(N, E)) * 2
    if kind == "tied":
        rows = np.round(rows)
        assert (np.signbit(rows) & (rows == 0)).any()  # -0.0 ties with 0.0
    if kind == "all equal":
        rows = np.zeros_like(rows)
    return jnp.asarray(rows * (40 if kind == "steep" else 1), jnp.float32)


NOISE = jnp.asarray(np.random.default_rng(9).gumbel(size=(N, E)), jnp.float32)


@jax.jit
def _choose(policy, ranking, noise):
    return choose_experts(policy.at_layer(0), ranking, noise)


def _experts(policy: Policy, ranking, noise=NOISE) -> np.ndarray:
    return np.asarray(_choose(policy.resolve(**FIT), ranking, noise))


def _best(ranking) -> np.ndarray:
    """Experts by rank, the first of equals first."""
    return np.argsort(-np.asarray(ranking), axis=1, kind="stable")


def _ranks(ranking) -> np.ndarray:
    """Rank of each expert."""
    return np.argsort(_best(ranking), axis=1)


@rankings
@pytest.mark.parametrize("count", [1, K, E])
def test_ranked_is_a_stable_sort(kind, count):
    """Equals out of order would change with the number of ranks looked at."""
    ranking = _ranking(kind)
    found = jax.vmap(lambda row: ranked(row, count))(ranking)
    best = _best(ranking)[:, :count]
    np.testing.assert_array_equal(found.experts, best)
    np.testing.assert_array_equal(
        found.scores, np.take_along_axis(np.asarray(ranking), best, axis=1)
    )


@pytest.mark.parametrize(
    ("r", "reach"), [(None, 16), (K, 16), (16, 16), (17, 32), (33, 64), (64, 64)]
)
def test_reach_holds_r_and_is_shared(r, reach):
    """Each value of r would compile a program, or ranks below r be cut off."""
    policy = ExpertSample(r=r).resolve(k=K, num_experts=64, num_layers=2)
    assert policy.reach == reach


def test_description_of_a_policy_is_pinned():
    """Files of answers hold it, and would be refused when they are gone on with."""
    plain = "ExpertSample(k_keep=None, r=None, tau=1.0, k=None)"
    assert repr(ExpertSample()) == plain


def test_reach_of_a_traced_r_is_everything():
    """What r will be cannot be seen while tracing: no rank may be left out."""

    @jax.jit
    def drawn(r):
        policy = ExpertSample(k_keep=1, r=r, tau=1.0)
        policy = policy.resolve(k=K, num_experts=E, num_layers=1)
        assert policy.reach == E
        return choose_experts(policy.at_layer(0), _ranking("random"), NOISE)

    for r in (K, E):
        expected = _experts(ExpertSample(k_keep=1, r=r), _ranking("random"))
        np.testing.assert_array_equal(drawn(r), expected)


# -- exact limits --------------------------------------------------------------------


@rankings
def test_top_k_is_the_best_k(kind):
    """The policy the model was trained with, ties by index as `lax.top_k` has them."""
    np.testing.assert_array_equal(
        _experts(TopK(), _ranking(kind)), _best(_ranking(kind))[:, :K]
    )


LIMITS = {
    "k_keep = k": ExpertSample(k_keep=K),
    "k_keep = k, all experts, hot": ExpertSample(k_keep=K, r=E, tau=100.0),
    "r = k": ExpertSample(k_keep=0, r=K, tau=5.0),
    "ExpertSample, tau = 0": ExpertSample(tau=0.0),
    "ExpertSample, no head, tau = 0": ExpertSample(k_keep=0, r=E, tau=0.0),
    "GumbelTopK, tau = 0": GumbelTopK(tau=0.0),
    "AdaptiveHead, tau = 0": AdaptiveHead(tau=0.0),
    "AdaptiveHead, r = k": AdaptiveHead(mass=0.0, r=K, tau=5.0),
    "TopP, k_min = k_max": TopP(0.3, k_min=K, k_max=K),
    "Dropout, q = 0": Dropout(0.0),
}


@rankings
@pytest.mark.parametrize("policy", LIMITS.values(), ids=LIMITS)
def test_degenerate_policies_are_top_k(policy, kind):
    """The paper's method must contain the model itself, exactly, also with ties."""
    ranking = _ranking(kind)
    np.testing.assert_array_equal(_experts(policy, ranking), _experts(TopK(), ranking))


@pytest.mark.parametrize("kind", ["random", "steep"])
def test_a_tau_near_0_is_top_k(kind):
    """Towards 0 the draw settles on the best (where ranks are not tied)."""
    ranking = _ranking(kind)
    chosen = _experts(ExpertSample(k_keep=1, tau=1e-20), ranking)
    np.testing.assert_array_equal(chosen, _experts(TopK(), ranking))


@pytest.mark.parametrize("k", [1, 2])
def test_small_k_leaves_nothing_to_draw(k):
    """With k <= 2 the default head is everything (facts of the paper)."""
    fit = FIT | {"k": k}
    ranking = _ranking("random")
    sampled = _choose(ExpertSample().resolve(**fit), ranking, NOISE)
    np.testing.assert_array_equal(sampled, _best(ranking)[:, :k])


# -- invariants ----------------------------------------------------------------------

SETTINGS = [
    *NOISY,
    ExpertSample(k_keep=0, r=E, tau=3.0),
    ExpertSample(k_keep=1, r=6),
    ExpertSample(k_keep=3, r=5, tau=1e38),
    AdaptiveHead(mass=0.0, r=7),
    AdaptiveHead(mass=1.0, r=E, tau=2.0),
    GumbelTopK(tau=3e38),
]


@rankings
@pytest.mark.parametrize("policy", SETTINGS, ids=repr)
def test_choice_keeps_to_head_range_and_order(policy, kind):
    """k distinct experts in rank order, all of the head, none past rank r."""
    ranking = _ranking(kind)
    chosen = _experts(policy, ranking)
    rank = _ranks(ranking)
    chosen_ranks = np.take_along_axis(rank, chosen, axis=1)
    assert (np.diff(chosen_ranks, axis=1) > 0).all()  # distinct, and in order
    resolved = policy.resolve(**FIT)
    if isinstance(resolved, ExpertSample | AdaptiveHead):
        assert (chosen_ranks < np.asarray(resolved.r)[0]).all()
        assert (chosen_ranks[:, 0] == 0).all() or _headless(policy)
    if isinstance(resolved, ExpertSample):
        keep = int(np.asarray(resolved.k_keep)[0])
        expected = np.broadcast_to(np.arange(keep), (N, keep))
        np.testing.assert_array_equal(chosen_ranks[:, :keep], expected)


def _headless(policy) -> bool:
    return isinstance(policy, ExpertSample) and bool(policy.k_keep == 0)


@policies
def test_masked_experts_do_not_push_out_the_range(policy):
    """Logits of -inf (a masked expert) must not tie with ranks past r."""
    ranking = _ranking("random").at[:, 3:].set(-jnp.inf)
    resolved = policy.resolve(**FIT)
    chosen = _experts(policy, ranking)
    rank = _ranks(ranking)
    reach = getattr(resolved, "r", np.array([E]))[0]
    assert (np.take_along_axis(rank, chosen, axis=1) < reach).all()


@policies
def test_noise_of_other_experts_changes_nothing(policy):
    """Noise is one number an expert: what is outside of range or head has no say."""
    policy = policy if isinstance(policy, GumbelTopK) else replace(policy, r=6)
    ranking = _ranking("random")
    rank = _ranks(ranking)
    reach = E if isinstance(policy, GumbelTopK) else 6
    other = jnp.where(rank < reach, NOISE, 1e6)
    np.testing.assert_array_equal(
        _experts(policy, ranking), _experts(policy, ranking, other)
    )


@policies
def test_order_of_the_experts_does_not_matter(policy):
    """Renaming experts renames the choice: noise follows the expert, not the place."""
    ranking = _ranking("random")
    order = np.random.default_rng(1).permutation(E)
    renamed = _experts(policy, ranking[:, order], NOISE[:, order])
    np.testing.assert_array_equal(order[renamed], _experts(policy, ranking))


def test_tied_ranks_that_swap_change_only_the_edges():
    """Two near-tied tail ranks swap under other rounding: the set must not change."""
    ranking = np.sort(np.asarray(_ranking("random")), axis=1)[:, ::-1].copy()
    ranking[:, 8] = ranking[:, 7]
    up, down = ranking.copy(), ranking.copy()
    up[:, 7] += 1e-5
    down[:, 8] += 1e-5
    policy = ExpertSample(k_keep=2, r=12)
    first = np.sort(_experts(policy, jnp.asarray(up)), axis=1)
    second = np.sort(_experts(policy, jnp.asarray(down)), axis=1)
    assert (first == second).all(axis=1).mean() > 0.98  # but for a tie in score itself


@policies
def test_select_draws_the_same_as_choose(policy):
    """Replaying one choice from its route key must give what the step chose."""
    one = policy.resolve(**FIT).at_layer(0)
    row = _ranking("random")[0]
    noise = jax.random.gumbel(jax.random.key(3), (E,))
    chosen = _experts(policy, row[None], noise[None])[0]
    np.testing.assert_array_equal(one.select(jax.random.key(3), row), chosen)


def test_select_of_a_deterministic_policy_uses_no_key():
    """TopK with a key must not differ from TopK without."""
    one = TopK().resolve(**FIT).at_layer(0)
    row = _ranking("random")[0]
    np.testing.assert_array_equal(
        one.select(jax.random.key(3), row), one.choose(row, None)
    )


# -- the adaptive head ---------------------------------------------------------------


@rankings
@pytest.mark.parametrize("mass", [0.0, 0.3, 0.7, 0.95, 1.0])
def test_adaptive_head_is_the_shortest_run_reaching_the_mass(mass, kind):
    """The head's length, against a cumulative sum over sorted probabilities."""
    ranking = _ranking(kind)
    policy = AdaptiveHead(mass=mass).resolve(**FIT).at_layer(0)
    heads = jax.vmap(lambda row: policy.head(row, ranked(row, E)))(ranking)
    logits = -np.sort(-np.asarray(ranking, np.float64), axis=1)
    p = np.exp(logits - logits[:, :1])
    p /= p.sum(axis=1, keepdims=True)
    before = np.cumsum(p, axis=1) - p
    # To rounding: a cumulative sum on the very edge may fall to either side.
    least = np.clip((before < mass - 1e-6).sum(axis=1), 1, K)
    most = np.clip((before < mass + 1e-6).sum(axis=1), 1, K)
    sizes = np.asarray(heads).sum(axis=1)
    assert ((least <= sizes) & (sizes <= most)).all()
    assert (np.asarray(heads) == (np.arange(E) < sizes[:, None])).all()


def test_adaptive_head_of_mass_1_is_all_k():
    """Full mass leaves no tail (but where one expert has it all, to rounding)."""
    ranking = _ranking("random")
    np.testing.assert_array_equal(
        _experts(AdaptiveHead(mass=1.0, tau=9.0), ranking), _experts(TopK(), ranking)
    )


# -- fewer and more experts ----------------------------------------------------------


@pytest.mark.parametrize("k", [1, 2, 3, K])
def test_fewer_experts_leave_places_empty(k):
    """The reduction study: the k best, then -1, in the model's own number of places."""
    chosen = _experts(TopK(k=k), _ranking("random"))
    assert chosen.shape == (N, K)
    np.testing.assert_array_equal(chosen[:, :k], _best(_ranking("random"))[:, :k])
    assert (chosen[:, k:] == -1).all()


@pytest.mark.parametrize("k", [K + 1, E])
def test_more_experts_than_the_models(k):
    """DES takes more experts than the model was trained with, up to all."""
    chosen = _experts(TopK(k=k), _ranking("random"))
    np.testing.assert_array_equal(chosen, _best(_ranking("random"))[:, :k])


@policies
@pytest.mark.parametrize("k", [1, 7, E])
def test_noisy_policies_of_another_k(policy, k):
    """A k of one's own sets the places, and the defaults follow it."""
    resolved = replace(policy, k=k).resolve(**FIT)
    assert resolved.width == k
    chosen = np.asarray(_choose(resolved, _ranking("random"), NOISE))
    assert chosen.shape == (N, k)
    assert all(len(set(row)) == k for row in chosen.tolist())
    plain = resolved.deterministic(1)
    np.testing.assert_array_equal(
        _choose(plain, _ranking("random"), NOISE), _best(_ranking("random"))[:, :k]
    )


# -- as many as reach a mass, and dropout --------------------------------------------


def _top_p(row: np.ndarray, mass: float, k_min: int, k_max: int) -> list[int]:
    """NumPy reference of one token."""
    order = np.argsort(-row, kind="stable")
    p = np.exp(row[order] - row.max()) / np.exp(row - row.max()).sum()
    reaching = next((j + 1 for j in range(E) if p[: j + 1].sum() >= mass), E)
    chosen = order[: min(max(reaching, k_min), k_max)]
    return [*chosen, *[-1] * (k_max - len(chosen))]


@rankings
@pytest.mark.parametrize("bounds", [(1, K), (2, 3), (3, 7), (1, E)])
def test_top_p_takes_as_many_as_reach_the_mass(bounds, kind):
    """Experts beyond the mass would be computed, or too few of them."""
    # No sum of these ranks meets it exactly, where rounding would decide.
    ranking, (least, most) = _ranking(kind), bounds
    found = _experts(TopP(0.7123, k_min=least, k_max=most), ranking)
    rows = np.asarray(ranking, np.float64)
    expected = [_top_p(row, 0.7123, least, most) for row in rows]
    np.testing.assert_array_equal(found, expected)


def _dropout(row: np.ndarray, noise: np.ndarray, q: float) -> list[int]:
    """NumPy reference of one token."""
    best = np.argsort(-row, kind="stable")[:K]
    uniform = np.exp(-np.exp(-noise.astype(np.float64)))
    kept = [e for e in best if uniform[e] >= q] or [best[0]]
    return [*kept, *[-1] * (K - len(kept))]


@rankings
@pytest.mark.parametrize("q", [0.3, 0.9, 1.0])
def test_dropout_leaves_out_some_of_the_best(q, kind):
    """Others than the k best would compute a token, or none at all."""
    ranking = _ranking(kind)
    rows = zip(np.asarray(ranking), np.asarray(NOISE), strict=True)
    expected = [_dropout(*row, q) for row in rows]
    np.testing.assert_array_equal(_experts(Dropout(q), ranking), expected)


@pytest.mark.parametrize("q", [0.0, 0.3, 1.0])
def test_the_law_of_dropout_is_how_often_sets_are_chosen(q):
    """Recorded log-probabilities would be of another policy."""
    policy, rows = Dropout(q).resolve(**FIT), 8_000
    one = policy.at_layer(0)
    ranking = _ranking("random")[0]
    noise = np.random.default_rng(2).gumbel(size=(rows, E)).astype(np.float32)
    wide = jnp.broadcast_to(ranking, (rows, E))
    found = np.asarray(_choose(policy, wide, jnp.asarray(noise)))
    best = _best(ranking[None])[0]
    sets = [
        [*chosen, *[-1] * (K - m)]
        for m in range(K + 1)
        for chosen in itertools.combinations(best[:K], m)
    ]
    law = jax.jit(jax.vmap(lambda experts: one.log_probability(ranking, experts)))
    chances = np.exp(np.asarray(law(jnp.array(sets)), np.float64))
    assert chances.sum() == pytest.approx(1, abs=1e-5)
    counts = np.array([(found == np.array(s)).all(axis=1).sum() for s in sets])
    assert counts.sum() == rows
    spread = np.sqrt(rows * chances * (1 - chances))
    assert (abs(counts - rows * chances) <= 4.5 * spread + 1e-2).all()
    others = jnp.array([best[1 : K + 1], [best[0]] * K])
    assert (law(others) == -np.inf).all()


@pytest.mark.parametrize(
    "policy", [TopK(), TopP(), Dropout(), *NOISY], ids=lambda p: type(p).__name__
)
def test_choice_is_the_same_in_batches_of_batches(policy):
    """Training routes several sequences at once; what is beside a row has no say."""
    ranking = jnp.stack([_ranking("random")] * 2)
    noise = jnp.stack([NOISE] * 2)
    both = jax.jit(jax.vmap(_choose, (None, 0, 0)))
    found = both(policy.resolve(**FIT), ranking, noise)
    np.testing.assert_array_equal(found[1], _experts(policy, _ranking("random")))
