"""The host's table of what each slot's sampler changes in the logits."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxmoe.decode.adjustments import Adjustments, History, note_prompts
from jaxmoe.decode.sampler import TokenSampler
from jaxmoe.typing import Array, Int


class Widths(NamedTuple):
    """Room for lists of `Adjustments`.

    biases: B. ends: X. words: W. starts: R.
    """

    biases: int = 16
    ends: int = 8
    words: int = 8
    starts: int = 4

    @classmethod
    def of(cls, sampler: TokenSampler, end_ids: Sequence[int]) -> "Widths":
        """Room for a resolved sampler's, in powers of two, that many may share it."""
        words = sampler.bad_words or ()
        longest = max(map(len, words), default=1) - 1  # type: ignore[arg-type]
        needed = len(sampler.logit_bias or ()), len(end_ids), len(words), longest
        return cls(*(_doubled(n, w) for n, w in zip(needed, cls(), strict=True)))

    def union(self, other: "Widths") -> "Widths":
        """Room for either."""
        return Widths(*map(max, self, other))


def _doubled(needed: int, size: int) -> int:
    while size < needed:
        size *= 2
    return size


def row_of(
    sampler: TokenSampler, end_ids: Sequence[int], widths: Widths
) -> Adjustments:
    """One slot's row of a resolved sampler; all neutral where it asks for none.

    end_ids: what `min_tokens` bans.
    """
    bias = sampler.logit_bias or {}
    words: list[Any] = [tuple(word) for word in sampler.bad_words or ()]
    starts = np.full((widths.words, widths.starts), -1, np.int32)
    for place, word in enumerate(words):
        if len(word) > 1:
            starts[place, 1 - len(word) :] = word[:-1]
    return Adjustments(
        _float(sampler.presence_penalty, 0),
        _float(sampler.frequency_penalty, 0),
        _float(sampler.repetition_penalty, 1),
        _padded(list(bias), widths.biases),
        _biases(list(bias.values()), widths.biases),
        np.int32(sampler.min_tokens or 0),
        _padded(list(end_ids) if sampler.min_tokens else [], widths.ends),
        _padded([word[-1] for word in words], widths.words),
        starts,
    )


def _float(value: Any, neutral: float) -> Any:
    if isinstance(value, jax.Array):  # traced, in a jit of one's own
        return value.astype(jnp.float32)
    return np.float32(neutral if value is None else value)


def _biases(values: list[Any], width: int) -> Any:
    if any(isinstance(value, jax.Array) for value in values):
        row = jnp.stack([_float(value, 0) for value in values])
        return jnp.pad(row, (0, width - len(values)))
    return np.array([*values, *[0] * (width - len(values))], np.float32)


def _padded(ids: list[int], width: int) -> np.ndarray:
    return np.array([*ids, *[-1] * (width - len(ids))], np.int32)


def alike(
    sampler: TokenSampler,
    end_ids: Sequence[int],
    prompt: Int[Array, "T"],
    *,
    slots: int,
    vocab: int,
) -> tuple[Adjustments, History]:
    """Rows and history of slots that all begin answers to one prompt.

    prompt: padded with -1.
    """
    row = row_of(sampler, end_ids, Widths.of(sampler, end_ids))
    rows = jax.tree.map(lambda a: jnp.broadcast_to(a, (slots, *jnp.shape(a))), row)
    empty = History.empty(1, vocab, rows.word_starts.shape[2])
    one = note_prompts(empty, prompt[None])
    every = jax.tree.map(lambda a: jnp.broadcast_to(a, (slots, a.shape[1])), one)
    return rows, every


class AdjustmentTable:
    """The host's rows of `Adjustments`; none where no slot asks for any."""

    def __init__(self, slots: int):
        """Nothing asked for."""
        self._slots = slots
        self._adjusting = np.zeros(slots, bool)
        self._rows: Adjustments | None = None
        self.widths = Widths()

    def set(self, slot: int, sampler: Any, end_ids: Sequence[int] = ()) -> None:
        """Gives a slot what a resolved sampler of any kind asks for."""
        own = isinstance(sampler, TokenSampler) and sampler.adjusts
        self._adjusting[slot] = own
        if own:
            self._make_room(Widths.of(sampler, end_ids))
        if self._rows is None:
            return
        given = sampler if own else TokenSampler()
        row = row_of(given, end_ids if own else (), self.widths)
        for column, value in zip(self._rows, row, strict=True):
            column[slot] = value

    def _make_room(self, widths: Widths) -> None:
        """Rows as wide as is needed; what they hold is kept."""
        widths = self.widths.union(widths)
        if self._rows is not None and widths == self.widths:
            return
        empty = row_of(TokenSampler(), (), widths)
        wide = jax.tree.map(
            lambda a: np.tile(np.asarray(a), (self._slots, *[1] * np.ndim(a))), empty
        )
        for old, new in zip(self._rows or (), wide, strict=False):
            if old.ndim == 3:
                new[:, : old.shape[1], new.shape[2] - old.shape[2] :] = old
            elif old.ndim == 2:
                new[:, : old.shape[1]] = old
            else:
                new[:] = old
        self._rows, self.widths = wide, widths

    @property
    def rows(self) -> Adjustments | None:
        """The table as it is now, or None where no slot asks for anything."""
        return self._rows if self._adjusting.any() else None
