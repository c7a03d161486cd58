"""Log-probabilities in the shapes of both APIs, and of vLLM's prompt_logprobs.

They are those of the model's own distribution: no temperature, no filter.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from jaxmoe.model import Model
from jaxmoe.serve.answer import Piece

LEAST = -9999.0
"""What stands for minus infinity, which JSON has not; as OpenAI does."""


class TokenTexts:
    """Text of single tokens."""

    def __init__(self, model: Model):
        """Of a model without a tokenizer a token's text is `token_id:7`."""
        tokenizer = model.tokenizer

        def text(token: int) -> str:
            if tokenizer is None:
                return f"token_id:{token}"
            return tokenizer.decode([token], skip_special_tokens=False)

        self.of = lru_cache(maxsize=1 << 16)(text)


class Scored(NamedTuple):
    """Tokens with log-probabilities, and the most likely at each place.

    tokens: [T]. logprobs: float32 [T]. top_ids, top_logprobs: [T, Q], the most likely
    first, or None. ranks: int32 [T], 1 for the most likely, or None.
    """

    tokens: Sequence[int]
    logprobs: np.ndarray
    top_ids: np.ndarray | None
    top_logprobs: np.ndarray | None
    ranks: np.ndarray | None = None


def of_piece(piece: Piece) -> Scored:
    """Of an answer's new tokens."""
    return Scored(piece.tokens, piece.logprobs, piece.top_ids, piece.top_logprobs)


def chat_logprobs(scored: Scored, top: int, texts: TokenTexts) -> dict[str, Any]:
    """`logprobs` of a chat's choice, with the `top` most likely tokens."""

    def entry(token: int, logprob: float) -> dict[str, Any]:
        text = texts.of(token)
        data = list(text.encode(errors="replace"))
        return {"token": text, "logprob": finite(logprob), "bytes": data}

    content = []
    for place, token in enumerate(scored.tokens):
        best = [entry(t, lp) for t, lp in _best(scored, place, top)]
        own = entry(token, float(scored.logprobs[place]))
        content.append(own | {"top_logprobs": best})
    return {"content": content, "refusal": None}


@dataclass
class CompletionLogprobs:
    """`logprobs` of a completion's choice, whose offsets go on from chunk to chunk.

    top: how many of the most likely tokens are shown, besides the token itself.
    """

    texts: TokenTexts
    top: int
    offset: int = 0

    def of(self, scored: Scored) -> dict[str, Any]:
        """The next tokens."""
        words = [self.texts.of(token) for token in scored.tokens]
        offsets = []
        for word in words:
            offsets.append(self.offset)
            self.offset += len(word)
        tops = []
        for place, word in enumerate(words):
            best = _best(scored, place, self.top)
            shown = {self.texts.of(t): finite(lp) for t, lp in best}
            shown.setdefault(word, finite(float(scored.logprobs[place])))
            tops.append(shown)
        return {
            "tokens": words,
            "token_logprobs": [finite(float(lp)) for lp in scored.logprobs],
            "top_logprobs": tops,
            "text_offset": offsets,
        }

    def of_prompt(self, scored: Scored) -> dict[str, Any]:
        """A prompt's tokens; the first has none before it to be predicted from."""
        found = self.of(scored)
        found["token_logprobs"][0] = found["top_logprobs"][0] = None
        return found


def prompt_logprobs(scored: Scored, top: int, texts: TokenTexts) -> list[Any]:
    """vLLM's `prompt_logprobs`: token id -> its place; None for the first token."""
    assert scored.ranks is not None

    def entry(token: int, logprob: float, rank: int) -> dict[str, Any]:
        text = texts.of(token)
        return {"logprob": finite(logprob), "rank": rank, "decoded_token": text}

    found: list[Any] = [None]
    for place in range(1, len(scored.tokens)):
        best = _best(scored, place, top)
        shown = {str(t): entry(t, lp, rank) for rank, (t, lp) in enumerate(best, 1)}
        token, rank = int(scored.tokens[place]), int(scored.ranks[place])
        own = entry(token, float(scored.logprobs[place]), rank)
        found.append({str(token): own} | shown)
    return found


def finite(value: float) -> float | None:
    """A number that JSON has; None for NaN."""
    if math.isnan(value):
        return None
    return max(value, LEAST)


def _best(scored: Scored, place: int, count: int) -> list[tuple[int, float]]:
    if scored.top_ids is None or scored.top_logprobs is None:
        return []
    ids = scored.top_ids[place, :count].tolist()
    values = scored.top_logprobs[place, :count].tolist()
    return list(zip(ids, values, strict=True))


def joined_logprobs(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    """A prompt's and an answer's, one after the other."""
    return {name: before[name] + after[name] for name in before}
