"""What messages hold: parts joined, nothing dropped, the last one continued."""

import json
import re
from collections.abc import Callable
from typing import Any

Message = dict[str, Any]
Render = Callable[[list[Message]], str]

_OVER_PARTS = re.compile(r"\bfor\s+\w+\s+in\s+[^%}]*\bcontent\b")
_MARK = "\u2063JAXMOE-MARK\u2063"


def reads_parts(template: str) -> bool:
    """Whether a template goes through a list of content parts by itself."""
    return _OVER_PARTS.search(template) is not None


def check_parts(message: Message):
    """Refuses a text part without text, of which templates would make nothing."""
    content = message.get("content")
    for index, part in enumerate(content if isinstance(content, list) else []):
        texts = isinstance(part, dict) and part.get("type", "text") == "text"
        if texts and not isinstance(part.get("text"), str):
            raise ValueError(
                f"content[{index}] of a {message['role']} message must have a text, "
                f"found {json.dumps(part)[:120]}"
            )


def joined_parts(message: Message) -> Message:
    """The message with text parts joined, line by line, for templates that read text.

    Raises:
      ValueError: a part that is no text.
    """
    content = message.get("content")
    if not isinstance(content, list):
        return message
    texts = []
    for index, part in enumerate(content):
        text = part.get("text") if isinstance(part, dict) else part
        kind = part.get("type", "text") if isinstance(part, dict) else "text"
        if not isinstance(text, str) or kind not in ("text", "input_text"):
            raise ValueError(
                f"content[{index}] of a {message['role']} message must be text, as "
                f'{{"type": "text", "text": ...}}, found {json.dumps(part)[:120]}; '
                "this model reads nothing else"
            )
        texts.append(text)
    return message | {"content": "\n".join(texts)}


# -- nothing is dropped ------------------------------------------------------------


def check_kept(render: Render, chat: list[Message], text: str):
    """Refuses a chat of which the template leaves something out.

    What is not in the output as it stands is put in another form, to see whether the
    output changes with it: templates may quote, or cut old reasoning off.

    Args:
      render: from messages to text.
      chat: the messages.
      text: their text.

    Raises:
      ValueError: a content or tool calls without any effect.
    """
    for index, message in enumerate(chat):
        for field, other in (("content", _MARK), ("tool_calls", _CALLS)):
            value = message.get(field)
            if field == "content" and isinstance(value, list):
                _check_parts_kept(render, chat, index, text)
                continue
            if not value or _is_shown(value, text):
                continue
            changed = [*chat]
            changed[index] = message | {field: _like(value, other)}
            if _has_effect(render, changed, text):
                continue
            raise ValueError(
                f"the chat template drops the {field} of messages[{index}] "
                f"({message['role']}): {json.dumps(value)[:120]}; give it as text, or "
                "use a template that reads it"
            )


def _check_parts_kept(render: Render, chat: list[Message], index: int, text: str):
    """The same for each part of a content."""
    message = chat[index]
    parts = message["content"]
    for at, part in enumerate(parts):
        if isinstance(part, dict) and part.get("text") == "":
            continue
        changed = [*chat]
        changed[index] = message | {"content": [*parts[:at], *parts[at + 1 :]]}
        if not _has_effect(render, changed, text):
            raise ValueError(
                f"the chat template drops content[{at}] of messages[{index}] "
                f"({message['role']}): {json.dumps(part)[:120]}; give it as text, or "
                "use a template that reads it"
            )


_CALLS = [{"type": "function", "function": {"name": _MARK, "arguments": {}}}]


def _is_shown(value: Any, text: str) -> bool:
    return isinstance(value, str) and (not value.strip() or value.strip() in text)


def _like(value: Any, other: Any) -> Any:
    """Another value of the same kind."""
    if isinstance(value, dict):
        return {other: other}
    if isinstance(value, int | float):
        return value + 1
    return other


def _has_effect(render: Render, changed: list[Message], text: str) -> bool:
    try:
        return render(changed) != text
    except ValueError:
        return True


# -- the last message is continued -------------------------------------------------


def continued(render: Render, chat: list[Message]) -> str:
    """The chat's text up to the end of the last message's content.

    Raises:
      ValueError: no text to go on with, or a template that leaves it out.
    """
    *before, last = chat
    content = last.get("content")
    if isinstance(content, list) and content and isinstance(content[-1], dict):
        ending = content[-1].get("text")
        marked: Any = [*content[:-1], content[-1] | {"text": f"{ending}{_MARK}"}]
    else:
        ending, marked = content, f"{content}{_MARK}"
    if not isinstance(ending, str):
        raise ValueError(
            "continue_final_message needs a last message with text to go on with, "
            f"found {json.dumps(content)[:120]}"
        )
    text = render([*before, last | {"content": marked}])
    head, mark, _ = text.rpartition(_MARK)
    if not mark or ending.strip() not in head:
        raise ValueError(
            "continue_final_message: the chat template does not write the last message "
            f"out as it stands ({ending[:80]!r}); it cannot be continued"
        )
    return head
