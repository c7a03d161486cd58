"""The host's table of how each slot draws."""

from typing import Any

import jax
import numpy as np

from jaxmoe.config import ModelConfig
from jaxmoe.decode.adjustment_table import AdjustmentTable
from jaxmoe.decode.policy_table import PolicyTable
from jaxmoe.decode.request import Request
from jaxmoe.decode.sampler import TokenSampler
from jaxmoe.decode.slot_sampler import GREEDY, SlotSampler, numbers_of
from jaxmoe.decode.slots import SlotRules
from jaxmoe.router.policies import Policy, PolicyNumbers, TopK
from jaxmoe.text.grammar import EVERY, Guide, mask_width


class RuleTable:
    """One row a slot: numbers of its policy and sampler, and its stop ids.

    Where a policy or a sampler is given, all slots have that one.
    """

    def __init__(
        self,
        config: ModelConfig,
        slots: int,
        *,
        policy: Policy | None = None,
        sampler: TokenSampler | None = None,
    ):
        """See `SlotRules`; policy and sampler are resolved."""
        self._policies = PolicyTable(config, slots) if policy is None else None
        self._policy = policy
        self._sampler = SlotSampler.empty(slots)
        if sampler is not None:
            self._sampler = sampler
        if isinstance(sampler, TokenSampler):
            self._sampler = sampler.without_adjustments()
        self._adjustments = AdjustmentTable(slots)
        self._tops = np.zeros(slots, bool) if policy is None else None
        self._allowed = np.full((slots, mask_width(config.vocab_size)), EVERY)
        self._guided = np.zeros(slots, bool)
        self._stop_ids = np.full((slots, 8), -1, np.int32)
        self._rules: SlotRules | None = None
        self._known: dict[int, tuple[Policy, PolicyNumbers]] = {}

    @property
    def width(self) -> int:
        """K, places for experts."""
        return self.policy.width

    def numbers_of(self, policy: Policy) -> PolicyNumbers | None:
        """What a slot keeps of a resolved policy; None where all have the same.

        Raises:
          ValueError: a policy that no slot can hold.
        """
        if self._policies is None:
            return None
        # A request's samples ask one after the other. By identity: what is kept keeps
        # its policy alive, so no other has its id. Threads that read requests ask too.
        known = self._known.get(id(policy))
        if known is None:
            if len(self._known) > 4 * len(self._guided):
                self._known.clear()
            known = policy, self._policies.numbers_of(policy)
            self._known[id(policy)] = known
        return known[1]

    def check(self, request: Request) -> None:
        """Refuses what no slot can hold.

        Raises:
          TypeError, ValueError: a sampler or a policy; what to do.
        """
        for policy in {id(one): one for one in request.policies}.values():
            self.numbers_of(policy)
        if isinstance(self._sampler, SlotSampler):
            numbers_of(request.sampler)

    @property
    def policy(self) -> Policy:
        """Of all slots, or a `PerSlot`."""
        if self._policy is not None:
            return self._policy
        assert self._policies is not None
        return self._policies.policy

    def plain(self, policy: Policy, num_layers: int) -> Policy:
        """The policy of prompt tokens: as many experts, without noise."""
        numbers = self.numbers_of(policy)
        if numbers is None:
            return self.policy.deterministic(num_layers)
        if numbers.changes is not None and np.asarray(numbers.changes.bias).any():
            return policy.deterministic(num_layers)
        # One program for all that take the best of the ranking as it is.
        return TopK(numbers.k, places=self.width)

    def admit(self, slot: int, request: Request, policy: Policy) -> None:
        """Gives a slot the rules of a request, and of one of its policies."""
        ids = request.stop_ids
        width = -(-max(len(ids), 1) // 8) * 8
        if width > self._stop_ids.shape[1]:
            more = width - self._stop_ids.shape[1]
            self._stop_ids = np.pad(
                self._stop_ids, ((0, 0), (0, more)), constant_values=-1
            )
        self._stop_ids[slot] = -1
        self._stop_ids[slot, : len(ids)] = ids
        slots = isinstance(self._sampler, SlotSampler)
        sampler = numbers_of(request.sampler) if slots else None
        self._adjustments.set(slot, request.sampler, request.end_ids)
        if self._tops is not None:
            self._tops[slot] = request.tops
        self._set(slot, self.numbers_of(policy), sampler)

    def clear(self, slot: int) -> None:
        """A slot at rest has rules that cost least."""
        self._adjustments.set(slot, None)
        self._allowed[slot], self._guided[slot] = EVERY, False
        if self._tops is not None:
            self._tops[slot] = False
        self._set(slot, None, GREEDY)

    def allow(self, slot: int, guide: Guide) -> bool:
        """Gives a slot the tokens that its answer may go on with; whether any."""
        self._guided[slot], self._rules = True, None
        return guide.fill(self._allowed[slot])

    @property
    def recent(self) -> int | None:
        """Tokens to remember of each slot where some sampler asks; else None."""
        rows = self._adjustments.rows
        return None if rows is None else rows.word_starts.shape[2]

    def _set(self, slot: int, policy: PolicyNumbers | None, sampler: Any) -> None:
        if self._policies is not None:
            self._policies.set(slot, policy)
        if isinstance(self._sampler, SlotSampler):
            _write(self._sampler.values, slot, sampler)
        self._rules = None

    def rules(self) -> SlotRules:
        """The table as it is now; copied, as the device may read it later."""
        found = self._rules
        if found is None:
            rows = self._adjustments.rows
            allowed = self._allowed if self._guided.any() else None
            tops = None if self._tops is None else self._tops.any()
            own = SlotRules(
                self.policy, self._sampler, self._stop_ids, rows, allowed, tops
            )
            found = self._rules = jax.tree.map(_copied, own)
        return found


def _write(table: Any, slot: int, row: Any) -> None:
    for column, value in zip(table, row, strict=True):
        column[slot] = value


def _copied(array: Any) -> Any:
    return array.copy() if isinstance(array, np.ndarray) else array
