"""What changes logits before a token is drawn, by the tokens so far.

In vLLM's order, where t is a token, n(t) how often the answer has it so far:

    0. grammar       z_t = -inf  where the answer may not go on with t
    1. bad words     z_t = -inf  where t would complete one within the answer
    2. min_tokens    z_t = -inf  for end and stop tokens, while the answer is shorter
    3. logit bias    z_t += bias_t
    4. repetition    z_t = z_t / p if z_t > 0 else z_t p, where prompt or answer has t
    5. frequency     z_t -= f n(t)
    6. presence      z_t -= q, where n(t) > 0
    7. temperature and filters, in `jaxmoe.decode.sampler`

What is recorded of a
token is the model's own distribution, before all of it.

Sources: Keskar et al. 2019 (arXiv 1909.05858) for the repetition penalty; vLLM's
`v1/sample` for the order. transformers agrees but for bad words, which it looks for in
prompt and answer together, and has neither frequency nor presence penalty.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax

from jaxmoe.typing import Array, Bool, Float, Int

PROMPT_CHUNK = 512
"""Tokens of each prompt that one call of `note_prompts` takes."""


class Adjustments(NamedTuple):
    """What each slot's sampler asks for; every array is [S, ...].

    presence, frequency, repetition: float32 [S]; 0, 0 and 1 change nothing.
    bias_ids, bias: int32 and float32 [S, B]. least: int32 [S], `min_tokens`. end_ids:
    int32 [S, X], banned until then. word_ends: int32 [S, W], the last token of each bad
    word. word_starts: int32 [S, W, R], the tokens before it, set to the right.
    Ids are padded with -1.
    """

    presence: Any
    frequency: Any
    repetition: Any
    bias_ids: Any
    bias: Any
    least: Any
    end_ids: Any
    word_ends: Any
    word_starts: Any


def allow_only(
    logits: Float[Array, "S V"], allowed: Int[Array, "S W"]
) -> Float[Array, "S V"]:
    """-inf for tokens whose bit is 0; the lowest bit of a word is its first token."""
    bits = (jnp.asarray(allowed)[:, :, None] >> jnp.arange(32)[None, None]) & 1
    bits = bits.reshape(logits.shape[0], -1)[:, : logits.shape[1]]
    return jnp.where(bits == 1, lax.optimization_barrier(logits), -jnp.inf)


class History(NamedTuple):
    """What is kept of each slot's tokens where some slot asks for adjustments.

    in_prompt: bool [S, V]. counts: int32 [S, V], how often the answer has each token.
    recent: int32 [S, R], its last tokens, the newest last; -1 before its first.
    """

    in_prompt: Any
    counts: Any
    recent: Any

    @classmethod
    def empty(cls, slots: int, vocab: int, starts: int) -> "History":
        """Of slots with no sample in them."""
        return cls(
            jnp.zeros((slots, vocab), bool),
            jnp.zeros((slots, vocab), jnp.int32),
            jnp.full((slots, starts), -1, jnp.int32),
        )

    def widened(self, starts: int) -> "History":
        """With room for so many recent tokens; older ones were not kept."""
        more = ((0, 0), (starts - self.recent.shape[1], 0))
        return self._replace(recent=jnp.pad(self.recent, more, constant_values=-1))

    def note(self, tokens: Int[Array, "S"], drawn: Bool[Array, "S"]) -> "History":
        """With one token more in the slots that have drawn one."""
        rows = jnp.arange(tokens.shape[0])
        counts = self.counts.at[rows, tokens].add(drawn.astype(jnp.int32))
        shifted = jnp.concatenate([self.recent[:, 1:], tokens[:, None]], axis=1)
        recent = jnp.where(drawn[:, None], shifted, self.recent)
        return self._replace(counts=counts, recent=recent)


def forget(history: History, slots: Bool[Array, "S"]) -> History:
    """Nothing in these slots, which get new answers."""
    rows = slots[:, None]
    return History(
        history.in_prompt & ~rows,
        jnp.where(rows, 0, history.counts),
        jnp.where(rows, -1, history.recent),
    )


def note_prompts(history: History, tokens: Int[Array, "S T"]) -> History:
    """Some of each slot's prompt, padded with -1."""
    rows = jnp.arange(tokens.shape[0])[:, None]
    at = _or_none(tokens, history.in_prompt)
    return history._replace(
        in_prompt=history.in_prompt.at[rows, at].set(True, mode="drop")
    )


def adjust(
    logits: Float[Array, "S V"],
    asked: Adjustments,
    history: History,
    drawn: Int[Array, "S"],
) -> Float[Array, "S V"]:
    """The logits to draw from; `drawn` counts the tokens of each answer so far."""
    # Computed as in the program without adjustments, so that no bit of them depends on
    # what another slot asks for.
    logits = lax.optimization_barrier(logits)
    logits = _ban(logits, _ending(asked, history.recent))
    early = (drawn < asked.least)[:, None]
    logits = _ban(logits, jnp.where(early, asked.end_ids, -1))
    rows = jnp.arange(logits.shape[0])[:, None]
    places = _or_none(asked.bias_ids, logits)
    logits = logits.at[rows, places].add(asked.bias, mode="drop")
    return _penalised(logits, asked, history)


def _ending(asked: Adjustments, recent: Int[Array, "S R"]) -> Int[Array, "S W"]:
    """The last tokens of bad words of which all others have just been drawn."""
    starts = jnp.asarray(asked.word_starts)
    begun = ((starts == -1) | (starts == recent[:, None, :])).all(axis=-1)
    return jnp.where(begun, asked.word_ends, -1)


def _ban(logits: Float[Array, "S V"], ids: Int[Array, "S X"]) -> Float[Array, "S V"]:
    rows = jnp.arange(logits.shape[0])[:, None]
    return logits.at[rows, _or_none(ids, logits)].set(-jnp.inf, mode="drop")


def _or_none(ids: Any, table: Array) -> Array:
    """-1 as a place past the table, which is dropped; itself it would be the last."""
    return jnp.where(ids < 0, table.shape[1], ids)


def _penalised(
    logits: Float[Array, "S V"], asked: Adjustments, history: History
) -> Float[Array, "S V"]:
    column = lambda values: jnp.asarray(values)[:, None]  # noqa: E731
    present = history.counts > 0
    factor = jnp.where(history.in_prompt | present, column(asked.repetition), 1.0)
    logits = jnp.where(logits > 0, logits / factor, logits * factor)
    logits = logits - column(asked.frequency) * history.counts
    return logits - jnp.where(present, column(asked.presence), 0.0)
