"""Assertions in one process, the program that they call in another.

Two programs of the sandbox, each of whose stdin is the other's stdout: `ask` runs the
assertions, `answer` the program that somebody wrote. So the program sees the arguments
of its calls and nothing of what is expected; and what it returns comes as plain values,
none of which can claim to equal all others.

A request is a line of JSON, [operation, target, arguments, options]; so is a reply,
[value] or [kinds of error, message]. Values that JSON has not are lists with a tag.
What is no plain value stays where it is, and is named by its number.
"""

import ast
import builtins
import importlib
import json
import os
import sys
import types
from collections import deque
from contextlib import suppress
from datetime import date, datetime
from decimal import Decimal
from fractions import Fraction
from itertools import islice
from typing import Any

_SEQUENCES = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
_SEQUENCES |= {"deque": deque}
_TEXTS = {
    "fraction": (Fraction, str, Fraction),
    "decimal": (Decimal, str, Decimal),
    # A datetime is a date too, and comes first.
    "datetime": (datetime, datetime.isoformat, datetime.fromisoformat),
    "date": (date, date.isoformat, date.fromisoformat),
}
"""Tag -> the kind, and how it becomes text and comes back from it."""
_LONGEST = 1 << 26
"""Characters of a line, and items of an iterator that are fetched."""


def ask(script: str, name: str | None) -> None:
    """Runs assertions; ends with an exception where one does not hold.

    name: a function that the program defines, whatever else has this name.
    """
    sys.set_int_max_str_digits(0)
    requests, replies = os.fdopen(os.dup(1), "w"), os.fdopen(os.dup(0))
    os.dup2(os.open("/dev/null", os.O_WRONLY), 1)
    tree = ast.parse(script)

    def call(operation, target, arguments=(), options=None):
        given = [operation, target, _packed(arguments), _packed(options or {})]
        with suppress(BrokenPipeError):  # found out below
            print(json.dumps(given), file=requests, flush=True)
        line = replies.readline(_LONGEST)
        if not line.endswith("\n"):
            raise EOFError("the program has ended before it was asked")
        reply = json.loads(line)
        if len(reply) == 1:
            return _unpacked(reply[0], lambda number: _Remote(call, number))
        raise _error(reply[0], str(reply[1]))

    script_globals: dict[str, Any] = {"__name__": "tests"}
    for free in _free_names(tree, name):
        with suppress(NameError):  # where it is used, it is missing there
            script_globals[free] = call("name", free)
    for module in _modules(tree):
        script_globals.setdefault(module, importlib.import_module(module))
    exec(compile(tree, "tests.py", "exec", dont_inherit=True), script_globals)


def _error(names: list, message: str) -> Exception:
    """The first of these exceptions of Python's own that takes a message."""
    for name in names:
        kind = getattr(builtins, str(name), None)
        if not (isinstance(kind, type) and issubclass(kind, Exception)):
            continue
        # The end of an iterator would be taken for that of the assertions' own.
        if issubclass(kind, StopIteration | StopAsyncIteration):
            break
        with suppress(TypeError):
            return kind(message)
    return RuntimeError(message)


class _Remote:
    """Something in the program's process; equal to itself alone."""

    def __init__(self, call, number):
        vars(self).update(_call=call, _number=number)

    def __call__(self, *arguments, **options):
        return self._call("call", self._number, arguments, options)

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return self._call("attribute", self._number, [name])

    def __setattr__(self, name, value):
        self._call("set", self._number, [name, value])

    def __bool__(self):
        return True

    def __iter__(self):
        return iter(self._call("items", self._number))

    def __len__(self):
        return len(self._call("items", self._number))

    def __getitem__(self, key):
        return self._call("item", self._number, [key])

    def __str__(self):
        return str(self._call("text", self._number))


def _free_names(tree: ast.Module, name: str | None) -> list[str]:
    """Names that the assertions take from the program, `name` first."""
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name)]
    bound = {node.id for node in names if not isinstance(node.ctx, ast.Load)}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            bound.add(node.name)
        elif isinstance(node, ast.arg):
            bound.add(node.arg)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            bound |= {(a.asname or a.name).split(".")[0] for a in node.names}
        elif isinstance(node, ast.ExceptHandler) and node.name:
            bound.add(node.name)
    used = dict.fromkeys(n.id for n in names if n.id not in bound)
    modules = set(_modules(tree))
    free = [n for n in used if not hasattr(builtins, n) and n not in modules]
    if name is not None:
        return [name, *(n for n in free if n != name)]
    # A program may be asked for a function with the name of a builtin, such as sum.
    called = [n.func for n in ast.walk(tree) if isinstance(n, ast.Call)]
    return free or [n.id for n in called[:1] if isinstance(n, ast.Name)]


