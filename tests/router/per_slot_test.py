"""A slot chooses what its own policy chooses, in one program for all of them."""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.benchmarks.calls import counted as counted_compilations
from jaxmoe.router.modifiers import Biased, Gated
from jaxmoe.router.per_slot import PerSlot
from jaxmoe.router.policies import (
    AdaptiveHead,
    Changes,
    Dropout,
    ExpertSample,
    GumbelTopK,
    HeadAndTail,
    Policy,
    TopK,
    TopP,
)
from jaxmoe.router.routing import choose_experts, route_logprobs

E, K, L, S = 32, 4, 3, 64
FIT = {"k": K, "num_experts": E, "num_layers": L}
POLICIES = [
    TopK(),
    TopK(1),
    TopK(np.array([3, 1, 4])),
    ExpertSample(),
    ExpertSample(k_keep=0, r=E, tau=3.0),
    ExpertSample(k_keep=K, r=9, tau=9.0),
    ExpertSample(k_keep=1, r=K),
    ExpertSample(tau=0.0),
    ExpertSample(k_keep=1, r=7, tau=3e38),
    ExpertSample(np.array([0, 4, 2]), np.array([4, 9, 32]), np.array([0.1, 1, 7])),
    GumbelTopK(),
    GumbelTopK(np.array([0.0, 0.3, 3e38])),
    AdaptiveHead(),
    AdaptiveHead(mass=0.0, r=7),
    AdaptiveHead(mass=1.0, r=E, tau=2.0),
    AdaptiveHead(np.array([0.2, 0.7, 0.95]), tau=np.array([5.0, 0.0, 0.5])),
    TopP(0.6),
    TopP(np.array([0.0, 0.8, 1.0]), k_min=2, k_max=np.array([3, 4, 2])),
]
STEERED = np.random.default_rng(3).normal(size=(L, E)) * 2
BANNED = np.where(np.arange(E) % 3 > 0, -np.inf, STEERED)
ALMOST_ALL = np.where(np.arange(E) < K, 1, -np.inf)
HOT = ExpertSample(k_keep=1, tau=3.0)
CHANGED = [
    Dropout(np.array([0.3, 0.0, 1.0])),
    Biased(GumbelTopK(), BANNED),
    Gated(HOT, threshold=np.array([1.0, 1.8, 2.5])),
    Gated(Biased(HOT, BANNED), by="margin", threshold=0.5),
    Biased(Gated(Dropout(0.5), threshold=1.8), STEERED),
]
MORE = [
    Dropout(0.6, k=2),
    Biased(TopK(2), STEERED),
    Biased(AdaptiveHead(0.7, tau=2.0), ALMOST_ALL),
    Biased(TopP(0.6), np.zeros(E)),
    Gated(GumbelTopK(), by="margin", threshold=0.3),
    Gated(Dropout(0.5), threshold=1.8),
]
LAWFUL = [p for p in CHANGED + MORE if p.has_log_probability]
EXACT = ["random", "tied", "all equal", "steep", "masked"]
kinds = pytest.mark.parametrize("kind", EXACT)
NOISE = jnp.asarray(np.random.default_rng(9).gumbel(size=(L, S, E)), jnp.float32)


def _ranking(kind: str) -> jax.Array:
    """Router logits [L, S, E]."""
    rows = np.random.default_rng(EXACT.index(kind)).normal(size=(L, S, E)) * 2
    if kind == "tied":
        rows = np.round(rows)
        assert (np.signbit(rows) & (rows == 0)).any()  # -0.0 ties with 0.0
    if kind == "all equal":
        rows = np.zeros_like(rows)
    if kind == "steep":
        rows *= 40
    if kind == "masked":
        rows[..., 6:] = -np.inf
    return jnp.asarray(rows, jnp.float32)


def _empty(slots=S) -> PerSlot:
    return PerSlot.empty(slots, **FIT)


