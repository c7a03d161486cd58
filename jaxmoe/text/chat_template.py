"""Chat templates: which one a model uses, and messages rendered through it.

The same text as `transformers`' `apply_chat_template`, but stricter: what a template
would silently ignore (a misspelt option, tools it has no place for) is refused.
"""

from collections.abc import Callable, Mapping, Sequence
from inspect import isfunction, ismethod
from pathlib import Path
from typing import Any

from jaxmoe.files import printable, read_small_text
from jaxmoe.text.content import (
    check_kept,
    check_parts,
    continued,
    joined_parts,
    reads_parts,
)
from jaxmoe.text.function_schema import function_schema

REASONING = ("reasoning_content", "thinking", "reasoning")
"""Names that messages use for their reasoning; templates read the first or second."""


def read_templates(directory: Path, tokenizer_config: Mapping) -> dict[str, str]:
    """A model's templates by name; {} where it has none.

    `chat_template.jinja` (named "default") and `additional_chat_templates/NAME.jinja`
    come before the entry of `tokenizer_config.json`, which is then not read.
    """
    paths = {
        path.stem: path
        for path in sorted(directory.glob("additional_chat_templates/*.jinja"))
    }
    if (directory / "chat_template.jinja").exists():
        paths["default"] = directory / "chat_template.jinja"
    if paths:
        return {name: read_small_text(path) for name, path in paths.items()}
    entry = tokenizer_config.get("chat_template")
    if entry is None:
        return {}
    if isinstance(entry, str):
        return {"default": entry}
    try:
        templates = {item["name"]: item["template"] for item in entry}
        assert all(isinstance(text, str) for text in templates.values())
        return templates
    except (TypeError, KeyError, AssertionError):
        raise ValueError(
            f"chat_template in {directory / 'tokenizer_config.json'} must be a string "
            'or a list of {"name": ..., "template": ...}, found '
            f"{str(entry)[:200]!r}; correct it, or put the template into "
            "chat_template.jinja"
        ) from None


def choose_template(
    templates: Mapping[str, str], chosen: str | None = None, *, tools: bool = False
) -> str:
    """The source of the template to use.

    Args:
      templates: templates by name, as `read_templates` gives them.
      chosen: a name among them, or the source of another template. None takes
        "tool_use" where there are tools and such a template, else "default".
      tools: whether the chat has tools.
    """
    if chosen is not None:
        if chosen in templates:
            return templates[chosen]
        if "{" in chosen:
            return chosen
        raise ValueError(
            f"no chat template is named {chosen!r}; found {sorted(templates)}"
        )
    if tools and "tool_use" in templates:
        return templates["tool_use"]
    if "default" in templates:
        return templates["default"]
    if templates:
        raise ValueError(
            f"the model has the chat templates {sorted(templates)} and none named "
            "'default'; pass chat_template= with one of these names"
        )
    raise ValueError(
        "the model has no chat template: expected chat_template.jinja, or "
        "chat_template in tokenizer_config.json, beside tokenizer.json; pass "
        "chat_template= with a template, or encode a plain prompt instead"
    )


def render_template(
    source: str,
    messages: Sequence[Mapping[str, Any]],
    *,
    tools: Sequence[Mapping[str, Any] | Callable] | None = None,
    add_generation_prompt: bool = True,
    continue_final_message: bool = False,
    options: Mapping[str, Any],
    special_tokens: Mapping[str, str],
) -> str:
    """The chat as text.

    Args:
      source: Jinja source of the template.
      messages: `{"role": ..., "content": ...}` each, oldest first.
      tools: functions that the model may call: JSON schemas, or Python functions with
        type hints and a docstring in Google style.
      add_generation_prompt: end with the opening of the model's answer.
      continue_final_message: end within the last message, for the model to go on with.
      options: further variables, such as `enable_thinking`; the template must read
        each. They come before `special_tokens`.
      special_tokens: `bos_token` and its like, which templates may read.

    Raises:
      TypeError, ValueError: malformed messages or tools; an option, tools or content
        that the template has no place for; a template that is broken, computes without
        bound or refuses the chat.
    """
    from jaxmoe.text import jinja

    chat = _check_messages(messages)
    schemas = _check_tools(tools)
    variables = _plain(options, "options")
    try:
        template = jinja.compile_template(source)
        readable = jinja.variables_read(source)
    except (jinja.TemplateError, *_FAULTS) as error:
        raise ValueError(
            f"the chat template is no valid Jinja: {_said(error)} (line "
            f"{getattr(error, 'lineno', '?')}); correct chat_template.jinja or "
            "tokenizer_config.json"
        ) from None
    _check_readable(readable, schemas, options)
    for message in chat:
        check_parts(message)
    if not reads_parts(source):
        chat = [joined_parts(message) for message in chat]

    def render(chat: list[dict[str, Any]]) -> str:
        try:
            return jinja.render(
                template,
                {
                    "documents": None,
                    **special_tokens,
                    **variables,
                    "messages": chat,
                    "tools": schemas,
                    "add_generation_prompt": add_generation_prompt,
                },
            )
        except (jinja.TemplateError, *_FAULTS) as error:
            raise ValueError(
                f"the chat template refuses these messages: {_said(error)}; compare "
                "their roles and fields with what the template reads"
            ) from None

    text = continued(render, chat) if continue_final_message else render(chat)
    if "messages" in readable:
        check_kept(render, chat, text)
    return text


