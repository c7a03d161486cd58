"""The host's table: numbers of each slot's policy, and changes while some has any."""

import jax
import numpy as np

from jaxmoe.decode.policy_table import PolicyTable
from jaxmoe.router.modifiers import Biased, Gated
from jaxmoe.router.policies import ExpertSample, TopK, for_model
from tests.tiny import EXPERTS, tiny_config


def test_changes_are_there_while_a_slot_has_any():
    """Other requests would run the larger program for ever, or lose their changes."""
    config, table = tiny_config(), PolicyTable(tiny_config(), 3)
    plain = jax.tree.structure(table.policy)
    bias = np.arange(EXPERTS, dtype=np.float32)
    gated = Gated(Biased(ExpertSample(tau=3.0), bias), threshold=2.0)
    for slot, policy in enumerate((gated, TopK(2))):
        table.set(slot, table.numbers_of(for_model(policy, config)))
    values = table.policy.values
    np.testing.assert_array_equal(values.k[:, 0], [4, 2, 4])
    np.testing.assert_array_equal(values.changes.bias[:, 1], [bias, 0 * bias, 0 * bias])
    np.testing.assert_array_equal(values.changes.entropy[:, 0], [2, -1, -1])
    table.set(0, None)
    assert jax.tree.structure(table.policy) == plain
    table.set(2, table.numbers_of(for_model(gated, config)))
    np.testing.assert_array_equal(table.policy.values.changes.bias[:2], 0)
    np.testing.assert_array_equal(table.policy.values.changes.entropy[0], -1)
