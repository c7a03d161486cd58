"""The text of a message whose content comes in parts, as chat endpoints send it."""

from collections.abc import Mapping, Sequence
from typing import Any

_TEXTS = ("text", "output_text")
_REASONING = ("reasoning", "thinking", "redacted_thinking")
"""What the types of parts begin with that are no part of the answer."""


def is_reasoning(part: Any) -> bool:
    """Whether a part holds what the model thought, not what it answered."""
    type = part.get("type") if isinstance(part, Mapping) else None
    return isinstance(type, str) and type.startswith(_REASONING)


def is_content(parts: Sequence[Any]) -> bool:
    """Whether these are the parts of one message: each has a type, one is text.

    Parts that are all reasoning are a message that was cut off before its answer.
    """
    typed = all(isinstance(part, Mapping) and part.get("type") for part in parts)
    texts = any(part["type"] in _TEXTS for part in parts) if typed else False
    return texts or (bool(parts) and all(map(is_reasoning, parts)))


def text_of_parts(parts: Sequence[Any]) -> str:
    """The texts of the parts, joined; a part that says no type is text."""
    known = [part for part in parts if isinstance(part, Mapping)]
    texts = [part.get("text") for part in known if part.get("type") in (None, *_TEXTS)]
    return "".join(text for text in texts if isinstance(text, str))
