"""The host's table of how each slot chooses experts."""

from dataclasses import replace

import numpy as np

from jaxmoe.config import ModelConfig
from jaxmoe.router.per_slot import PerSlot
from jaxmoe.router.policies import Changes, Policy, PolicyNumbers, TopK, for_model


class PolicyTable:
    """Numbers of each slot's policy, and changes while some slot has any."""

    def __init__(self, config: ModelConfig, slots: int):
        """`TopK` in all slots."""
        self._experts = config.num_experts or 1
        self._slots = PerSlot.for_model(slots, config)
        self._rest = self.numbers_of(for_model(TopK(), config))
        self._changed = np.zeros(slots, bool)
        self._changes: Changes | None = None
        self._none = Changes.none((config.num_layers,), self._experts)

    def numbers_of(self, policy: Policy) -> PolicyNumbers:
        """What a slot keeps of a resolved policy.

        Raises:
          ValueError: a policy that no slot can hold.
        """
        return self._slots.numbers_of(policy, self._experts)

    def set(self, slot: int, numbers: PolicyNumbers | None) -> None:
        """Gives a slot the numbers of a policy; None for a slot at rest."""
        given = self._rest if numbers is None else numbers
        for column, value in zip(self._slots.values[:-1], given[:-1], strict=True):
            column[slot] = value  # type: ignore[index]
        self._changed[slot] = given.changes is not None
        if self._changes is None and given.changes is not None:
            shape = np.shape(self._slots.values.k)
            self._changes = Changes.none(shape, self._experts)
        if self._changes is not None:
            changes = given.changes or self._none
            for column, value in zip(self._changes, changes, strict=True):
                column[slot] = value  # type: ignore[index]

    @property
    def policy(self) -> PerSlot:
        """The table as it is now; its arrays are changed in place."""
        changes = self._changes if self._changed.any() else None
        return replace(self._slots, values=self._slots.values._replace(changes=changes))