def _set(slots: PerSlot, rows, policy: Policy) -> PerSlot:
    """`slots` with a policy in some of them."""
    numbers = slots.numbers_of(policy.resolve(**FIT), E)
    values = slots.values
    if (values.changes or numbers.changes) is not None:
        every, one = Changes.none(values.k.shape, E), Changes.none((L,), E)
        values = values._replace(changes=values.changes or every)
        numbers = numbers._replace(changes=numbers.changes or one)
    values = jax.tree.map(np.copy, values)
    jax.tree.map(lambda column, value: column.__setitem__(rows, value), values, numbers)
    return replace(slots, values=values)


def _filled(policies: list[Policy]) -> PerSlot:
    """The policies by turns, over all slots."""
    result = _empty()
    for i, policy in enumerate(policies):
        result = _set(result, np.arange(i, S, len(policies)), policy)
    return result


@jax.jit
def _choose_one(policy, ranking, noise):
    return choose_experts(policy, ranking, noise)


@jax.jit
def _logprobs_one(policy, ranking, experts):
    return route_logprobs(policy, ranking, experts)


def _choose(policy, ranking, noise) -> np.ndarray:
    """Experts [L, S, K]; one program serves all layers."""
    return np.stack(
        [_choose_one(policy.at_layer(l), ranking[l], noise[l]) for l in range(L)]
    )


def _logprobs(policy, ranking, experts) -> np.ndarray:
    """Log-probabilities [L, S]."""
    return np.stack(
        [_logprobs_one(policy.at_layer(l), ranking[l], experts[l]) for l in range(L)]
    )


# -- equality with the policies of their own -----------------------------------------


@kinds
@pytest.mark.parametrize("policy", POLICIES, ids=repr)
def test_all_slots_of_one_policy_choose_as_it_does(policy, kind):
    """Another expert, or another order, would give the request other bits."""
    ranking = _ranking(kind)
    expected = _choose(policy.resolve(**FIT), ranking, NOISE)
    np.testing.assert_array_equal(_choose(_filled([policy]), ranking, NOISE), expected)


@pytest.mark.thorough
@kinds
def test_mixed_slots_choose_each_as_its_own_policy(kind):
    """What the other slots hold must have no say."""
    _check_choices(POLICIES, _ranking(kind))
    _check_choices(POLICIES + CHANGED, _ranking(kind))
    _check_choices([CHANGED[0], TopK()], _ranking(kind))  # heads alone


@pytest.mark.slow
@kinds
def test_more_mixed_slots_choose_each_as_its_own_policy(kind):
    """As above."""
    _check_choices(POLICIES[:4] + MORE, _ranking(kind))


@pytest.mark.parametrize("beside", [[], [TopK()]], ids=["alone", "beside TopK"])
@pytest.mark.parametrize(
    "changed", [Dropout(0.5), Biased(TopK(), BANNED)], ids=["Dropout", "Biased"]
)
def test_changes_of_the_best_ranks_are_made(changed, beside):
    """Slots that all take the best ranks have a short cut, without bias or dropout."""
    _check_choices([changed, *beside], _ranking("random"))


def _check_choices(policies, ranking):
    found = np.asarray(_choose(_filled(policies), ranking, NOISE))
    for i, policy in enumerate(policies):
        rows = np.arange(i, S, len(policies))
        expected = np.asarray(_choose(policy.resolve(**FIT), ranking, NOISE))
        width = expected.shape[-1]
        np.testing.assert_array_equal(found[:, rows, :width], expected[:, rows])
        assert (found[:, rows, width:] == -1).all()


def test_changes_cost_nothing_where_no_slot_has_any():
    """Steps of requests without them would compute more: pinned, operation for one."""
    slot = jax.tree.map(lambda a: jnp.asarray(a)[0], _empty().at_layer(0))
    row, noise = _ranking("random")[0, 0], NOISE[0, 0]
    assert slot.values.changes is None
    own = jax.make_jaxpr(type(slot).choose)(slot, row, noise)
    assert str(own) == str(jax.make_jaxpr(HeadAndTail.choose)(slot, row, noise))
    law = jax.make_jaxpr(type(slot).log_probability)(slot, row, jnp.arange(K))
    alone = jax.make_jaxpr(HeadAndTail.log_probability)(slot, row, jnp.arange(K))
    assert str(law) == str(alone)


