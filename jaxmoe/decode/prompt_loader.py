"""Which prompt each entry of the prefix cache holds, and how it got there."""

from collections import OrderedDict
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxmoe.decode.cache import PrefixCache
from jaxmoe.decode.inputs import MOST_SLOTS, check_whole
from jaxmoe.decode.prefill import Prompts, load_prompts, prompt_bucket
from jaxmoe.decode.request import Request
from jaxmoe.decode.rule_table import RuleTable
from jaxmoe.execution import Execution
from jaxmoe.model import Model
from jaxmoe.random.keys import sample_key
from jaxmoe.router.policies import Policy
from jaxmoe.typing import Array

AT_ONCE = 8
"""Prompts of like length that one call computes, where there may be several."""

PREFILL_TOKENS = 512
"""The most tokens of a pass over several prompts, padding included."""


Kinds = dict[int, tuple[Any, tuple[bytes, ...]]]
"""Structure and numbers of what routes a prompt, by the id of a sample's policy."""


@dataclass(frozen=True)
class PromptState:
    """All that the state of a prompt depends on; equal ones share an entry.

    tokens, length: the prompt. kind, values: structure and numbers of the policy that
    routes it. key: its key and the sample index where it is routed with noise.
    """

    tokens: bytes
    length: int
    kind: Any
    values: tuple[bytes, ...]
    key: tuple[bytes, int] | None

    @property
    def alike(self) -> tuple[Any, ...]:
        """What prompts that go through one call have in common."""
        return prompt_bucket(self.length), self.kind, self.values, self.key is None


@dataclass(frozen=True)
class _Loading:
    """A prompt to compute, and the entry that it goes into."""

    entry: int
    state: PromptState
    policy: Policy


class PromptLoader:
    """The host's side of a prefix cache."""

    def __init__(
        self,
        model: Model,
        execution: Execution,
        table: RuleTable,
        *,
        entries: int,
        batch: int,
        chances: bool,
    ):
        """Empty entries.

        Args:
          batch: prompts of one pass (`load_prompts`).
          chances: whether log-probabilities of routes are recorded.

        Raises:
          ValueError: `batch` is no power of two.
        """
        if check_whole("prefill_batch", batch, MOST_SLOTS) & (batch - 1):
            raise ValueError(f"prefill_batch must be a power of two, found {batch}")
        self._model, self._execution, self._table = model, execution, table
        self._batch, self._chances = batch, chances
        self._at_once = max(AT_ONCE if entries > 1 else 1, batch)
        self._loading: list[_Loading] = []
        self._states: list[PromptState | None] = [None] * entries
        self._entry: dict[PromptState, int] = {}
        self._users = [0] * entries
        # Those that nobody uses, empty ones and those used longest ago first.
        self._unused = OrderedDict.fromkeys(range(entries))

    @property
    def entries(self) -> int:
        """The most prompts at once."""
        return len(self._states)

    def kinds_of(self, request: Request) -> Kinds:
        """What a prompt's state depends on in each of the request's policies.

        Raises:
          ValueError: a policy that no slot can hold.
        """
        found: Kinds = {}
        for policy in request.policies:
            if id(policy) not in found:
                used = self._policy(request, policy)
                leaves = [np.asarray(a).tobytes() for a in jax.tree.leaves(used)]
                found[id(policy)] = jax.tree.structure(used), tuple(leaves)
        return found

    def state_of(self, request: Request, place: int, kinds: Kinds) -> PromptState:
        """Of the prompt as one of the request's samples wants it."""
        key = request.key_data.tobytes(), request.samples[place]
        return PromptState(
            request.prompt.tobytes(),
            len(request.prompt),
            *kinds[id(request.policies[place])],
            key if request.noisy_prefill else None,
        )

    def _policy(self, request: Request, policy: Policy) -> Policy:
        plain = self._table.plain(policy, self._model.config.num_layers)
        return policy if request.noisy_prefill else plain

    def acquire(
        self, state: PromptState, request: Request, policy: Policy
    ) -> int | None:
        """The entry that holds a prompt after the next `load`; None if all are used.

        It stays as it is until `release` was called as often as this.
        """
        entry = self._entry.get(state)
        if entry is None:
            if not self._unused:
                return None
            entry = next(iter(self._unused))
            self._entry.pop(self._states[entry], None)  # type: ignore[arg-type]
            self._states[entry], self._entry[state] = state, entry
            self._loading.append(_Loading(entry, state, self._policy(request, policy)))
        self._users[entry] += 1
        self._unused.pop(entry, None)
        return entry

    def release(self, entry: int) -> None:
        """A sample does not read an entry any more; it may be used again."""
        self._users[entry] -= 1
        if not self._users[entry]:
            self._unused[entry] = None

    def load(self, prefix: PrefixCache) -> PrefixCache:
        """`prefix`, which is consumed, with all that `entry_for` promised."""
        groups: dict[Any, list[_Loading]] = {}
        for one in self._loading:
            groups.setdefault(one.state.alike, []).append(one)
        self._loading = []
        for group in groups.values():
            for start in range(0, len(group), self._at_once):
                prefix = self._load(prefix, group[start : start + self._at_once])
        return prefix

    def _load(self, prefix: PrefixCache, loading: list[_Loading]) -> PrefixCache:
        size = prompt_bucket(loading[0].state.length)
        count = self._at_once
        tokens = np.zeros((count, size), np.int32)
        lengths, entries = np.zeros(count, np.int32), np.zeros(count, np.int32)
        for row, one in enumerate(loading):
            length = one.state.length
            tokens[row, :length] = np.frombuffer(one.state.tokens, np.int32)
            lengths[row], entries[row] = length, one.entry
        return load_prompts(
            self._model.config,
            self._model.params,
            prefix,
            Prompts(tokens, lengths, entries, self._key_data(loading)),
            loading[0].policy,
            batch=max(1, min(self._batch, PREFILL_TOKENS // size)),
            chances=self._chances,
            execution=self._execution,
        )

    def _key_data(self, loading: list[_Loading]) -> Array | None:
        """uint32 [N, 2], of the samples whose noise routes the prompts, if any does."""
        keys = [one.state.key for one in loading if one.state.key is not None]
        if not keys:
            return None
        keys += keys[:1] * (self._at_once - len(keys))
        data = np.stack([np.frombuffer(key, np.uint32) for key, _ in keys])
        return sample_key_data(data, np.array([i for _, i in keys], np.uint32))


@jax.jit
def sample_key_data(key_data, samples):
    """Key data of samples' keys k_i, uint32 [S, 2], from their prompts' and [S]."""
    keys = jax.vmap(sample_key)(jax.random.wrap_key_data(key_data), samples)
    return jax.random.key_data(keys)