_FAULTS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    SyntaxError,
    TypeError,
    ValueError,
)
"""What a template that is wrong, or malicious, raises besides Jinja's own errors."""


def _said(error: BaseException) -> str:
    """What an error says, cut, without what would move a terminal's cursor."""
    text = str(error) or type(error).__name__
    return printable(text[:500])


def _check_readable(readable, tools, options: Mapping[str, Any]) -> None:
    given = dict(options)
    if tools:
        given["tools"] = tools
    unread = sorted(given.keys() - readable)
    if unread:
        known = sorted(readable - {"messages", "add_generation_prompt"})
        raise ValueError(
            f"the chat template does not read {', '.join(unread)}, which would be "
            f"ignored; it reads {', '.join(known) or 'no options'}. Leave out what it "
            "does not read, or use a model whose template does"
        )


def _check_messages(messages: object) -> list[dict[str, Any]]:
    """Messages as plain dicts, without fields that are None.

    Programs that speak chat APIs write `content: None`, which is no text: as with
    other servers it is empty.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str | bytes):
        raise TypeError(
            "messages must be a list of dicts with 'role' and 'content', found "
            f"{type(messages).__name__}; a single prompt is "
            '[{"role": "user", "content": prompt}]'
        )
    if not messages:
        raise ValueError("messages is empty; give at least one message")
    chat = []
    for index, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise TypeError(
                f"messages[{index}] must be a dict with 'role' and 'content', found "
                f"{type(message).__name__}: {str(message)[:80]!r}"
            )
        if not isinstance(message.get("role"), str):
            raise ValueError(
                f"messages[{index}] must have a 'role' such as 'user', 'assistant', "
                f"'system' or 'tool', found {message.get('role')!r} among the fields "
                f"{sorted(map(str, message))}"
            )
        fields = {name: value for name, value in message.items() if value is not None}
        if "content" in message:
            fields.setdefault("content", "")
        plain = _plain(fields, f"messages[{index}]")
        chat.append(_name_reasoning(plain))
    return chat


def _name_reasoning(message: dict[str, Any]) -> dict[str, Any]:
    """The message with its reasoning under each name that templates read."""
    given = [message[name] for name in REASONING if name in message]
    if given:
        message["reasoning_content"] = given[0]
        message.setdefault("thinking", given[0])
    return message


def _check_tools(tools: object) -> list[Any] | None:
    if tools is None:
        return None
    if not isinstance(tools, Sequence) or isinstance(tools, str | bytes):
        raise TypeError(
            f"tools must be a list of JSON schemas, found {type(tools).__name__}"
        )
    tools = [
        function_schema(tool) if isfunction(tool) or ismethod(tool) else tool
        for tool in tools
    ]
    for index, tool in enumerate(tools):
        if not isinstance(tool, Mapping):
            raise TypeError(
                f"tools[{index}] must be a JSON schema as a dict, such as "
                '{"type": "function", "function": {"name": ..., "parameters": ...}}, '
                f"or a Python function, found {type(tool).__name__}"
            )
    return _plain(tools, "tools")


def _plain(value: Any, where: str) -> Any:
    """`value` rebuilt of JSON types, so that a template meets no other methods."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)  # str() of an enumeration is its name
    for kind in (int, float):
        if isinstance(value, kind):
            return kind(value)
    if isinstance(value, Mapping):
        return {
            _plain(name, where): _plain(item, f"{where}[{name!r}]")
            for name, item in value.items()
        }
    if isinstance(value, Sequence) and not isinstance(value, bytes):
        return [_plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    raise TypeError(
        f"{where} must be made of strings, numbers, lists and dicts, found "
        f"{type(value).__name__}; templates take no other data"
    )