@kinds
def test_reach_changes_nothing_but_the_ranks_looked_at(kind):
    """An answer would change when another request comes that looks further."""
    small = [p for p in POLICIES if np.max(p.resolve(**FIT).numbers(E).r) <= 4 * K]
    assert {type(p) for p in small} == {TopK, TopP, ExpertSample, AdaptiveHead}
    ranking = _ranking(kind)
    near = _filled(small)
    assert near.reach == 4 * K < E
    far = _set(near, [S - 1], GumbelTopK())
    found = [_choose(p, ranking, NOISE) for p in (near, far, replace(near, reach=E))]
    np.testing.assert_array_equal(found[0], found[2])
    np.testing.assert_array_equal(found[0][:, :-1], found[1][:, :-1])
    chances = [_logprobs(p, ranking, found[0])[:, :-1] for p in (near, far)]
    np.testing.assert_allclose(*chances, rtol=1e-5, atol=1e-6)


@pytest.mark.thorough
@pytest.mark.optimised
def test_adaptive_heads_end_alike_on_many_rows():
    """Probabilities summed in another order would move the end of some heads."""
    rows = np.random.default_rng(5).normal(size=(4000, E)).astype(np.float32)
    # Few values: sums that meet the mass exactly, to rounding, are frequent.
    ranking = jnp.asarray(np.log(2.0) * np.round(rows), jnp.float32)
    noise = jnp.asarray(np.random.default_rng(6).gumbel(size=(4000, E)), jnp.float32)
    for mass in (0.125, 0.25, 0.3, 0.5):
        alone = AdaptiveHead(mass, tau=4.0).resolve(**FIT)
        slots = _set(_empty(slots=4000), slice(None), alone)
        np.testing.assert_array_equal(
            _choose_one(slots.at_layer(1), ranking, noise),
            _choose_one(alone.at_layer(1), ranking, noise),
        )


def test_top_k_ignores_noise():
    """A greedy answer must not change with the answers beside it, whatever is drawn."""
    ranking = _ranking("tied")
    for k in (1, K):
        expected = _choose(TopK(k).resolve(**FIT), ranking, NOISE)
        for noise in (NOISE * 1e30, jnp.full_like(NOISE, jnp.nan)):
            np.testing.assert_array_equal(
                _choose(_filled([TopK(k)]), ranking, noise), expected
            )


def test_fewer_experts_drawn_are_followed_by_empty_places():
    """Numbers with k below K: the same draw as in a program of that width."""
    fewer = ExpertSample(k=2, k_keep=1).resolve(**FIT)
    ranking = _ranking("random")
    slots = _set(_empty(), slice(None), fewer)
    found = np.asarray(_choose(slots, ranking, NOISE))
    np.testing.assert_array_equal(found[..., :2], _choose(fewer, ranking, NOISE))
    assert (found[..., 2:] == -1).all()
    adaptive = AdaptiveHead(0.9, k=3).resolve(**FIT)
    slots = _set(_empty(), slice(None), adaptive)
    found = np.asarray(_choose(slots, ranking, NOISE))
    np.testing.assert_array_equal(found[..., :3], _choose(adaptive, ranking, NOISE))
    np.testing.assert_allclose(
        _logprobs(slots, ranking, found),
        _logprobs(adaptive, ranking, found[..., :3]),
        atol=1e-6,
    )


@pytest.mark.thorough
@kinds
def test_log_probabilities_are_those_of_the_policies(kind):
    """Recorded values would depend on which requests share the batch."""
    _check_log_probabilities(POLICIES, _ranking(kind))


@pytest.mark.slow
@kinds
def test_log_probabilities_of_changes_are_those_of_the_policies(kind):
    """As above."""
    _check_log_probabilities(POLICIES[:4] + LAWFUL, _ranking(kind))


def _check_log_probabilities(policies, ranking):
    slots = _filled(policies)
    experts = _choose(slots, ranking, NOISE)
    found = np.asarray(_logprobs(slots, ranking, experts))
    assert (found <= 0).all()
    assert np.isfinite(found).all()
    for i, policy in enumerate(policies):
        rows, alone = np.arange(i, S, len(policies)), policy.resolve(**FIT)
        expected = _logprobs(alone, ranking, experts[..., : alone.width])[:, rows]
        np.testing.assert_allclose(found[:, rows], expected, rtol=1e-5, atol=1e-6)