def _modules(tree: ast.Module) -> list[str]:
    """Modules of the standard library that are used and, perhaps, not imported."""
    bases = [n.value for n in ast.walk(tree) if isinstance(n, ast.Attribute)]
    inner = {id(node) for node in bases}
    loads = [n for n in ast.walk(tree) if isinstance(n, ast.Name)]
    alone = {n.id for n in loads if id(n) not in inner}
    names = dict.fromkeys(n.id for n in loads if id(n) in inner)
    return [n for n in names if n in sys.stdlib_module_names and n not in alone]


def answer(prelude: str, program: str) -> None:
    """Runs a program's text, then does what is asked until nobody asks any more."""
    sys.set_int_max_str_digits(0)
    requests, replies = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w")
    nothing = os.open("/dev/null", os.O_RDWR)
    os.dup2(nothing, 0)
    os.dup2(nothing, 1)
    leave = os._exit
    module = sys.modules["solution"] = types.ModuleType("solution")
    exec(prelude, vars(module))
    exec(compile(program, "program.py", "exec", dont_inherit=True), vars(module))
    kept: list = []

    def keep(value):
        kept.append(value)
        return len(kept) - 1

    for line in requests:
        operation, target, arguments, options = json.loads(line)
        arguments: Any = _unpacked(arguments, kept.__getitem__)
        options: Any = _unpacked(options, kept.__getitem__)
        try:
            if operation == "name":
                if not hasattr(module, target):
                    raise NameError(f"name {target!r} is not defined")
                value = getattr(module, target)
            elif operation == "call":
                value = kept[target](*arguments, **options)
            elif operation == "attribute":
                value = getattr(kept[target], *arguments)
            elif operation == "set":
                value = setattr(kept[target], *arguments)
            elif operation == "item":
                value = kept[target][arguments[0]]
            elif operation == "items":
                value = list(islice(kept[target], _LONGEST))
            else:
                value = str(kept[target])
            reply = [_packed(value, keep)]
        except Exception as error:
            # An error of the program's own is caught as what it extends.
            reply = [[kind.__name__ for kind in type(error).__mro__], str(error)]
        print(json.dumps(reply), file=replies, flush=True)
    leave(0)


def _packed(value, keep=None):
    """A value as JSON has it."""
    if value is None or isinstance(value, bool | str):
        return str(value) if isinstance(value, str) else value
    if isinstance(value, int | float):
        return int(value) if isinstance(value, int) else float(value)
    if isinstance(value, _Remote):
        return ["kept", value._number]
    for tag, kind in _SEQUENCES.items():
        if isinstance(value, kind):
            return [tag, *(_packed(item, keep) for item in value)]
    for tag, (kind, text, _) in _TEXTS.items():
        if isinstance(value, kind):
            return [tag, str(text(value))]
    if isinstance(value, dict):
        pairs = value.items()
        return ["dict", *([_packed(k, keep), _packed(v, keep)] for k, v in pairs)]
    if isinstance(value, bytes | bytearray):
        return [type(value).__name__, value.hex()]
    if isinstance(value, complex):
        return ["complex", value.real, value.imag]
    if isinstance(value, range):
        return ["range", value.start, value.stop, value.step]
    if keep is None:
        raise TypeError(f"no plain value to pass on: {type(value).__name__}")
    return ["kept", keep(value)]


def _unpacked(value, kept):
    """What `_packed` made a value of."""
    if not isinstance(value, list):
        return value
    tag, *items = value
    if tag == "kept":
        return kept(items[0])
    if tag in _SEQUENCES:
        return _SEQUENCES[tag](_unpacked(item, kept) for item in items)
    if tag in _TEXTS:
        return _TEXTS[tag][2](items[0])
    if tag == "dict":
        return {_unpacked(k, kept): _unpacked(v, kept) for k, v in items}
    if tag in ("bytes", "bytearray"):
        return getattr(builtins, tag).fromhex(items[0])
    return {"complex": complex, "range": range}[tag](*items)
