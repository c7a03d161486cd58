"""Python functions as tools: their JSON schema, as transformers builds it.

https://huggingface.co/docs/transformers, "Tool use": type hints give the types, a
docstring in Google style the descriptions.
"""

import inspect
import json
import re
import types
import typing
from collections.abc import Callable
from enum import Enum
from typing import Any, Literal, Union, get_args, get_origin

_DESCRIPTION = re.compile(r"^(.*?)[\n\s]*(Args:|Returns:|Raises:|\Z)", re.DOTALL)
_ARGS = re.compile(r"\n\s*Args:\n(.*?)[\n\s]*(Returns:|Raises:|\Z)", re.DOTALL)
_RETURNS = re.compile(r"\n\s*Returns:\n\s*(.*?)[\n\s]*(Raises:|\Z)", re.DOTALL)
_ARG = re.compile(
    r"(?:^|\n)([ \t]*)(\w+)(?:[ \t]*\([^()\n]*\))?:\s*(.*?)\s*"
    r"(?=\n(?!\1[ \t])[ \t]*\w+(?:[ \t]*\([^()\n]*\))?:|\Z)",
    re.DOTALL,
)
_CHOICES = re.compile(r"\(choices:\s*(.*?)\)\s*$", re.IGNORECASE)
_SCALARS = {
    int: "integer",
    float: "number",
    str: "string",
    bool: "boolean",
    type(None): "null",
}
_TYPES = {
    **{kind: {"type": name} for kind, name in _SCALARS.items()},
    list: {"type": "array"},
    tuple: {"type": "array"},
    dict: {"type": "object"},
    Any: {},
}


def function_schema(function: Callable) -> dict[str, Any]:
    """The JSON schema of a function that a model may call.

    Raises:
      ValueError: no docstring, an argument without hint or description, or a hint that
        is no type of JSON.
    """
    name = getattr(function, "__name__", "operation")
    doc = (inspect.getdoc(function) or "").strip()
    if not doc:
        raise ValueError(f"{name} as a tool needs a docstring, found none; {_REMEDY}")
    try:
        hints = typing.get_type_hints(function)
    except NameError as error:
        raise ValueError(f"a type hint of {name} is unknown: {error}") from None
    told = _arguments(doc)
    properties, required = {}, []
    for arg in _parameters(function, name):
        if arg.name not in told:
            raise ValueError(
                f"{name} as a tool: its docstring describes {sorted(told)}, expected "
                f"{arg.name} among them; {_REMEDY}"
            )
        properties[arg.name] = _described(
            _schema(hints[arg.name], name), told[arg.name]
        )
        if arg.default is inspect.Parameter.empty:
            required.append(arg.name)
    parameters: dict[str, Any] = {"type": "object", "properties": properties}
    if required:
        parameters["required"] = required
    found = _DESCRIPTION.search(doc)
    about = {
        "name": name,
        "description": found[1].strip() if found else None,
        "parameters": parameters,
    }
    if (returned := _returned(hints, doc, name)) is not None:
        about["return"] = returned
    return {"type": "function", "function": about}


_REMEDY = "describe each argument under Args:, or write the schema out"


def _parameters(function: Callable, name: str) -> list[inspect.Parameter]:
    """The arguments, without `self`."""
    found = list(inspect.signature(function).parameters.values())
    empty = inspect.Parameter.empty
    if found and found[0].name in ("self", "cls") and found[0].annotation is empty:
        found = found[1:]
    for arg in found:
        if arg.annotation is empty:
            raise ValueError(
                f"{name} as a tool: argument {arg.name} needs a type hint, found none"
            )
    return found


def _arguments(doc: str) -> dict[str, str]:
    """Argument -> what the docstring says of it."""
    block = _ARGS.search(doc)
    lines = [line for line in (block[1] if block else "").split("\n") if line.strip()]
    rows = _ARG.findall("\n".join(lines))
    return {row[1]: re.sub(r"\s*\n+\s*", " ", row[2].strip()) for row in rows}


def _described(schema: dict[str, Any], text: str) -> dict[str, Any]:
    schema = dict(schema)
    if choices := _CHOICES.search(text):
        values = json.loads(choices[1])
        schema["enum"] = [v.strip() if isinstance(v, str) else v for v in values]
        text = text[: choices.start()].strip()
    return schema | {"description": text}


def _returned(hints: dict[str, Any], doc: str, name: str) -> dict[str, Any] | None:
    if "return" not in hints:
        return None
    try:
        schema = dict(_schema(hints["return"], name))
    except ValueError:
        return None  # the model never writes it
    if found := _RETURNS.search(doc):
        schema["description"] = found[1]
    return schema


def _schema(hint: Any, name: str) -> dict[str, Any]:
    """The JSON schema of a type hint."""
    origin: Any = get_origin(hint)
    args: list[Any] = list(get_args(hint))
    if origin is None and isinstance(hint, type) and issubclass(hint, Enum):
        return _enum([member.value for member in hint], name)
    if origin is None and hint in _TYPES:
        return dict(_TYPES[hint])
    if origin in (Union, types.UnionType):
        return _union(tuple(args), name)
    if origin is Literal:
        return _enum(list(args), name)
    if origin is list:
        return {"type": "array", "items": _schema(args[0], name)}
    if origin is tuple and len(args) > 1 and ... not in args:
        return {"type": "array", "prefixItems": [_schema(arg, name) for arg in args]}
    if origin is dict:
        return {"type": "object", "additionalProperties": _schema(args[1], name)}
    raise ValueError(
        f"{name} as a tool: expected hints of int, float, str, bool, list, tuple, "
        f"dict, Enum, Literal or unions of them, found {hint!r}; write the schema out"
    )


def _enum(values: list[Any], name: str) -> dict[str, Any]:
    if not values or any(type(value) not in _SCALARS for value in values):
        raise ValueError(f"{name} as a tool: expected plain choices, found {values!r}")
    kinds = list(dict.fromkeys(_SCALARS[type(value)] for value in values))
    return {"type": kinds[0] if len(kinds) == 1 else kinds, "enum": values}


def _union(args: tuple[Any, ...], name: str) -> dict[str, Any]:
    found = [_schema(arg, name) for arg in args if arg is not type(None)]
    simple = all(f.keys() == {"type"} and isinstance(f["type"], str) for f in found)
    if len(found) == 1:
        schema = found[0]
    elif simple:
        kinds = sorted({f["type"] for f in found})
        schema = {"type": kinds[0] if len(kinds) == 1 else kinds}
    else:
        schema = {"anyOf": found}
    return schema | ({"nullable": True} if type(None) in args else {})