# -- one program ---------------------------------------------------------------------


def test_all_policies_share_one_program():
    """Each new request would compile the decode step again."""
    ranking = _ranking("random")
    slots = [_filled([policy]) for policy in POLICIES]
    _choose(_empty(), ranking, NOISE)
    with counted_compilations() as count:
        for policy in slots:
            _choose(policy, ranking, NOISE)
    assert not count


def test_noise_is_wanted_where_it_has_a_say():
    """It costs a step's time, and is not drawn where no slot uses it."""
    for policy in POLICIES + CHANGED:
        alone = policy.resolve(**FIT)
        wanted = bool(_set(_empty(), [3], policy).any_noisy())
        if not wanted:
            ranking = _ranking("random")
            plain = _choose(alone, ranking, jnp.zeros_like(NOISE))
            np.testing.assert_array_equal(_choose(alone, ranking, NOISE), plain)
    assert not _empty().any_noisy()
    assert _set(_empty(), [3], ExpertSample()).any_noisy()


# -- as a policy ---------------------------------------------------------------------


def test_empty_slots_are_top_k():
    """A slot at rest must cost as little as it can."""
    ranking = _ranking("random")
    expected = _choose(TopK().resolve(**FIT), ranking, NOISE)
    np.testing.assert_array_equal(_choose(_empty(), ranking, NOISE), expected)
    assert _empty().width == K


def test_rows_at_rest_get_no_expert_and_no_log_probability():
    """A slot without a request must not read weights, nor record -inf."""

    @jax.jit
    def both(policy, ranking, active):
        policy = policy.at_layer(0)
        experts = choose_experts(policy, ranking, NOISE[0], active=active)
        return experts, route_logprobs(policy, ranking, experts, active=active)

    active = np.arange(S) % 3 > 0
    experts, logprobs = both(_filled(POLICIES), _ranking("random")[0], active)
    assert (np.asarray(experts)[~active] == -1).all()
    assert (np.asarray(logprobs)[~active] == 0).all()
    assert np.isfinite(logprobs).all()


# -- refusals ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "found"),
    [(ExpertSample(k=5), 5), (TopK(K + 1), K + 1), (GumbelTopK(k=7), 7)],
)
def test_a_wider_policy_is_refused(policy, found):
    """It cannot share the program; the error says what was expected and found."""
    with pytest.raises(ValueError, match=rf"{K} .*found {found};"):
        _empty().numbers_of(policy.resolve(**FIT), E)


def test_policies_without_numbers_are_refused():
    """A policy of a user's own runs, but not in a slot, whatever is about it."""

    @dataclass(frozen=True)
    class Own(Policy):
        pass

    assert Own().numbers(E) is None
    with pytest.raises(ValueError, match="Own"):
        _empty().numbers_of(Own(), E)

    @dataclass(frozen=True)
    class Other(GumbelTopK):
        def choose(self, ranking, noise):
            return super().choose(-ranking, noise)

    @dataclass(frozen=True)
    class Calm(GumbelTopK):
        def deterministic(self, num_layers):
            return TopK(1)

    bias = np.arange(E)
    for policy in (
        Biased(Other(), bias),
        Gated(Other(), threshold=1.0),
        Gated(Calm(), threshold=1.0),
        Gated(Gated(HOT, threshold=1.0), by="margin", threshold=1.0),
        Biased(Gated(Biased(HOT, bias), threshold=1.0), bias),
    ):
        with pytest.raises(ValueError, match=type(policy).__name__):
            _empty().numbers_of(policy.resolve(**FIT), E)
    with pytest.raises(NotImplementedError, match="Own"):
        Own().log_probability(jnp.zeros(E), jnp.arange(K))


def test_unresolved_policies_are_refused():
    """Their defaults are not known yet."""
    for policy in (TopK(), ExpertSample(), GumbelTopK(), AdaptiveHead(), TopP()):
        with pytest.raises(ValueError, match="resolve"):
            _empty().numbers_of(policy, E)
