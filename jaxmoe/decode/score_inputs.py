"""What users pass to `jaxmoe.loglikelihood`, as token ids."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxmoe.decode.inputs import Prompt, check_prompt, is_chat
from jaxmoe.model import Model

Continuation = str | Sequence[int] | np.ndarray
"""Text, or token ids."""


def encode_pair(
    model: Model, context: Prompt | None, continuation: Continuation
) -> tuple[np.ndarray, np.ndarray]:
    """Token ids of a context and of what follows it, [C] and [T], T >= 1.

    Of two texts the border is drawn as lm-evaluation-harness draws it: spaces at the
    end of the context go to the continuation, both are encoded as one text, and the
    tokens past as many as the context alone has are the continuation's. Else each is
    encoded by itself. An empty context is the token that begins a text.

    Raises:
      TypeError, ValueError: something else than texts, ids or a chat; a continuation
        of no token.
    """
    if isinstance(context, str) and isinstance(continuation, str) and context:
        before, after = _encode_texts(model, context, continuation)
    else:
        before = _context_ids(model, context)
        after = encode_plain(model, continuation)
        if _is_empty(context) and len(after) > 1 and after[0] == before[-1]:
            after = after[1:]  # it was written out
    if not len(after):
        raise ValueError(
            "a continuation must have at least one token, found none in "
            f"{continuation!r:.70} after {context!r:.70}; score a longer one"
        )
    return before, after


def check_pair(model: Model, before: np.ndarray, after: np.ndarray) -> None:
    """Refuses ids that are none of the model's, or too many.

    Raises:
      TypeError, ValueError: as of `check_prompt`.
    """
    both = np.concatenate([before, after])
    # The last token is no input, and may stand just past the context's end.
    check_prompt(model, both[:-1], 0)
    check_prompt(model, both[-1:], 0)


def encode_text(model: Model, text: str) -> np.ndarray:
    """Token ids of a text, after those that the tokenizer puts before one.

    These are left out where the text begins with them, as a rendered chat may.
    """
    return _opened(model, encode_plain(model, text))


def encode_plain(model: Model, text: Continuation) -> np.ndarray:
    """Token ids of a text without any put around it; ids as they are."""
    if isinstance(text, str):
        ids = model.require_tokenizer("a text").encode(text, add_special_tokens=False)
        return np.array(ids, np.int32)
    ids = np.asarray(text)
    if ids.ndim != 1:
        raise TypeError(
            f"expected text or one list of token ids to score, found {text!r:.70}"
        )
    return ids if ids.size else ids.astype(np.int32)


def beginning_id(model: Model) -> int:
    """The token that begins a text: beginning of sequence, else end of it.

    Raises:
      ValueError: neither is known.
    """
    tokenizer, stops = model.tokenizer, model.config.stop_ids
    named = () if tokenizer is None else (tokenizer.bos_id, tokenizer.eos_id)
    for found in (*named, *stops[:1]):
        if found is not None:
            return found
    raise ValueError(
        "an empty context needs a token that begins a text, found neither bos_token "
        "nor eos_token in this checkpoint; pass a context of one token"
    )


def _encode_texts(
    model: Model, context: str, continuation: str
) -> tuple[np.ndarray, np.ndarray]:
    before = encode_plain(model, context.rstrip())
    after = encode_plain(model, context + continuation)[len(before) :]
    before = _opened(model, before)
    if not len(before):  # spaces alone
        before = np.array([beginning_id(model)])
    return before, after


def _context_ids(model: Model, context: Prompt | None) -> np.ndarray:
    if _is_empty(context):
        return np.array([beginning_id(model)])
    assert context is not None
    if isinstance(context, str):
        return encode_text(model, context)
    return check_prompt(model, context, 0) if is_chat(context) else np.asarray(context)


def _opened(model: Model, ids: np.ndarray) -> np.ndarray:
    """`ids` after what the tokenizer puts before a text."""
    tokenizer = model.require_tokenizer("a text")
    opening = tokenizer.encode("")
    # Of the empty text these are all it puts, one at the end included.
    if opening and opening[-1] == tokenizer.eos_id != tokenizer.bos_id:
        opening = opening[:-1]
    there = ids[: len(opening)].tolist() == opening
    return ids if there else np.concatenate([np.array(opening, np.int32), ids])


def _is_empty(context: Any) -> bool:
    return context is None or (hasattr(context, "__len__") and len(context) == 0)
